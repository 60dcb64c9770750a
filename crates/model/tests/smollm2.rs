//! SmolLM2-135M-Instruct (Q4_1 GGUF) against `transformers` in float32, and how much the quantised paths lose.

mod common;

use baton_model::{Weights, WeightsFormat};
use baton_types::{SamplingParams, TokenId};
use common::{Part, Seq, World, golden, load, tokens};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Log-probabilities of the five best first tokens agree to this in f32.
const TOLERANCE: f32 = 2e-3;

/// Most that 8-bit activations may change a token's log-probability on average: in the golden prompts (where it is -4.3
/// on average; measured 0.102 with Q4_1 weights, 0.095 with Q8_0) and in the reference's answers (-0.63; 0.032).
const MEAN_DIFFERENCE_PROMPT: f32 = 0.15;
const MEAN_DIFFERENCE_ANSWER: f32 = 0.05;

/// Most that they may change its mean, up or down: the perplexity stays within 2 %. Measured 0.006 for both.
const MEAN_SHIFT: f32 = 0.02;

static EXACT: LazyLock<Arc<Weights>> = LazyLock::new(|| load(&model_path(), WeightsFormat::F32));

#[expect(clippy::disallowed_methods, reason = "how a test is told of another model")]
fn model_path() -> PathBuf {
    let default =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("BATON_TEST_MODEL").map_or(default, PathBuf::from);
    assert!(
        path.is_file(),
        "{}: the test model is not there; run `cargo xtask test-deps`, or set BATON_TEST_MODEL to the file",
        path.display()
    );
    path
}

fn cases() -> Vec<Value> {
    golden("smollm2_greedy.json")["cases"].as_array().unwrap().clone()
}

#[test]
fn twelve_chats_match_the_reference() {
    let cases = cases();
    assert_eq!(cases.len(), 12);
    for (index, case) in cases.iter().enumerate() {
        let prompt = tokens(&case["prompt_ids"]);
        let params = SamplingParams { temperature: 0.0, logprobs: Some(10), ..Default::default() };
        let mut world = World::new(&EXACT, 100);
        let mut seq = Seq::new(1, &prompt, params);
        let results = world.prefill(&mut seq, 512);
        let logprobs = results.last().unwrap().token.clone().unwrap().logprobs.unwrap();
        for expected in case["first_top5"].as_array().unwrap() {
            let id = TokenId(expected["id"].as_u64().unwrap() as u32);
            let expected = expected["logprob"].as_f64().unwrap() as f32;
            let found = logprobs.top.iter().find(|(top, _)| *top == id).expect("among the ten best").1;
            assert!((found - expected).abs() < TOLERANCE, "case {index}, token {id}: {found} for {expected}");
        }
        let safe = case["safe_len"].as_u64().unwrap() as usize;
        world.decode(&mut seq, safe);
        assert_eq!(seq.output(), &tokens(&case["greedy_ids"])[..safe], "case {index}");
    }
}

/// Log-probabilities of the prompt's tokens, as prefill computes them, and of the reference's answer, as decode does.
fn logprobs(weights: &Arc<Weights>, case: &Value) -> (Vec<f32>, Vec<f32>) {
    let prompt = tokens(&case["prompt_ids"]);
    let mut world = World::new(weights, 100);
    let mut seq = Seq::new(1, &prompt, SamplingParams { prompt_logprobs: Some(0), ..Default::default() });
    let mut in_answer = Vec::new();
    let mut in_prompt = Vec::new();
    for (index, expected) in tokens(&case["greedy_ids"]).into_iter().enumerate() {
        // A huge bias makes the reference's token the choice; the log-probability reported is still the model's own.
        let bias = vec![(expected, 1e6)];
        seq.params =
            Arc::new(SamplingParams { logit_bias: bias, logprobs: Some(0), ..(*seq.params).clone() });
        let results = if index == 0 {
            world.prefill(&mut seq, 512)
        } else {
            world.step(&mut [(&mut seq, Part::Decode)])
        };
        in_prompt
            .extend(results.iter().flat_map(|result| &result.prompt_logprobs).map(|entry| entry.logprob));
        let token = results.last().unwrap().token.clone().unwrap();
        assert_eq!(token.id, expected);
        in_answer.push(token.logprobs.unwrap().logprob);
    }
    (in_prompt, in_answer)
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

#[test]
fn quantised_paths_stay_close_to_f32() {
    // The long prompts would take most of the time and tell the same.
    let cases: Vec<_> =
        cases().into_iter().filter(|case| case["prompt_ids"].as_array().unwrap().len() < 200).collect();
    let all = |weights: &Arc<Weights>| {
        let (mut in_prompt, mut in_answer) = (Vec::new(), Vec::new());
        for case in &cases {
            let (prompt, answer) = logprobs(weights, case);
            in_prompt.extend(prompt);
            in_answer.extend(answer);
        }
        (in_prompt, in_answer)
    };
    let exact = all(&EXACT);
    for format in [WeightsFormat::Auto, WeightsFormat::File] {
        let found = all(&load(&model_path(), format));
        for (part, exact, found, limit) in [
            ("prompts", &exact.0, &found.0, MEAN_DIFFERENCE_PROMPT),
            ("answers", &exact.1, &found.1, MEAN_DIFFERENCE_ANSWER),
        ] {
            let (difference, shift) = (mean_difference(exact, found), mean(found) - mean(exact));
            println!("{format}, {part}: mean {}, difference {difference}, shift {shift}", mean(exact));
            assert!(difference < limit, "{format}, {part}: {difference}");
            assert!(shift.abs() < MEAN_SHIFT, "{format}, {part}: {shift}");
        }
    }
}

#[test]
fn the_same_file_has_the_same_name_in_every_format_and_place() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("other-name.gguf");
    std::fs::copy(model_path(), &link).unwrap();
    let copy = load(&link, WeightsFormat::File);
    assert_eq!(copy.identity(), EXACT.identity());
    assert_eq!(World::new(&copy, 4).fingerprint(), World::new(&EXACT, 8).fingerprint());
}
