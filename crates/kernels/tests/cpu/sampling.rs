use super::random;
use baton_kernels::cpu::{SampleScratch, log_softmax_top, sample};
use baton_types::{SampleRequest, SamplingParams, TokenHistory, TokenId};
use std::collections::BTreeMap;
use std::sync::Arc;

fn request(params: SamplingParams, position: u32) -> SampleRequest {
    SampleRequest { params: Arc::new(params), position, history: None, banned: Vec::new() }
}

fn choose(logits: &[f32], params: SamplingParams) -> u32 {
    sample(logits, &request(params, 0), &mut SampleScratch::default()).id.0
}

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

/// Shares of 20000 draws at positions 0.. .
fn shares(logits: &[f32], params: SamplingParams) -> BTreeMap<u32, f64> {
    let mut scratch = SampleScratch::default();
    let mut counts = BTreeMap::new();
    for position in 0..20_000 {
        let token = sample(logits, &request(params.clone(), position), &mut scratch);
        *counts.entry(token.id.0).or_insert(0.0) += 1.0 / 20_000.0;
    }
    counts
}

#[track_caller]
fn assert_shares(logits: &[f32], params: SamplingParams, expected: &[(u32, f64)]) {
    let shares = shares(logits, params);
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), expected.iter().map(|e| e.0).collect::<Vec<_>>());
    for (token, share) in expected {
        assert!((shares[token] - share).abs() < 0.015, "token {token}: {} instead of {share}", shares[token]);
    }
}

/// Logits of probabilities 0.1, 0.4, 0.2, 0.3.
fn four() -> Vec<f32> {
    [0.1_f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec()
}

#[test]
fn greedy_takes_the_lowest_of_equal_tokens() {
    assert_eq!(choose(&[1.0, 3.0, 2.0, 3.0], greedy()), 1);
    assert_eq!(choose(&[f32::NEG_INFINITY, -5.0], greedy()), 1);
}

#[test]
fn draws_follow_the_distribution() {
    assert_shares(&four(), SamplingParams::default(), &[(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)]);
    let hot = SamplingParams { temperature: 0.5, ..SamplingParams::default() };
    assert_shares(&four(), hot, &[(0, 1.0 / 30.0), (1, 16.0 / 30.0), (2, 4.0 / 30.0), (3, 9.0 / 30.0)]);
}

#[test]
fn filters_keep_the_most_likely() {
    let params = SamplingParams::default;
    let two = [(1, 4.0 / 7.0), (3, 3.0 / 7.0)];
    assert_shares(&four(), SamplingParams { top_k: Some(2), ..params() }, &two);
    assert_shares(&four(), SamplingParams { top_p: 0.6, ..params() }, &two);
    assert_shares(&four(), SamplingParams { min_p: 0.6, ..params() }, &two);
    // top_p is a share of what top_k left: 0.4 of 0.7 is enough for 0.5.
    assert_shares(&four(), SamplingParams { top_k: Some(2), top_p: 0.5, ..params() }, &[(1, 1.0)]);
    assert_shares(&[0.0; 3], SamplingParams { top_k: Some(1), ..params() }, &[(0, 1.0)]);
    let all = SamplingParams { top_k: Some(9), top_p: 1.0, ..params() };
    assert_shares(&four(), all, &[(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)]);
}

#[test]
fn top_p_over_many_tokens_is_what_sorting_gives() {
    let logits = random(7, 5000);
    for top_p in [0.01, 0.3, 0.9] {
        let mut order: Vec<usize> = (0..5000).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut sum = 0.0;
        let kept = order.iter().take_while(|i| {
            let inside = sum < f64::from(top_p) * total;
            sum += f64::from(logits[**i]).exp();
            inside
        });
        let kept: std::collections::BTreeSet<u32> = kept.map(|i| *i as u32).collect();
        let drawn = shares(&logits, SamplingParams { top_p, ..SamplingParams::default() });
        assert!(
            drawn.keys().all(|token| kept.contains(token)),
            "a token outside the {} kept at {top_p}",
            kept.len()
        );
        assert!(drawn.len() * 10 > kept.len() * 9, "{} of {} kept tokens drawn", drawn.len(), kept.len());
    }
}

#[test]
fn penalties_and_biases_apply_in_order() {
    let logits = [1.0, 1.5, -1.0, 0.9];
    let tokens = |ids: &[u32]| ids.iter().map(|id| TokenId(*id)).collect::<Vec<_>>();
    let with = |params: SamplingParams, history: &[u32], prompt_len| {
        let mut request = request(params, 0);
        request.history = Some(TokenHistory { tokens: tokens(history), prompt_len });
        sample(&logits, &request, &mut SampleScratch::default()).id.0
    };
    // Repetition counts prompt and output: 1.5 / 1.6 < 1.0.
    assert_eq!(with(SamplingParams { repetition_penalty: 1.6, ..greedy() }, &[1], 1), 0);
    // Presence and frequency count output alone.
    assert_eq!(with(SamplingParams { presence_penalty: 0.6, ..greedy() }, &[1, 1], 2), 1);
    assert_eq!(with(SamplingParams { presence_penalty: 0.6, ..greedy() }, &[1, 1], 1), 0);
    assert_eq!(with(SamplingParams { frequency_penalty: 0.3, ..greedy() }, &[1], 0), 1);
    assert_eq!(with(SamplingParams { frequency_penalty: 0.35, ..greedy() }, &[1, 1, 0], 0), 3);
    // The bias comes before the repetition penalty: (-1 + 3) / 2 < 1.5.
    let bias = vec![(TokenId(2), 3.0)];
    assert_eq!(with(SamplingParams { logit_bias: bias.clone(), ..greedy() }, &[2], 1), 2);
    assert_eq!(with(SamplingParams { logit_bias: bias, repetition_penalty: 2.0, ..greedy() }, &[2], 1), 1);
}

#[test]
fn banned_tokens_are_never_chosen() {
    let mut request = request(SamplingParams::default(), 0);
    request.banned = vec![TokenId(1), TokenId(3)];
    let mut scratch = SampleScratch::default();
    for position in 0..500 {
        request.position = position;
        assert!([0, 2].contains(&sample(&four(), &request, &mut scratch).id.0));
    }
}

#[test]
fn a_scratch_carries_nothing_over() {
    let mut used = SampleScratch::default();
    let mut penalised = request(SamplingParams { frequency_penalty: 2.0, ..greedy() }, 0);
    penalised.history = Some(TokenHistory { tokens: vec![TokenId(1); 9], prompt_len: 3 });
    for _ in 0..2 {
        assert_eq!(sample(&[1.0, 1.5], &penalised, &mut used).id.0, 0);
        assert_eq!(sample(&[1.0, 1.5], &request(greedy(), 0), &mut used).id.0, 1);
    }
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let params = SamplingParams { logprobs: Some(2), logit_bias: vec![(TokenId(0), 50.0)], ..greedy() };
    let token = sample(&four(), &request(params, 0), &mut SampleScratch::default());
    let logprobs = token.logprobs.expect("asked for");
    assert_eq!(token.id.0, 0);
    assert!((logprobs.logprob - 0.1_f32.ln()).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|t| t.0.0).collect::<Vec<_>>(), [1, 3]);
    assert!((logprobs.top[1].1 - 0.3_f32.ln()).abs() < 1e-6);
    // Equal logits: lower ids first.
    let top = log_softmax_top(&[0.0; 4], TokenId(3), 3).top;
    assert_eq!(top.iter().map(|t| t.0.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(log_softmax_top(&[0.0; 4], TokenId(3), 0).top.is_empty());
}
