//! Rotary position embedding (Su et al. 2021): each pair of elements of a head turns by an angle that grows with the
//! token's position.

use crate::cpu::parallel::{SharedMut, for_each_task};

/// Which elements of a head make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `i` with `i + rotary_dim / 2` ("rotate half", GPT-NeoX): what Hugging Face checkpoints use.
    Halves,
    /// `2 i` with `2 i + 1` (GPT-J): what GGUF files of Llama models use, whose weights are permuted for it.
    Interleaved,
}

/// The angles of a model.
#[derive(Clone, Debug)]
pub struct RopeTable {
    inv_freq: Vec<f32>,
    factor: f32,
    pairs: RopePairs,
}

/// Cosines and sines for the tokens of one step, shared by all layers.
#[derive(Clone, Debug)]
pub struct RopeRotation {
    /// `[tokens, rotary_dim / 2]`, cosine and sine of each.
    cos_sin: Vec<(f32, f32)>,
    half: usize,
    pairs: RopePairs,
}

impl RopeTable {
    /// `inv_freq`: radians a position, for each of `rotary_dim / 2` pairs. `factor` multiplies cosines and sines (1, but
    /// for YaRN and LongRoPE's attention factor).
    pub fn new(inv_freq: Vec<f32>, factor: f32, pairs: RopePairs) -> Self {
        Self { inv_freq, factor, pairs }
    }

    /// The plain table: `inv_freq[i] = theta^(-2 i / rotary_dim)`.
    pub fn with_theta(theta: f32, rotary_dim: usize, pairs: RopePairs) -> Self {
        let inv_freq =
            (0..rotary_dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / rotary_dim as f32)).collect();
        Self::new(inv_freq, 1.0, pairs)
    }

    /// Cosines and sines at `positions`, one a token. The angle is the f32 product, as in the checkpoints' training.
    pub fn rotation(&self, positions: &[u32]) -> RopeRotation {
        let angles = positions.iter().flat_map(|position| self.inv_freq.iter().map(|f| *position as f32 * f));
        let cos_sin = angles.map(|angle| (angle.cos() * self.factor, angle.sin() * self.factor)).collect();
        RopeRotation { cos_sin, half: self.inv_freq.len(), pairs: self.pairs }
    }
}

/// Rotates the leading `rotary_dim` elements of the first `heads` heads of each row. `x` is `[tokens, row_len]`, row by
/// row `[heads, head_dim]` and whatever follows: of fused `[q heads, k heads, v heads]` pass the number of q and k heads.
///
/// # Panics
/// If the lengths do not fit.
pub fn rope_in_place(rotation: &RopeRotation, x: &mut [f32], row_len: usize, heads: usize, head_dim: usize) {
    /// Elements that take about 5 µs.
    const ELEMENTS_A_TASK: usize = 16 * 1024;
    let half = rotation.half;
    assert!(2 * half <= head_dim && heads * head_dim <= row_len, "heads do not fit the row");
    let tokens = rotation.cos_sin.len().checked_div(half).unwrap_or(0);
    assert_eq!(x.len(), tokens * row_len, "rows against positions");
    let rows_a_task = (ELEMENTS_A_TASK / row_len.max(1)).max(1);
    let shared = SharedMut::new(x);
    for_each_task(tokens.div_ceil(rows_a_task), |task| {
        for token in task * rows_a_task..tokens.min((task + 1) * rows_a_task) {
            // SAFETY: rows are disjoint, and each is visited once.
            let row = unsafe { shared.slice(token * row_len..(token + 1) * row_len) };
            let cos_sin = &rotation.cos_sin[token * half..][..half];
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                rotate(rotation.pairs, cos_sin, head);
            }
        }
    });
}

fn rotate(pairs: RopePairs, cos_sin: &[(f32, f32)], head: &mut [f32]) {
    let turn = |a: &mut f32, b: &mut f32, (cos, sin): (f32, f32)| {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    };
    match pairs {
        RopePairs::Halves => {
            let (first, second) = head.split_at_mut(cos_sin.len());
            for ((a, b), angle) in first.iter_mut().zip(second).zip(cos_sin) {
                turn(a, b, *angle);
            }
        }
        RopePairs::Interleaved => {
            for (pair, angle) in head.chunks_exact_mut(2).zip(cos_sin) {
                let [a, b] = pair else { unreachable!("pairs") };
                turn(a, b, *angle);
            }
        }
    }
}
