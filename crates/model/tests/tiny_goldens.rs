//! Every architecture against `transformers` in float32: random-weight models of three layers.

mod common;

use baton_model::{Weights, WeightsFormat};
use baton_types::{SampledSequence, TokenId};
use common::{Part, Seq, World, floats, golden, golden_path, greedy, greedy_with_logprobs, load, tokens};
use serde_json::Value;
use std::sync::Arc;

const MODELS: [&str; 5] = ["llama-tied", "llama3-rope-scaling", "mistral", "qwen2-bias", "qwen3-qknorm"];

/// Log-probabilities agree to this: the reference sums in another order.
const TOLERANCE: f32 = 1e-3;

/// Greedy choices are compared up to the first step whose two best logits are closer than this.
const MARGIN: f32 = 0.005;

struct Case {
    name: &'static str,
    weights: Arc<Weights>,
    golden: Value,
    prompt: Vec<TokenId>,
}

fn cases() -> impl Iterator<Item = Case> {
    cases_with(WeightsFormat::F32)
}

fn cases_with(format: WeightsFormat) -> impl Iterator<Item = Case> {
    MODELS.into_iter().map(move |name| {
        let golden = golden(&format!("{name}/golden.json"));
        let prompt = tokens(&golden["prompt_ids"]);
        Case { name, weights: load(&golden_path(name), format), golden, prompt }
    })
}

impl Case {
    fn check_prompt(&self, how: &str, results: &[SampledSequence]) {
        let name = self.name;
        let found: Vec<_> = results.iter().flat_map(|result| &result.prompt_logprobs).collect();
        let expected = floats(&self.golden["prompt_logprobs"]);
        assert_eq!(found.len(), expected.len(), "{name}, {how}: one for each prompt token but the first");
        let argmax = tokens(&self.golden["argmax"]);
        for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found.logprob - expected).abs();
            assert!(difference < TOLERANCE, "{name}, {how}, {position}: {} for {expected}", found.logprob);
            assert_eq!(found.top[0].0, argmax[position], "{name}, {how}, {position}: most likely token");
        }
    }

    fn check_last(&self, how: &str, results: &[SampledSequence]) {
        let token = results.last().unwrap().token.as_ref().expect("the last chunk samples");
        let top = &token.logprobs.as_ref().expect("log-probabilities were asked for").top;
        assert_eq!(top.len(), 255, "{}", self.name);
        let expected = floats(&self.golden["last_logprobs"]);
        for (id, found) in top {
            let expected = expected[id.0 as usize];
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{}, {how}, {id}: {found} for {expected}",
                self.name
            );
        }
    }

    fn check_greedy(&self, how: &str, output: &[TokenId]) {
        let margins = floats(&self.golden["margins"]);
        let safe = margins.iter().position(|margin| *margin < MARGIN).unwrap_or(margins.len());
        assert!(safe > 0, "{}: nothing to compare", self.name);
        let expected = tokens(&self.golden["greedy_ids"]);
        assert_eq!(output[..safe], expected[..safe], "{}, {how}", self.name);
    }
}

#[test]
fn a_prompt_computed_whole_matches_the_reference() {
    for case in cases() {
        let mut world = World::new(&case.weights, 16);
        let mut seq = Seq::new(1, &case.prompt, greedy_with_logprobs());
        let results = world.prefill(&mut seq, usize::MAX);
        case.check_prompt("whole", &results);
        case.check_last("whole", &results);
        world.decode(&mut seq, 32);
        case.check_greedy("whole", seq.output());
    }
}

#[test]
fn chunks_of_seven_give_the_same_bits_as_the_whole_prompt() {
    for case in cases() {
        let mut world = World::new(&case.weights, 32);
        let mut whole = Seq::new(1, &case.prompt, greedy_with_logprobs());
        let whole_results = world.prefill(&mut whole, usize::MAX);
        let mut chunked = Seq::new(2, &case.prompt, greedy_with_logprobs());
        let results = world.prefill(&mut chunked, 7);
        assert_eq!(results.len(), 22, "150 tokens in chunks of 7");
        case.check_prompt("chunked", &results);
        case.check_last("chunked", &results);
        let flat = |results: &[SampledSequence]| -> Vec<_> {
            results.iter().flat_map(|result| result.prompt_logprobs.clone()).collect()
        };
        assert_eq!(flat(&whole_results), flat(&results), "{}", case.name);
        world.decode(&mut chunked, 32);
        case.check_greedy("chunked", chunked.output());
    }
}

/// A prompt's results and output, alone and then beside another sequence, on another number of threads.
fn alone_and_batched(case: &Case) -> [(Vec<SampledSequence>, Vec<TokenId>); 2] {
    let mut world = World::new(&case.weights, 16);
    let mut alone = Seq::new(1, &case.prompt, greedy_with_logprobs());
    let alone_results = world.prefill(&mut alone, 50);
    world.decode(&mut alone, 32);

    // The other one decodes while this one's prompt is computed, then both decode.
    let mut world = World::with_threads(&case.weights, 32, 1);
    let mut other = Seq::new(2, &case.prompt[40..70], greedy());
    world.prefill(&mut other, usize::MAX);
    let mut seq = Seq::new(1, &case.prompt, greedy_with_logprobs());
    let mut results = Vec::new();
    while seq.context_len < seq.prompt_len {
        results.push(world.step(&mut [(&mut other, Part::Decode), (&mut seq, Part::Chunk(50))]).remove(1));
    }
    while seq.output().len() < 32 {
        world.step(&mut [(&mut other, Part::Decode), (&mut seq, Part::Decode)]);
    }
    [(alone_results, alone.output().to_vec()), (results, seq.output().to_vec())]
}

#[test]
fn a_batch_does_not_change_a_sequence() {
    for case in cases() {
        let [alone, batched] = alone_and_batched(&case);
        case.check_prompt("batched", &batched.0);
        case.check_greedy("batched", &batched.1);
        assert_eq!(alone, batched, "{}: the same bits", case.name);
    }
    for case in cases_with(WeightsFormat::Auto) {
        let [alone, batched] = alone_and_batched(&case);
        assert_eq!(alone, batched, "{}: the same bits, quantised", case.name);
    }
}

#[test]
fn blocks_handed_to_another_runner_go_on_there() {
    for case in cases() {
        let mut prefill = World::new(&case.weights, 16);
        let mut decode = World::new(&case.weights, 24);
        assert_eq!(prefill.fingerprint(), decode.fingerprint(), "one fingerprint, whatever the pool's size");
        let mut filler = Seq::new(9, &case.prompt[..40], greedy());
        decode.prefill(&mut filler, usize::MAX);

        let mut seq = Seq::new(1, &case.prompt, greedy_with_logprobs());
        let results = prefill.prefill(&mut seq, 64);
        case.check_prompt("handed over", &results);
        prefill.decode(&mut seq, 5);
        let mut moved = prefill.hand_over(&seq, &mut decode);
        decode.decode(&mut moved, 32);
        case.check_greedy("handed over", moved.output());
    }
}

#[test]
fn bf16_weights_of_a_bf16_file_lose_nothing() {
    for name in MODELS {
        let golden = golden(&format!("{name}/golden.json"));
        let prompt = tokens(&golden["prompt_ids"]);
        let outputs = [WeightsFormat::F32, WeightsFormat::Bf16, WeightsFormat::File].map(|format| {
            let mut world = World::new(&load(&golden_path(name), format), 16);
            let mut seq = Seq::new(1, &prompt, greedy());
            world.prefill(&mut seq, usize::MAX);
            world.decode(&mut seq, 8);
            seq.output().to_vec()
        });
        let margins = floats(&golden["margins"]);
        let safe = margins.iter().take(8).position(|margin| *margin < MARGIN).unwrap_or(8);
        assert_eq!(outputs[0][..safe], outputs[1][..safe], "{name}: bf16");
        assert_eq!(outputs[1], outputs[2], "{name}: the file is bf16");
    }
}
