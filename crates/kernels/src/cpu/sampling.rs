//! Choosing a token from logits: the CPU reference. What the parameters mean and in which order they apply stands at
//! [`SamplingParams`]; the random number is that of (seed, position) alone, so neither batch nor worker changes a token.
//!
//! Sums run in f64 over the kept tokens in the order of their ids; ties go to the lower id everywhere.

use baton_types::{OutputToken, SampleRequest, SamplingParams, TokenHistory, TokenId, TokenLogprobs, random};
use std::cmp::Ordering;

/// Buffers that keep their memory from token to token.
#[derive(Debug, Default)]
pub struct SampleScratch {
    logits: Vec<f32>,
    /// How often each token occurs in the output; [`IN_PROMPT`] is set if it occurs in the prompt. All zero between calls.
    counts: Vec<u32>,
    kept: Vec<Candidate>,
}

const IN_PROMPT: u32 = 1 << 31;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Candidate {
    /// Most likely first, then lower id.
    fn rank(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// Chooses a token from the model's raw `logits`, one a token of the vocabulary.
///
/// # Panics
/// If there are no logits, or a token of the request lies beyond them.
pub fn sample(logits: &[f32], request: &SampleRequest, scratch: &mut SampleScratch) -> OutputToken {
    assert!(!logits.is_empty(), "no logits to sample from");
    let params = &*request.params;
    let SampleScratch { logits: buffer, counts, kept } = scratch;
    let adjusted = adjust(logits, request, buffer, counts);
    let id = if params.temperature == 0.0 {
        argmax(adjusted)
    } else {
        let uniform = random::uniform(params.seed, request.position);
        draw(adjusted, params, f64::from(uniform), kept)
    };
    let logprobs = params.logprobs.map(|n| log_softmax_top(logits, id, usize::from(n)));
    OutputToken { id, logprobs }
}

/// Log-probabilities under softmax of the raw `logits`: of `token`, and of the `n` most likely tokens.
///
/// # Panics
/// If `token` lies beyond the logits.
pub fn log_softmax_top(logits: &[f32], token: TokenId, n: usize) -> TokenLogprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    let logprob = |logit: f32| (f64::from(logit - max) - sum.ln()) as f32;
    let mut top: Vec<Candidate> = Vec::with_capacity(n + 1);
    for (id, logit) in (0..).zip(logits.iter().copied()) {
        if top.len() == n && top.last().is_none_or(|last| logit <= last.logit) {
            continue;
        }
        let candidate = Candidate { id, logit };
        let at = top.partition_point(|other| other.rank(&candidate).is_lt());
        top.insert(at, candidate);
        top.truncate(n);
    }
    let top = top.iter().map(|c| (TokenId(c.id), logprob(c.logit))).collect();
    TokenLogprobs { logprob: logprob(logits[token.0 as usize]), top }
}

/// Logits after biases, penalties and bans; the raw ones where there are none.
fn adjust<'a>(
    logits: &'a [f32],
    request: &SampleRequest,
    adjusted: &'a mut Vec<f32>,
    counts: &mut Vec<u32>,
) -> &'a [f32] {
    let params = &*request.params;
    let history = request.history.as_ref().filter(|_| params.needs_history());
    if params.logit_bias.is_empty() && history.is_none() && request.banned.is_empty() {
        return logits;
    }
    adjusted.clear();
    adjusted.extend_from_slice(logits);
    for (token, bias) in &params.logit_bias {
        adjusted[token.0 as usize] += bias;
    }
    if let Some(history) = history {
        penalise(adjusted, params, history, counts);
    }
    for token in &request.banned {
        adjusted[token.0 as usize] = f32::NEG_INFINITY;
    }
    adjusted
}

/// Applies the three penalties once to each token of the history.
fn penalise(logits: &mut [f32], params: &SamplingParams, history: &TokenHistory, counts: &mut Vec<u32>) {
    counts.resize(logits.len(), 0);
    let (prompt, output) = history.tokens.split_at(history.prompt_len);
    for token in prompt {
        counts[token.0 as usize] |= IN_PROMPT;
    }
    for token in output {
        counts[token.0 as usize] += 1;
    }
    for token in &history.tokens {
        // Taking the count leaves zeros behind, and skips a token's further occurrences.
        let count = std::mem::take(&mut counts[token.0 as usize]);
        if count == 0 {
            continue;
        }
        let logit = &mut logits[token.0 as usize];
        *logit = if *logit > 0.0 {
            *logit / params.repetition_penalty
        } else {
            *logit * params.repetition_penalty
        };
        let outputs = count & !IN_PROMPT;
        if outputs > 0 {
            *logit -= params.presence_penalty + params.frequency_penalty * outputs as f32;
        }
    }
}

/// The most likely token, the lowest id of equals.
fn argmax(logits: &[f32]) -> TokenId {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    for (id, logit) in (0..).zip(logits.iter().copied()) {
        if logit > best.logit {
            best = Candidate { id, logit };
        }
    }
    TokenId(best.id)
}

/// Inverse transform sampling over the kept tokens, in the order of their ids.
fn draw(logits: &[f32], params: &SamplingParams, uniform: f64, kept: &mut Vec<Candidate>) -> TokenId {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |c: &Candidate| (f64::from(c.logit - max) / f64::from(params.temperature)).exp();
    kept.clear();
    kept.extend((0..).zip(logits).map(|(id, logit)| Candidate { id, logit: *logit }));
    kept.retain(|c| c.logit > f32::NEG_INFINITY);
    if let Some(k) = params.top_k.map(|k| k as usize).filter(|k| (1..kept.len()).contains(k)) {
        kept.select_nth_unstable_by(k - 1, Candidate::rank);
        kept.truncate(k);
    }
    if params.top_p < 1.0 {
        keep_top_p(kept, f64::from(params.top_p), weight);
    }
    if params.min_p > 0.0 {
        // The most likely token has weight 1.
        kept.retain(|c| weight(c) >= f64::from(params.min_p));
    }
    kept.sort_unstable_by_key(|c| c.id);
    let total: f64 = kept.iter().map(weight).sum();
    let mut left = uniform * total;
    let chosen = kept.iter().find(|c| {
        left -= weight(c);
        left < 0.0
    });
    // Rounding may leave a crumb after the last token; with nothing kept (all banned) the choice means nothing.
    chosen.or(kept.last()).map_or(argmax(logits), |c| TokenId(c.id))
}

/// Keeps the fewest most likely tokens whose weights sum to `share` of all. Sorts only as many as it needs.
fn keep_top_p(kept: &mut Vec<Candidate>, share: f64, weight: impl Fn(&Candidate) -> f64) {
    let target = share * kept.iter().map(&weight).sum::<f64>();
    let (mut sorted, mut sum) = (0, 0.0);
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let next = (4 * sorted).max(128).min(rest.len());
        if next < rest.len() {
            rest.select_nth_unstable_by(next, Candidate::rank);
        }
        rest[..next].sort_unstable_by(Candidate::rank);
        for (index, candidate) in rest[..next].iter().enumerate() {
            sum += weight(candidate);
            if sum >= target {
                kept.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += next;
    }
}
