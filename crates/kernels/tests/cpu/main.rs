//! CPU kernels against plain loops, and the promise that a row's bits depend on that row alone.

mod attention;
mod elementwise;
mod matmul;
mod sampling;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// `len` numbers in [-1, 1), the same for the same seed.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what}: element {i} is {got}, expected {expected}");
    }
}

/// Runs `f` on a pool of `threads`.
fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
}
