//! How fast a model loads, prefills and decodes on this machine.
//!
//! `cargo run --release -p baton-model --example speed -- MODEL [weights format] [threads]`
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use baton_model::{CpuRunner, CpuRunnerOptions, WeightsFormat, open};
use baton_types::{
    BatchSequence, BlockId, ModelRunner, Phase, SampleRequest, SamplingParams, SequenceId, Slot, StepBatch,
    TokenId,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const BLOCK_SIZE: usize = 16;
const PROMPT: usize = 512;
const DECODE_STEPS: usize = 128;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "target/models/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned());
    let format: WeightsFormat = args.next().as_deref().unwrap_or("auto").parse()?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.next().map_or(Ok(cores), |text| text.parse())?;

    let started = Instant::now();
    let files = open(Path::new(&path))?;
    let opened = started.elapsed();
    let weights = files.load_weights(format, &|_, _| ())?;
    let loaded = started.elapsed();
    let options = CpuRunnerOptions { block_size: BLOCK_SIZE, num_blocks: 1024, threads, low_priority: false };
    let mut runner = CpuRunner::new(weights.clone(), options)?;
    let ready = started.elapsed();
    println!(
        "{} ({}), weights {format}, {} MB, {threads} threads",
        files.name,
        files.stored_as,
        weights.bytes() / 1_000_000
    );
    println!(
        "ready in {ready:?}: open {opened:?}, weights {:?}, runner {:?}",
        loaded - opened,
        ready - loaded
    );

    let vocab = weights.config().vocab as u32;
    for round in 0..ROUNDS {
        let mut one = [Sequence::new(0, PROMPT, vocab)];
        let started = Instant::now();
        step(&mut runner, &mut one, Phase::Prefill)?;
        let prefill = PROMPT as f64 / started.elapsed().as_secs_f64();
        let decode = [1, 8].map(|streams| decode_speed(&mut runner, streams, vocab));
        let [one, eight] = decode;
        println!(
            "round {round}: prefill({PROMPT}) {prefill:.0} tok/s, decode {:.1} tok/s, 8 streams {:.1} tok/s",
            one?, eight?
        );
    }
    Ok(())
}

/// Tokens a second over all streams, each after a prompt of 16 tokens.
fn decode_speed(
    runner: &mut CpuRunner,
    streams: usize,
    vocab: u32,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut sequences: Vec<_> = (0..streams).map(|index| Sequence::new(index, 16, vocab)).collect();
    step(runner, &mut sequences, Phase::Prefill)?;
    let started = Instant::now();
    for _ in 0..DECODE_STEPS {
        step(runner, &mut sequences, Phase::Decode)?;
    }
    Ok((streams * DECODE_STEPS) as f64 / started.elapsed().as_secs_f64())
}

/// Tokens of one stream; its blocks are a fixed part of the pool.
struct Sequence {
    index: usize,
    tokens: Vec<TokenId>,
    context_len: usize,
}

impl Sequence {
    /// Blocks a stream may use.
    const BLOCKS: usize = 64;

    fn new(index: usize, prompt: usize, vocab: u32) -> Self {
        let tokens = (0..prompt as u32).map(|n| TokenId((n * 7919 + 100 + index as u32) % vocab)).collect();
        Self { index, tokens, context_len: 0 }
    }
}

fn step(
    runner: &mut CpuRunner,
    sequences: &mut [Sequence],
    phase: Phase,
) -> Result<(), Box<dyn std::error::Error>> {
    let params = Arc::new(SamplingParams { temperature: 0.0, ..Default::default() });
    let mut batch = StepBatch::default();
    for sequence in sequences.iter() {
        let (start, end) = (sequence.context_len, sequence.tokens.len());
        let first = batch.num_tokens();
        let first_block = batch.block_ids.len();
        let pool_start = sequence.index * Sequence::BLOCKS;
        batch.token_ids.extend(&sequence.tokens[start..]);
        batch.positions.extend(start as u32..end as u32);
        batch.slot_mapping.extend((start..end).map(|at| Slot((pool_start * BLOCK_SIZE + at) as u32)));
        batch
            .block_ids
            .extend((0..end.div_ceil(BLOCK_SIZE)).map(|block| BlockId((pool_start + block) as u32)));
        batch.sequences.push(BatchSequence {
            id: SequenceId(sequence.index as u64),
            phase,
            tokens: first..batch.num_tokens(),
            context_len: start,
            blocks: first_block..batch.block_ids.len(),
            input_from_row: None,
            sample: Some(SampleRequest {
                params: params.clone(),
                position: end as u32,
                history: None,
                banned: Vec::new(),
            }),
            prompt_logprobs: None,
        });
    }
    let sampled = runner.execute(&batch)?;
    for (sequence, result) in sequences.iter_mut().zip(sampled.sequences) {
        sequence.context_len = sequence.tokens.len();
        sequence.tokens.extend(result.token.map(|token| token.id));
    }
    Ok(())
}
