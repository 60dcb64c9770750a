//! CPU kernels against their floors.
//!
//! `cargo bench -p baton-kernels -- --floors` prints one table: matrix products by format, rows and tier, a whole pass over
//! the matrices of SmolLM2-135M in tokens a second, attention and sampling; each with its share of the floor (arithmetic at
//! two vector instructions a cycle, or bytes at the measured memory bandwidth). Best of several runs, on two threads or
//! `--threads=N`; `--only=Q4_1` keeps to one format. Without the flag criterion measures the products, to compare before and after a change.

use baton_kernels::cpu::{
    AttentionSequence, KvShape, MatrixFormat, PackedMatrix, PagedKv, RopePairs, RopeTable, SampleScratch,
    Tier, add_rms_norm_on, paged_attention_on, rms_norm_on, rope_in_place, sample, silu_mul_on,
};
use baton_types::{BlockId, SampleRequest, SamplingParams, Slot};
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Outputs and inputs of the matrices of a layer: fused q, k and v; attention output; fused gate and up; down.
const LAYER: [(usize, usize); 4] = [(960, 576), (576, 576), (3072, 576), (576, 1536)];
const LAYERS: usize = 30;
const HEAD: (usize, usize) = (49152, 576);

fn main() {
    let threads = argument("--threads=").and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| {
        if std::env::args().any(|arg| arg == "--floors") {
            print_floors(threads);
        } else {
            let mut criterion = Criterion::default().configure_from_args();
            products(&mut criterion);
            criterion.final_summary();
        }
    });
}

fn argument(prefix: &str) -> Option<String> {
    std::env::args().find_map(|arg| arg.strip_prefix(prefix).map(str::to_owned))
}

fn products(criterion: &mut Criterion) {
    let (n, k) = LAYER[2];
    for format in [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Q8_0, MatrixFormat::Q4_1] {
        let matrix = packed(format, n, k);
        for rows in [1, 8, 64, 512] {
            for tier in Tier::supported() {
                let mut group = criterion.benchmark_group(format!("matmul/{format:?}/{rows} rows"));
                group.throughput(Throughput::Elements((2 * n * k * rows) as u64));
                let (x, mut out) = (numbers(rows * k), vec![0.0; rows * n]);
                let run = || matrix.matmul_on(tier, &x, rows, &mut out).expect("shapes fit");
                let mut run = run;
                group.bench_function(format!("{tier:?}"), |bencher| bencher.iter(&mut run));
            }
        }
    }
}

/// What the machine can do at most.
struct Machine {
    threads: usize,
    hertz: f64,
    bytes_per_second: f64,
}

impl Machine {
    fn measure(threads: usize) -> Self {
        let machine = Self { threads, hertz: hertz(), bytes_per_second: bandwidth(threads) };
        let (ghz, bandwidth) = (machine.hertz / 1e9, machine.bytes_per_second / 1e9);
        println!(
            "{threads} threads at {ghz:.2} GHz, {bandwidth:.1} GB/s from memory; tiers {:?}",
            Tier::supported()
        );
        machine
    }

    /// The least time for a product: arithmetic or bytes, whichever takes longer.
    fn floor(&self, tier: Tier, matrix: &PackedMatrix, rows: usize) -> Duration {
        let lanes = if tier == Tier::Avx512 { 16.0 } else { 8.0 };
        let vectors = matrix.n() as f64 / lanes * rows as f64;
        let blocks = matrix.k() as f64 / 32.0;
        // Vector instructions for a vector of outputs, at two a cycle (simple integer additions at three).
        let instructions = match (matrix.format(), tier) {
            (MatrixFormat::F32 | MatrixFormat::Bf16, _) => matrix.k() as f64,
            (MatrixFormat::Q4_1, Tier::Avx512) => blocks * 12.0,
            (MatrixFormat::Q8_0, Tier::Avx512) => blocks * 11.0,
            (MatrixFormat::Q4_1, _) => blocks * 16.0,
            (MatrixFormat::Q8_0, _) => blocks * 27.0,
        };
        let arithmetic = vectors * instructions / 2.0 / self.hertz / self.threads as f64;
        let bytes = matrix.bytes() as f64 / self.bytes_per_second;
        Duration::from_secs_f64(arithmetic.max(bytes))
    }
}

fn print_floors(threads: usize) {
    let machine = Machine::measure(threads);
    let only = argument("--only=");
    for format in [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Q8_0, MatrixFormat::Q4_1] {
        if only.as_ref().is_some_and(|only| *only != format!("{format:?}")) {
            continue;
        }
        // One copy a layer: a pass must stream weights as a model does, not find them in a near cache.
        let layers: Vec<Vec<PackedMatrix>> =
            (0..LAYERS).map(|_| LAYER.iter().map(|(n, k)| packed(format, *n, *k)).collect()).collect();
        let head_format = if format == MatrixFormat::Q4_1 { MatrixFormat::Q8_0 } else { format };
        let head = packed(head_format, HEAD.0, HEAD.1);
        for tier in Tier::supported() {
            for rows in [1, 2, 4, 8, 16, 64, 512] {
                if tier == Tier::Portable && rows > 8 {
                    continue;
                }
                print_pass(&machine, tier, &layers, &head, rows);
            }
            print_step(tier, &layers, &head, 1, 1, 128);
            print_step(tier, &layers, &head, 8, 1, 128);
            if tier != Tier::Portable {
                print_step(tier, &layers, &head, 1, 512, 0);
            }
        }
    }
    for tier in Tier::supported() {
        print_attention(tier, 512, 0, 1);
        print_attention(tier, 1, 511, 1);
        print_attention(tier, 1, 511, 8);
        print_elementwise(tier, 1);
        print_elementwise(tier, 512);
    }
    print_sampling();
}

fn print_pass(machine: &Machine, tier: Tier, layers: &[Vec<PackedMatrix>], head: &PackedMatrix, rows: usize) {
    let x = numbers(rows * 1536);
    let mut out = vec![0.0; (rows * 3072).max(8 * HEAD.0)];
    let mut run = |matrix: &PackedMatrix, rows: usize| {
        let (x, out) = (&x[..rows * matrix.k()], &mut out[..rows * matrix.n()]);
        matrix.matmul_on(tier, x, rows, out).expect("shapes fit");
    };
    // A prefill needs the logits of its last token alone.
    let head_rows = if rows > 8 { 1 } else { rows };
    // Best time of each kind of matrix over all layers and passes: other work on the machine disturbs these least.
    let mut times = [Duration::MAX; 5];
    let started = Instant::now();
    let mut passes = 0;
    while passes < 3 || (passes < 30 && started.elapsed() < Duration::from_secs(1)) {
        passes += 1;
        for layer in layers {
            for (time, matrix) in times.iter_mut().zip(layer) {
                *time = (*time).min(timed(|| run(matrix, rows)));
            }
        }
        times[4] = times[4].min(timed(|| run(head, head_rows)));
    }
    times[..4].iter_mut().for_each(|time| *time *= LAYERS as u32);
    let floors: Vec<Duration> =
        layers[0].iter().map(|matrix| machine.floor(tier, matrix, rows) * LAYERS as u32).collect();
    let floor = floors.iter().sum::<Duration>() + machine.floor(tier, head, head_rows);
    let time: Duration = times.iter().sum();
    let shares: Vec<String> = floors
        .iter()
        .zip(times)
        .map(|(floor, time)| format!("{:.2}", floor.as_secs_f64() / time.as_secs_f64()))
        .collect();
    println!(
        "{:?} {tier:?} {rows} rows: pass {:.2} ms = {:.0} tokens/s, {:.0} GFLOP/s, {:.2} of floor (qkv, out, gate+up, down: {})",
        layers[0][0].format(),
        time.as_secs_f64() * 1e3,
        rows as f64 / time.as_secs_f64(),
        gflops(layers, rows) / times[..4].iter().sum::<Duration>().as_secs_f64(),
        floor.as_secs_f64() / time.as_secs_f64(),
        shares.join(" ")
    );
}

/// A whole step as a runner does it, but for the embedding: every kernel of every layer, the head, greedy sampling.
fn print_step(
    tier: Tier,
    layers: &[Vec<PackedMatrix>],
    head: &PackedMatrix,
    sequences: usize,
    query_len: usize,
    context_len: usize,
) {
    let rows = sequences * query_len;
    let shape =
        KvShape { num_blocks: 40 * sequences, block_size: 16, layers: LAYERS, kv_heads: 3, head_dim: 64 };
    let mut kv = PagedKv::new(shape);
    let tables = tables(sequences);
    let parts = parts(&tables, query_len, context_len);
    let positions: Vec<u32> = (0..rows).map(|row| (context_len + row % query_len) as u32).collect();
    let rope = RopeTable::with_theta(1e5, 64, RopePairs::Halves);
    let (weight, mut scratch) = (numbers(576), SampleScratch::default());
    let params = Arc::new(SamplingParams { temperature: 0.0, ..SamplingParams::default() });
    let request = SampleRequest { params, position: 1, history: None, banned: Vec::new() };
    let zeros = |len: usize| vec![0.0_f32; rows * len];
    let (mut x, mut normed, mut qkv, mut q, mut attended) =
        (zeros(576), zeros(576), zeros(960), zeros(576), zeros(576));
    let (mut gate_up, mut gated, mut logits) = (zeros(3072), zeros(1536), vec![0.0; sequences * HEAD.0]);
    let time = best(15, || {
        x.copy_from_slice(&numbers(rows * 576));
        let rotation = rope.rotation(&positions);
        rms_norm_on(tier, &x, &weight, 1e-5, &mut normed);
        for (layer, matrices) in layers.iter().enumerate() {
            matrices[0].matmul_on(tier, &normed, rows, &mut qkv).expect("shapes fit");
            rope_in_place(&rotation, &mut qkv, 960, 12, 64);
            for (row, qkv) in qkv.chunks(960).enumerate() {
                q[576 * row..][..576].copy_from_slice(&qkv[..576]);
                let position = positions[row] as usize;
                let slot = tables[row / query_len][position / 16].0 as usize * 16 + position % 16;
                kv.write(layer, Slot(slot as u32), &qkv[576..768], &qkv[768..]);
            }
            paged_attention_on(tier, &kv, layer, &q, &parts, 9, 0.125, &mut attended).expect("shapes fit");
            matrices[1].matmul_on(tier, &attended, rows, &mut q).expect("shapes fit");
            add_rms_norm_on(tier, &q, &mut x, &weight, 1e-5, &mut normed);
            matrices[2].matmul_on(tier, &normed, rows, &mut gate_up).expect("shapes fit");
            silu_mul_on(tier, &gate_up, 1536, &mut gated);
            matrices[3].matmul_on(tier, &gated, rows, &mut q).expect("shapes fit");
            add_rms_norm_on(tier, &q, &mut x, &weight, 1e-5, &mut normed);
        }
        head.matmul_on(tier, &normed[..sequences * 576], sequences, &mut logits).expect("shapes fit");
        for logits in logits.chunks(HEAD.0) {
            black_box(sample(logits, &request, &mut scratch));
        }
    });
    println!(
        "step {:?} {tier:?}: {sequences} sequences, {query_len} tokens after {context_len}: {:.2} ms = {:.0} tokens/s",
        layers[0][0].format(),
        time.as_secs_f64() * 1e3,
        rows as f64 / time.as_secs_f64()
    );
}

/// Forty blocks of 16 tokens for each sequence.
fn tables(sequences: usize) -> Vec<Vec<BlockId>> {
    (0..sequences).map(|s| (0..40).map(|i| BlockId((40 * s + i) as u32)).collect()).collect()
}

fn parts(tables: &[Vec<BlockId>], query_len: usize, context_len: usize) -> Vec<AttentionSequence<'_>> {
    let part = |(s, table)| AttentionSequence {
        tokens: s * query_len..(s + 1) * query_len,
        context_len,
        block_table: table,
    };
    tables.iter().map(Vec::as_slice).enumerate().map(part).collect()
}

fn gflops(layers: &[Vec<PackedMatrix>], rows: usize) -> f64 {
    layers.iter().flatten().map(|matrix| 2e-9 * (matrix.n() * matrix.k() * rows) as f64).sum()
}

fn print_attention(tier: Tier, query_len: usize, context_len: usize, sequences: usize) {
    let shape =
        KvShape { num_blocks: 40 * sequences, block_size: 16, layers: LAYERS, kv_heads: 3, head_dim: 64 };
    let mut kv = PagedKv::new(shape);
    for block in 0..shape.num_blocks {
        // Floats of moderate size.
        kv.block_bytes_mut(BlockId(block as u32)).fill(0x3c);
    }
    let tables = tables(sequences);
    let parts = parts(&tables, query_len, context_len);
    let queries = numbers(sequences * query_len * 576);
    let mut out = vec![0.0; queries.len()];
    // The best of all layers: each has its own keys and values to stream.
    let mut layer = 0;
    let time = LAYERS as u32
        * best(4 * LAYERS, || {
            paged_attention_on(tier, &kv, layer % LAYERS, &queries, &parts, 9, 0.125, &mut out)
                .expect("shapes fit");
            layer += 1;
        });
    let pairs: usize = (0..query_len).map(|i| context_len + i + 1).sum::<usize>() * sequences * 9 * LAYERS;
    println!(
        "attention {tier:?}: {sequences} sequences, {query_len} tokens after {context_len}, 30 layers: {:.2} ms, {:.0} GFLOP/s",
        time.as_secs_f64() * 1e3,
        (pairs * 4 * 64) as f64 / time.as_secs_f64() / 1e9
    );
}

fn print_elementwise(tier: Tier, rows: usize) {
    let (x, gate_up, weight) = (numbers(rows * 576), numbers(rows * 3072), numbers(576));
    let (mut norm, mut gated) = (vec![0.0; rows * 576], vec![0.0; rows * 1536]);
    let norms = 60 * best(100, || rms_norm_on(tier, &x, &weight, 1e-5, &mut norm));
    let gates = 30 * best(100, || silu_mul_on(tier, &gate_up, 1536, &mut gated));
    println!("{tier:?} {rows} rows, 30 layers: norms {norms:.2?}, gates {gates:.2?}");
}

fn print_sampling() {
    let logits: Vec<f32> = numbers(HEAD.0).iter().map(|x| 10.0 * x).collect();
    let mut scratch = SampleScratch::default();
    let plain = SamplingParams::default();
    for (name, params) in [
        ("greedy", SamplingParams { temperature: 0.0, ..plain.clone() }),
        ("temperature 1", plain.clone()),
        ("top_k 50, top_p 0.9", SamplingParams { top_k: Some(50), top_p: 0.9, ..plain.clone() }),
        ("top_p 0.9", SamplingParams { top_p: 0.9, ..plain.clone() }),
        ("5 logprobs", SamplingParams { temperature: 0.0, logprobs: Some(5), ..plain }),
    ] {
        let request =
            SampleRequest { params: Arc::new(params), position: 1, history: None, banned: Vec::new() };
        let time = best(20, || {
            black_box(sample(&logits, &request, &mut scratch));
        });
        println!("sample of {} logits, {name}: {:.0} µs", HEAD.0, time.as_secs_f64() * 1e6);
    }
}

fn packed(format: MatrixFormat, n: usize, k: usize) -> PackedMatrix {
    let row = numbers(k);
    PackedMatrix::pack(format, n, k, |_, buffer| buffer.copy_from_slice(&row)).expect("shapes fit")
}

/// Some numbers in [-1, 1).
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn best(times: usize, mut f: impl FnMut()) -> Duration {
    (0..times).map(|_| timed(&mut f)).min().expect("at least one run")
}

/// Clock rate, from a chain of dependent rotations: one cycle each.
fn hertz() -> f64 {
    const STEPS: u64 = 20_000_000;
    let chain = || {
        let mut x = black_box(1_u64);
        for _ in 0..STEPS {
            x = black_box_register(x.rotate_left(7));
        }
        black_box(x);
    };
    STEPS as f64 / best(5, chain).as_secs_f64()
}

/// Keeps a value in its register but unknown to the optimiser: multiplying by it would cost more than a cycle.
#[inline(always)]
fn black_box_register(x: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut x = x;
        #[expect(
            unsafe_code,
            reason = "an empty instruction is the only barrier that leaves a value in a register"
        )]
        // SAFETY: no instruction at all.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) x, options(nomem, nostack, pure, preserves_flags));
        }
        x
    }
    #[cfg(not(target_arch = "x86_64"))]
    x
}

/// Bytes a second that all threads read from memory.
fn bandwidth(threads: usize) -> f64 {
    let buffer = vec![1_u64; 32 << 20];
    let time = best(5, || {
        rayon::scope(|scope| {
            for part in buffer.chunks(buffer.len() / threads) {
                scope.spawn(move |_| {
                    black_box(part.iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
                });
            }
        });
    });
    size_of_val(&buffer[..]) as f64 / time.as_secs_f64()
}
