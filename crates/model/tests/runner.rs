//! What a runner promises besides numbers: errors instead of nonsense, tokens taken from the step before, low priority.

mod common;

use baton_model::{CpuRunner, CpuRunnerOptions, WeightsFormat, kv_bytes_per_token};
use baton_types::{BlockId, ModelRunner, RunnerError, StepBatch, TokenId};
use common::{BLOCK_SIZE, Part, Seq, World, golden, golden_path, greedy, load, tokens};

fn small_world(num_blocks: usize) -> World {
    World::new(&load(&golden_path("llama-tied"), WeightsFormat::F32), num_blocks)
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let mut world = small_world(4);
    let mut batch = world.batch(&mut [(&mut Seq::new(1, &[TokenId(5)], greedy()), Part::Chunk(1))]);
    batch.token_ids[0] = TokenId(320);
    let message = world.runner.execute(&batch).unwrap_err().to_string();
    assert!(message.contains("token 320 is outside the model's vocabulary of 320"), "{message}");
    batch.token_ids[0] = TokenId(319);
    assert!(world.runner.execute(&batch).unwrap().sequences[0].token.is_some(), "the runner goes on");
}

#[test]
fn an_empty_step_chooses_nothing() {
    let sampled = small_world(1).runner.execute(&StepBatch::default()).unwrap();
    assert_eq!(sampled.sequences.len(), 0);
}

#[test]
fn blocks_are_copied_whole() {
    let mut world = small_world(6);
    let layout = world.runner.kv_layout().clone();
    let config = world.runner.weights().config().clone();
    assert_eq!(layout.bytes_per_block, kv_bytes_per_token(&config) * BLOCK_SIZE);
    assert_eq!(
        layout.bytes_per_block,
        2 * 3 * 2 * 16 * 4 * BLOCK_SIZE,
        "k and v, layers, heads, head size, f32"
    );

    let bytes: Vec<u8> = (0..2 * layout.bytes_per_block).map(|n| (n % 251) as u8).collect();
    world.runner.write_blocks(&[BlockId(5), BlockId(2)], &bytes).unwrap();
    let swapped = world.runner.read_blocks(&[BlockId(2), BlockId(5)]).unwrap();
    let (first, second) = bytes.split_at(layout.bytes_per_block);
    assert_eq!(swapped, [second, first].concat());
    assert!(matches!(
        world.runner.write_blocks(&[BlockId(0)], &bytes),
        Err(RunnerError::BlockBytes { blocks: 1, .. })
    ));
    assert!(world.runner.read_blocks(&[BlockId(6)]).is_err(), "six blocks: 0 to 5");
}

#[test]
fn a_layouts_name_covers_block_size_and_model() {
    let fingerprint = |name: &str, block_size| {
        let options = CpuRunnerOptions { block_size, num_blocks: 2, threads: 1, low_priority: false };
        let runner = CpuRunner::new(load(&golden_path(name), WeightsFormat::File), options).unwrap();
        runner.kv_layout().fingerprint
    };
    let reference = fingerprint("llama-tied", 16);
    assert_eq!(reference, fingerprint("llama-tied", 16));
    assert_ne!(reference, fingerprint("llama-tied", 32));
    // The same sizes, other weights.
    assert_ne!(reference, fingerprint("llama3-rope-scaling", 16));
}

#[test]
fn input_from_row_takes_the_token_of_the_step_before() {
    let prompt = tokens(&golden("llama-tied/golden.json")["prompt_ids"]);
    let mut world = small_world(16);
    let (mut a, mut b) = (Seq::new(1, &prompt[..20], greedy()), Seq::new(2, &prompt[30..60], greedy()));
    world.step(&mut [(&mut a, Part::Chunk(99)), (&mut b, Part::Chunk(99))]);
    let mut batch = world.batch(&mut [(&mut b, Part::Decode), (&mut a, Part::Decode)]);
    let known = world.runner.execute(&batch).unwrap();

    // The same once more, the tokens unknown to the host: first those that the prompts' step chose.
    let (mut a, mut b) = (Seq::new(1, &prompt[..20], greedy()), Seq::new(2, &prompt[30..60], greedy()));
    let mut world = small_world(16);
    world.step(&mut [(&mut a, Part::Chunk(99)), (&mut b, Part::Chunk(99))]);
    batch.token_ids.fill(TokenId(u32::MAX));
    (batch.sequences[0].input_from_row, batch.sequences[1].input_from_row) = (Some(1), Some(0));
    assert_eq!(world.runner.execute(&batch).unwrap(), known);
    batch.sequences[0].input_from_row = Some(2);
    let message = world.runner.execute(&batch).unwrap_err().to_string();
    assert!(message.contains("chose no token in row 2"), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn low_priority_threads_are_nice_and_others_are_not() {
    let weights = load(&golden_path("llama-tied"), WeightsFormat::F32);
    let runners = [false, true].map(|low_priority| {
        let options = CpuRunnerOptions { block_size: 16, num_blocks: 2, threads: 1, low_priority };
        let mut runner = CpuRunner::new(weights.clone(), options).unwrap();
        // A step has run: its threads have started.
        runner.execute(&StepBatch::default()).unwrap();
        runner
    });
    let mut nice = std::collections::BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        // Field 19 of proc(5), the 17th after the name.
        nice.insert(name.to_owned(), rest.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap());
    }
    assert_eq!((nice["compute-0"], nice["compute-low-0"]), (0, 5), "{nice:?}");
    drop(runners);
}
