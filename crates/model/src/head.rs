//! From the last layer to tokens: the final norm, the output projection, and the choice, for those rows that need it.

use crate::decoder::Hidden;
use crate::weights::Weights;
use baton_kernels::cpu::{SampleScratch, add_rms_norm, log_softmax_top, sample};
use baton_types::{OutputToken, SampleRequest, Sampled, SampledSequence, StepBatch, TokenId, TokenLogprobs};
use rayon::prelude::*;

/// Rows that go through the output projection at a time: enough to use each weight well, few enough that the logits
/// (a vocabulary of 150,000 times 4 bytes a row) stay at some 20 MB.
const ROWS_MAX: usize = 32;

/// Buffers of the last part, kept from step to step.
#[derive(Default)]
pub(crate) struct Head {
    rows: Vec<Row>,
    /// `[rows, hidden]` each.
    residual: Vec<f32>,
    delta: Vec<f32>,
    normed: Vec<f32>,
    /// `[rows, vocab]`.
    logits: Vec<f32>,
    scratch: Vec<SampleScratch>,
}

/// A row of the batch whose logits are needed.
struct Row {
    /// Which token of the batch.
    token: usize,
    /// Which sequence it belongs to.
    sequence: usize,
    /// How many most likely tokens to report, and the known token that follows.
    known: Option<(u8, TokenId)>,
    /// Choose a token here.
    samples: bool,
}

/// What a row's logits gave.
struct Choice {
    known: Option<TokenLogprobs>,
    token: Option<OutputToken>,
}

impl Head {
    /// Chooses tokens and reports log-probabilities, as the batch asks.
    pub(crate) fn choose(&mut self, weights: &Weights, hidden: Hidden<'_>, batch: &StepBatch) -> Sampled {
        self.find_rows(batch);
        let mut sampled = Sampled { sequences: vec![SampledSequence::default(); batch.sequences.len()] };
        self.scratch.resize_with(ROWS_MAX, SampleScratch::default);
        for start in (0..self.rows.len()).step_by(ROWS_MAX) {
            let end = self.rows.len().min(start + ROWS_MAX);
            self.project(weights, &hidden, start..end);
            let rows = self.rows[start..end].par_iter();
            let logits = self.logits.par_chunks(weights.config.vocab);
            let choices = rows.zip(logits).zip(&mut self.scratch).map(|((row, logits), scratch)| {
                let request = batch.sequences[row.sequence].sample.as_ref().filter(|_| row.samples);
                choose(logits, row, request, scratch)
            });
            for (row, choice) in self.rows[start..end].iter().zip(choices.collect::<Vec<_>>()) {
                let sequence = &mut sampled.sequences[row.sequence];
                sequence.prompt_logprobs.extend(choice.known);
                sequence.token = choice.token.or(sequence.token.take());
            }
        }
        sampled
    }

    fn find_rows(&mut self, batch: &StepBatch) {
        self.rows.clear();
        for (index, sequence) in batch.sequences.iter().enumerate() {
            let last = sequence.tokens.end - 1;
            for token in sequence.tokens.clone() {
                let known = sequence.prompt_logprobs.and_then(|(top, after_chunk)| {
                    let next = if token == last { after_chunk } else { Some(batch.token_ids[token + 1]) };
                    next.map(|next| (top, next))
                });
                let samples = token == last && sequence.sample.is_some();
                if samples || known.is_some() {
                    self.rows.push(Row { token, sequence: index, known, samples });
                }
            }
        }
    }

    /// Logits of some of the rows.
    fn project(&mut self, weights: &Weights, hidden: &Hidden<'_>, rows: std::ops::Range<usize>) {
        let len = weights.config.hidden;
        let count = rows.len();
        for buffer in [&mut self.residual, &mut self.delta, &mut self.normed] {
            buffer.resize(count * len, 0.0);
        }
        self.logits.resize(count * weights.config.vocab, 0.0);
        for (index, row) in self.rows[rows].iter().enumerate() {
            let (to, from) = (index * len..(index + 1) * len, row.token * len..(row.token + 1) * len);
            self.residual[to.clone()].copy_from_slice(&hidden.residual[from.clone()]);
            self.delta[to].copy_from_slice(&hidden.delta[from]);
        }
        let (norm, eps) = (&weights.final_norm, weights.config.norm_eps);
        add_rms_norm(&self.delta, &mut self.residual, norm, eps, &mut self.normed);
        let logits = weights.lm_head.matmul(&self.normed, count, &mut self.logits);
        logits.expect("the runner's buffers fit the checked weights");
    }
}

fn choose(logits: &[f32], row: &Row, request: Option<&SampleRequest>, scratch: &mut SampleScratch) -> Choice {
    Choice {
        known: row.known.map(|(top, next)| log_softmax_top(logits, next, usize::from(top))),
        token: request.map(|request| sample(logits, request, scratch)),
    }
}
