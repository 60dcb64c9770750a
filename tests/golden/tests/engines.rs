//! Whole engines against reference tokens: aggregated and disaggregated, alone and together, in small chunks and large,
//! with room and without, with shared prefixes. float32, where a reference exists to the last margin.

use baton_model::{Weights, WeightsFormat, open};
use golden::data::{self, Chat};
use golden::rig::{Output, Rig, RigConfig};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// Log-probabilities may differ by this much from the reference's, which sums in another order.
const LOGPROB_TOLERANCE: f32 = 2e-3;

fn demo_weights() -> Arc<Weights> {
    static WEIGHTS: OnceLock<Arc<Weights>> = OnceLock::new();
    let load = || open(&data::demo_model()).unwrap().load_weights(WeightsFormat::F32, &|_, _| {}).unwrap();
    WEIGHTS.get_or_init(load).clone()
}

/// The longest case is 1,386 tokens; one of that length fits the smallest pool used below.
const MAX_MODEL_LEN: usize = 1400;

fn config(disaggregated: bool, step_token_budget: usize, num_blocks: usize) -> RigConfig {
    RigConfig { disaggregated, step_token_budget, num_blocks, max_model_len: MAX_MODEL_LEN }
}

/// Prompts of all cases, the longest first: it is the one that has to make room for the others.
fn cases() -> Vec<Chat> {
    let mut cases = data::chats();
    cases.sort_by_key(|case| std::cmp::Reverse(case.prompt_ids.len()));
    assert_eq!(cases.len(), 12);
    cases
}

fn run(rig: &Rig, cases: &[Chat]) -> Vec<Output> {
    run_for(rig, cases, 1)
}

/// At least `output_len` tokens each, of which those are compared that have a reference.
fn run_for(rig: &Rig, cases: &[Chat], output_len: usize) -> Vec<Output> {
    let prompt = |case: &Chat| (data::token_ids(&case.prompt_ids), case.safe_len.max(output_len));
    let outputs = rig.run(&cases.iter().map(prompt).collect::<Vec<_>>());
    for (case, output) in cases.iter().zip(&outputs) {
        check(case, output);
    }
    outputs
}

fn check(case: &Chat, output: &Output) {
    let name = format!("the case with {} prompt tokens", case.prompt_ids.len());
    assert_eq!(output.ids()[..case.safe_len], case.greedy_ids[..case.safe_len], "{name}");
    let first = output.tokens[0].logprobs.as_ref().unwrap();
    for expected in &case.first_top5 {
        let found = first.top.iter().find(|(id, _)| id.0 == expected.id);
        let Some((_, logprob)) = found else {
            panic!("{name}: token {} is not among the top five", expected.id)
        };
        let difference = (logprob - expected.logprob).abs();
        assert!(difference < LOGPROB_TOLERANCE, "{name}: token {}: off by {difference}", expected.id);
    }
}

#[test]
fn aggregated_alone_in_chunks_of_512() {
    let rig = Rig::start(&demo_weights(), config(false, 512, 200));
    for case in cases() {
        run(&rig, &[case]);
    }
    rig.stop();
}

#[test]
fn aggregated_together_in_chunks_of_7() {
    let rig = Rig::start(&demo_weights(), config(false, 7, 400));
    run(&rig, &cases());
    rig.stop();
}

/// All twelve, where the longest fills the pool and the others wait for it; then the eleven shorter ones in a pool that
/// takes their prompts but not their answers.
fn run_in_small_pools(disaggregated: bool) -> u64 {
    let rig = Rig::start(&demo_weights(), config(disaggregated, 512, 92));
    run(&rig, &cases());
    rig.stop();
    let small = RigConfig { max_model_len: 400, ..config(disaggregated, 512, 40) };
    let rig = Rig::start(&demo_weights(), small);
    run_for(&rig, &cases()[1..], 64);
    let imported_bytes = rig.seen.imported_bytes.load(Ordering::Relaxed);
    assert!(rig.seen.recomputed.load(Ordering::Relaxed) > 0, "nothing was preempted");
    rig.stop();
    imported_bytes
}

#[test]
fn aggregated_together_in_pools_that_are_too_small() {
    assert_eq!(run_in_small_pools(false), 0);
}

#[test]
fn aggregated_with_shared_prefixes() {
    let rig = Rig::start(&demo_weights(), config(false, 512, 400));
    run(&rig, &cases());
    let again = run(&rig, &cases());
    for (case, output) in cases().iter().zip(again) {
        assert_eq!(output.cached_tokens, (case.prompt_ids.len() - 1) / 16 * 16, "all full blocks are reused");
    }
    rig.stop();
}

#[test]
fn disaggregated_alone_in_chunks_of_7() {
    let rig = Rig::start(&demo_weights(), config(true, 7, 200));
    for case in cases() {
        run(&rig, &[case]);
    }
    assert!(rig.seen.imported_bytes.load(Ordering::Relaxed) > 0, "nothing was handed over");
    rig.stop();
}

#[test]
fn disaggregated_together_in_chunks_of_512() {
    let rig = Rig::start(&demo_weights(), config(true, 512, 400));
    run(&rig, &cases());
    assert!(rig.seen.imported_bytes.load(Ordering::Relaxed) > 0, "nothing was handed over");
    run(&rig, &cases());
    rig.stop();
}

#[test]
fn disaggregated_together_in_pools_that_are_too_small() {
    assert!(run_in_small_pools(true) > 0, "nothing was handed over");
}

#[test]
fn tiny_models_of_every_architecture() {
    for name in ["llama-tied", "llama3-rope-scaling", "mistral", "qwen2-bias", "qwen3-qknorm"] {
        let (model, golden) = data::tiny(name);
        let weights = open(&model).unwrap().load_weights(WeightsFormat::F32, &|_, _| {}).unwrap();
        let safe_len = golden.safe_len();
        assert!(safe_len >= 4, "{name}: the reference compares nothing");
        let prompt = data::token_ids(&golden.prompt_ids);
        for (disaggregated, step_token_budget) in [(false, 512), (false, 7), (true, 512), (true, 7)] {
            let config = RigConfig {
                disaggregated,
                step_token_budget,
                num_blocks: 64,
                max_model_len: prompt.len() + 40,
            };
            let rig = Rig::start(&weights, config);
            let output = &rig.run(&[(prompt.clone(), golden.greedy_ids.len())])[0];
            assert_eq!(output.ids()[..safe_len], golden.greedy_ids[..safe_len], "{name}, {config:?}");
            rig.stop();
        }
    }
}
