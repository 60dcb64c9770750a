//! From a step's results to the sequences' next states.

use super::{EngineEvent, Scheduler};
use crate::sequence::{Goal, Sequence};
use baton_kvcache::BlockPool;
use baton_types::{FinishReason, OutputToken, RunnerError, Sampled, SequenceEvent, StepBatch};

impl Scheduler {
    /// Takes in what the planned step computed: its blocks become readable for others, its tokens go out, and
    /// sequences that ended give their blocks back.
    pub fn commit(&mut self, batch: &StepBatch, sampled: Sampled, pool: &BlockPool) {
        let in_flight = std::mem::take(&mut self.in_flight);
        assert_eq!(
            sampled.sequences.len(),
            in_flight.len(),
            "the runner answers for every sequence of the batch"
        );
        let mut running: Vec<Option<Sequence>> =
            std::mem::take(&mut self.running).into_iter().map(Some).collect();
        for ((index, part), result) in in_flight.into_iter().zip(&batch.sequences).zip(sampled.sequences) {
            let mut sequence = running[index].take().expect("a sequence is in a batch once");
            sequence.computed_len += part.tokens.len();
            sequence.register_computed(pool.block_size());
            sequence.gather_prompt_logprobs(result.prompt_logprobs);
            if let Some(logprobs) = sequence.take_prompt_logprobs() {
                self.emit(sequence.id, SequenceEvent::PromptLogprobs(logprobs));
            }
            assert_eq!(part.sample.is_some(), result.token.is_some(), "sampled where asked, and only there");
            match (result.token, sequence.goal) {
                (Some(token), Goal::PrefillOnly) => {
                    self.events.push(EngineEvent::Prefilled(sequence.id, token));
                    self.parked.insert(sequence.id, sequence);
                }
                (Some(token), Goal::Generate) => {
                    if self.append(&mut sequence, token) {
                        running[index] = Some(sequence);
                    }
                }
                (None, _) => running[index] = Some(sequence),
            }
        }
        self.running = running.into_iter().flatten().collect();
    }

    /// Ends the planned step's sequences, which the runner could not compute. The others go on.
    pub fn fail(&mut self, batch: &StepBatch, error: &RunnerError) {
        self.in_flight.clear();
        for part in &batch.sequences {
            self.abort(part.id, FinishReason::Error(error.to_string()));
        }
    }

    /// Appends a chosen token and tells so; whether the sequence goes on.
    pub(super) fn append(&mut self, sequence: &mut Sequence, token: OutputToken) -> bool {
        sequence.tokens.push(token.id);
        self.emit(sequence.id, SequenceEvent::Token(token));
        match sequence.finish_reason(&self.config.end_tokens, self.config.max_model_len) {
            Some(reason) => {
                self.emit(sequence.id, SequenceEvent::Finished(sequence.finish(reason)));
                false
            }
            None => true,
        }
    }
}
