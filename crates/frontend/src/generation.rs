//! All sequences of one request, read together.

use crate::Frontend;
use crate::backend::TokenStream;
use crate::choice_text::{ChoiceText, Delta, Ending, LogprobEntry};
use crate::openai::{ApiError, Usage};
use crate::plan::{EchoedPrompt, Plan, PlannedPrompt};
use crate::record::Record;
use baton_types::{Finish, FinishReason, GenerateRequest, SamplingParams, SequenceEvent, TokenLogprobs};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The sequences of one request. Dropping it cancels those that still run.
pub(crate) struct Generation {
    /// Prompt by prompt, `n` of each.
    choices: Vec<Choice>,
    n: usize,
    prompt_tokens: usize,
    /// Kept for its memory.
    events: Vec<SequenceEvent>,
    record: Arc<Record>,
    timeout_secs: u64,
}

/// One of the texts that a request asked for.
pub(crate) struct Choice {
    text: ChoiceText,
    /// `None`: over.
    stream: Option<TokenStream>,
    pub(crate) ending: Option<Ending>,
    /// A stream has sent its opening, and its ending.
    pub(crate) opened: bool,
    pub(crate) closed: bool,
    /// Waits for its log-probabilities.
    echo: Option<Arc<EchoedPrompt>>,
    /// Only the prompt was asked for.
    ends_after_prompt: bool,
    cached_tokens: Option<usize>,
    last_token_at: Option<Instant>,
}

/// Events taken from a channel at once: more than ever wait there unless the client is slow.
const EVENTS_AT_ONCE: usize = 32;

impl Generation {
    /// Hands every sequence to the engines. If one is refused, those before it are cancelled.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn start(frontend: &Frontend, plan: &Plan, record: &Arc<Record>) -> Result<Self, ApiError> {
        let prompt_tokens = plan.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let mut choices = Vec::with_capacity(plan.prompts.len() * plan.n);
        for prompt in &plan.prompts {
            for number in 0..plan.n {
                choices.push(Choice::start(frontend, plan, prompt, number, record)?);
            }
        }
        record.admitted(prompt_tokens);
        let timeout_secs = frontend.config().request_timeout.as_secs();
        let events = Vec::with_capacity(EVENTS_AT_ONCE);
        Ok(Self { choices, n: plan.n, prompt_tokens, events, record: Arc::clone(record), timeout_secs })
    }

    /// Reads what has arrived. Ready if anything has, or all is over.
    ///
    /// # Errors
    /// What broke a sequence; the request cannot go on.
    pub(crate) fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        let (mut progress, mut now) = (self.is_over(), None);
        for choice in &mut self.choices {
            let Some(stream) = &mut choice.stream else { continue };
            let Poll::Ready(count) = stream.poll_recv_many(context, &mut self.events, EVENTS_AT_ONCE) else {
                continue;
            };
            progress = true;
            if count == 0 {
                return Poll::Ready(Err(ApiError::internal("The engine let go of the request.")));
            }
            let now = *now.get_or_insert_with(Instant::now);
            let tokens_before = choice.text.tokens();
            for event in self.events.drain(..) {
                if let Err(error) = choice.absorb(event, now, &self.record, self.timeout_secs) {
                    return Poll::Ready(Err(error));
                }
            }
            self.record.add_output_tokens(choice.text.tokens() - tokens_before);
        }
        if progress { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Every choice has ended well.
    pub(crate) fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| choice.ending.is_some())
    }

    /// The choices, in the order of their indices.
    pub(crate) fn choices_mut(&mut self) -> &mut [Choice] {
        &mut self.choices
    }

    /// Texts and endings of all choices; to be called when all is over.
    pub(crate) fn finished(&self) -> impl Iterator<Item = (&Delta, Ending)> {
        self.choices.iter().map(|choice| (choice.delta(), choice.ending.unwrap_or(Ending::Stop)))
    }

    /// What all choices have cost so far. A prompt counts once, however many choices continue it.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.choices.iter().map(|choice| choice.text.tokens()).sum(),
            cached_tokens: self.choices.iter().step_by(self.n).map(|choice| choice.cached_tokens).sum(),
        }
    }
}

impl Choice {
    fn start(
        frontend: &Frontend,
        plan: &Plan,
        prompt: &PlannedPrompt,
        number: usize,
        record: &Record,
    ) -> Result<Self, ApiError> {
        let mut text = ChoiceText::new(frontend.tokenizer(), Arc::clone(&plan.text));
        let mut echo = prompt.echo.clone();
        if plan.sampling.prompt_logprobs.is_none()
            && let Some(echo) = echo.take()
        {
            text.echo(&echo.text, Vec::new());
        }
        let ends_after_prompt = prompt.max_tokens == 0;
        let runs = !ends_after_prompt || echo.is_some();
        let stream = if runs { Some(generate(frontend, plan, prompt, number, record)?) } else { None };
        Ok(Self {
            text,
            ending: (!runs).then_some(Ending::Length),
            cached_tokens: (!runs).then_some(0),
            stream,
            opened: false,
            closed: false,
            echo,
            ends_after_prompt,
            last_token_at: None,
        })
    }

    /// What is to be sent.
    pub(crate) fn delta(&self) -> &Delta {
        self.text.delta()
    }

    /// Forgets what was sent.
    pub(crate) fn clear_delta(&mut self) {
        self.text.clear_delta();
    }

    /// Takes one event in. After the end, whatever was still under way is of no interest.
    fn absorb(
        &mut self,
        event: SequenceEvent,
        now: Instant,
        record: &Record,
        timeout_secs: u64,
    ) -> Result<(), ApiError> {
        if self.ending.is_some() {
            return Ok(());
        }
        match event {
            SequenceEvent::Admitted { cached_tokens } => self.cached_tokens = Some(cached_tokens),
            SequenceEvent::PromptLogprobs(logprobs) => {
                if let Some(echo) = self.echo.take() {
                    self.text.echo(&echo.text, prompt_entries(&echo, logprobs));
                }
                if self.ends_after_prompt {
                    self.end(Ending::Length);
                }
            }
            SequenceEvent::Token(token) => {
                record.token(now, &mut self.last_token_at);
                if self.text.push(token) {
                    self.end(Ending::Stop);
                }
            }
            SequenceEvent::Finished(finish) => self.absorb_finish(finish, timeout_secs)?,
        }
        Ok(())
    }

    fn absorb_finish(&mut self, finish: Finish, timeout_secs: u64) -> Result<(), ApiError> {
        self.cached_tokens = Some(finish.cached_tokens);
        let (end, ending) = match finish.reason {
            FinishReason::Stop(id) => (Some(id), Ending::Stop),
            FinishReason::Length => (None, Ending::Length),
            FinishReason::Cancelled => {
                return Err(ApiError::unavailable("The server cancelled the request."));
            }
            FinishReason::DeadlineExceeded => return Err(ApiError::deadline(timeout_secs)),
            FinishReason::Error(problem) => {
                return Err(ApiError::internal(format!("Generation failed: {problem}.")));
            }
        };
        let stopped = self.text.finish(end);
        self.end(if stopped { Ending::Stop } else { ending });
        Ok(())
    }

    /// Lets go of the sequence, which cancels it if it still runs.
    fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.stream = None;
    }
}

fn generate(
    frontend: &Frontend,
    plan: &Plan,
    prompt: &PlannedPrompt,
    number: usize,
    record: &Record,
) -> Result<TokenStream, ApiError> {
    let request = GenerateRequest {
        request_id: record.request_id(),
        prompt: Arc::clone(&prompt.tokens),
        sampling: SamplingParams {
            max_tokens: prompt.max_tokens.max(1),
            // The choices of one prompt differ, each of them reproducibly.
            seed: plan.seed.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ..plan.sampling.clone()
        },
        cache_salt: Arc::clone(&plan.cache_salt),
        deadline: record.started() + frontend.config().request_timeout,
    };
    frontend.backend().generate(request).map_err(|error| {
        frontend.count_refusal(&error);
        error.into()
    })
}

/// A prompt's tokens with what is known of them: nothing of the first.
fn prompt_entries(echo: &EchoedPrompt, logprobs: Vec<TokenLogprobs>) -> Vec<LogprobEntry> {
    let logprobs = std::iter::once(None).chain(logprobs.into_iter().map(Some));
    echo.tokens
        .iter()
        .zip(&echo.text_offsets)
        .zip(logprobs)
        .map(|((id, text_offset), logprobs)| LogprobEntry { id: *id, text_offset: *text_offset, logprobs })
        .collect()
}
