//! Choosing a token from logits: the CPU reference. What the parameters mean and in which order they apply stands at
//! [`SamplingParams`]; the random number is that of (seed, position) alone, so neither batch nor worker changes a token.
//!
//! Weights are f32, sums of them f64, in the order of ids; ties go to the lower id everywhere. A token less likely than
//! e^-87 of the most likely one is never drawn.

use crate::cpu::Tier;
use crate::cpu::activations::with_scratch;
use crate::cpu::simd::Simd;
use crate::cpu::tier::Kernel;
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
    let (max, log_sum) = with_scratch(logits.len(), |weights| {
        let max = weigh(logits, 1.0, weights);
        (max, sum(weights).ln())
    });
    let logprob = |logit: f32| (f64::from(logit - max) - log_sum) as f32;
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
    let max = Tier::current().run(MaxOf(logits));
    TokenId(logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32)
}

/// Inverse transform sampling over the kept tokens, in the order of their ids.
fn draw(logits: &[f32], params: &SamplingParams, uniform: f64, kept: &mut Vec<Candidate>) -> TokenId {
    with_scratch(logits.len(), |weights| {
        weigh(logits, params.temperature, weights);
        if params.top_k.is_none() && params.top_p >= 1.0 {
            drop_unlikely(weights, params.min_p);
            return pick(weights, uniform);
        }
        keep_likely(logits, weights, params, kept);
        kept.sort_unstable_by_key(|c| c.id);
        for (index, candidate) in kept.iter().enumerate() {
            // Ids grow with the index, so no weight is overwritten before it is read.
            weights[index] = weights[candidate.id as usize];
        }
        let weights = &mut weights[..kept.len()];
        drop_unlikely(weights, params.min_p);
        pick(weights, uniform).map(|index| kept[index].id as usize)
    })
    .map_or_else(|| argmax(logits), |id| TokenId(id as u32))
}

/// `e^((logit - largest) / temperature)` of each logit: 1 for the most likely, 0 below e^-87.
fn weigh(logits: &[f32], temperature: f32, weights: &mut [f32]) -> f32 {
    let max = Tier::current().run(MaxOf(logits));
    Tier::current().run(Weights { logits, max, temperature, out: weights });
    max
}

fn drop_unlikely(weights: &mut [f32], min_p: f32) {
    if min_p > 0.0 {
        weights.iter_mut().for_each(|weight| *weight = if *weight >= min_p { *weight } else { 0.0 });
    }
}

/// Elements that [`sum`] and [`pick`] add up before they add to what came before.
const SUM_RUN: usize = 256;

/// The sum, run by run of 256 elements, in f64.
fn sum(weights: &[f32]) -> f64 {
    weights.chunks(SUM_RUN).map(sum_run).sum()
}

fn sum_run(run: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    for chunk in run.chunks(8) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*weight);
        }
    }
    lanes.iter().sum()
}

/// The first index at which the running sum exceeds `uniform` of the whole; `None` where all weights are zero.
fn pick(weights: &[f32], uniform: f64) -> Option<usize> {
    let mut left = uniform * sum(weights);
    let mut last_run = None;
    for (index, run) in weights.chunks(SUM_RUN).enumerate() {
        let run_sum = sum_run(run);
        if run_sum == 0.0 {
            continue;
        }
        last_run = Some(index);
        if left < run_sum {
            break;
        }
        left -= run_sum;
    }
    let first = last_run? * SUM_RUN;
    let mut last = None;
    for (index, weight) in
        weights[first..].iter().take(SUM_RUN).enumerate().filter(|(_, weight)| **weight > 0.0)
    {
        last = Some(first + index);
        left -= f64::from(*weight);
        if left < 0.0 {
            break;
        }
    }
    // Where rounding left a crumb after the last weight, that one is it.
    last
}

/// Collects what `top_k` and then `top_p` keep. Only tokens down to a likelihood that surely is enough are looked at
/// closely; the vocabulary is never sorted.
fn keep_likely(logits: &[f32], weights: &[f32], params: &SamplingParams, kept: &mut Vec<Candidate>) {
    let k = params.top_k.map_or(usize::MAX, |k| k.max(1) as usize);
    let share = f64::from(params.top_p);
    let target = share * sum(weights);
    // With top_k, top_p is a share of what that keeps, so only the count tells when there are enough.
    let enough = |above: f32| match params.top_k {
        Some(_) => weights.iter().map(|w| usize::from(*w >= above)).sum::<usize>() >= k,
        None => weights.iter().map(|w| if *w >= above { f64::from(*w) } else { 0.0 }).sum::<f64>() >= target,
    };
    let above = [0.1, 1e-2, 1e-3, 1e-4, 1e-6].into_iter().find(|above| enough(*above)).unwrap_or(0.0);
    kept.clear();
    let likely =
        (0..).zip(logits).zip(weights).filter(|((_, logit), w)| **w >= above && **logit > f32::NEG_INFINITY);
    kept.extend(likely.map(|((id, logit), _)| Candidate { id, logit: *logit }));
    let weight = |c: &Candidate| f64::from(weights[c.id as usize]);
    if k < kept.len() {
        kept.select_nth_unstable_by(k - 1, Candidate::rank);
        kept.truncate(k);
    }
    if share < 1.0 {
        let target =
            if params.top_k.is_some() { share * kept.iter().map(weight).sum::<f64>() } else { target };
        keep_until(kept, target, weight);
    }
}

/// Keeps the fewest most likely tokens whose weights reach `target`. Sorts only as many as it needs.
fn keep_until(kept: &mut Vec<Candidate>, target: f64, weight: impl Fn(&Candidate) -> f64) {
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

/// The largest element that is a number.
struct MaxOf<'a>(&'a [f32]);

impl Kernel for MaxOf<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let chunks = self.0.chunks_exact(16);
        let tail = chunks.remainder();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = larger(*x, *lane);
            }
        }
        lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |max, x| larger(*x, max))
    }
}

struct Weights<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
    out: &'a mut [f32],
}

impl Kernel for Weights<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (logits, out) in self.logits.chunks(16).zip(self.out.chunks_mut(16)) {
            let mut x = [f32::NEG_INFINITY; 16];
            for (x, logit) in x.iter_mut().zip(logits) {
                *x = (logit - self.max) / self.temperature;
            }
            let mut weights = [0.0; 16];
            for i in (0..16).step_by(S::LANES) {
                // SAFETY: both arrays have 16 elements, and `LANES` divides 16.
                unsafe { S::store(weights.as_mut_ptr().add(i), S::exp(S::load(x.as_ptr().add(i)))) };
            }
            for ((out, weight), x) in out.iter_mut().zip(weights).zip(x) {
                *out = if x >= -87.0 { weight } else { 0.0 };
            }
        }
    }
}
