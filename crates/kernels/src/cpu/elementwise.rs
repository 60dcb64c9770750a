//! Work that touches each activation once or twice: norms and the gated activation. Limited by cache bandwidth; rows go
//! to several threads where there are enough of them to pay for it.
#![allow(unsafe_op_in_unsafe_fn, reason = "each kernel as a whole relies on the lengths its caller checked")]

use crate::cpu::Tier;
use crate::cpu::parallel::{SharedMut, for_each_task};
use crate::cpu::simd::Simd;
use crate::cpu::tier::Kernel;

/// Elements that take about 5 µs: less is not worth handing to another thread.
const ELEMENTS_A_TASK: usize = 16 * 1024;

/// Root mean square norm (Zhang and Sennrich 2019): `out = x / sqrt(mean(x²) + eps) * weight`, for each row.
/// `x` and `out` are `[rows, weight.len()]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    rms_norm_on(Tier::current(), x, weight, eps, out);
}

/// [`rms_norm`] with the instructions of `tier`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_on(tier: Tier, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    assert_eq!(x.len(), out.len(), "inputs and outputs of a norm");
    let out = SharedMut::new(out);
    for_each_row(x.len(), len, |row| {
        // SAFETY: rows are disjoint, and each is visited once.
        let out = unsafe { out.slice(row * len..(row + 1) * len) };
        tier.run(NormRow { x: &x[row * len..][..len], weight, eps, out });
    });
}

/// `residual += x`, then `out = rms_norm(residual)`. All three are `[rows, weight.len()]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn add_rms_norm(x: &[f32], residual: &mut [f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    add_rms_norm_on(Tier::current(), x, residual, weight, eps, out);
}

/// [`add_rms_norm`] with the instructions of `tier`.
///
/// # Panics
/// If the lengths do not fit.
pub fn add_rms_norm_on(
    tier: Tier,
    x: &[f32],
    residual: &mut [f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let len = weight.len();
    assert_eq!(x.len(), residual.len(), "inputs and residual of a norm");
    assert_eq!(x.len(), out.len(), "inputs and outputs of a norm");
    let (out, residual) = (SharedMut::new(out), SharedMut::new(residual));
    for_each_row(x.len(), len, |row| {
        let range = row * len..(row + 1) * len;
        // SAFETY: rows are disjoint, and each is visited once.
        let (residual, out) = unsafe { (residual.slice(range.clone()), out.slice(range.clone())) };
        tier.run(AddRow { x: &x[range], sum: residual });
        tier.run(NormRow { x: residual, weight, eps, out });
    });
}

/// SwiGLU's gate (Shazeer 2020): `out = silu(gate) * up`. `gate_up` is `[rows, 2 * ffn]`, each row the gate and then
/// the up projection; `out` is `[rows, ffn]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn silu_mul(gate_up: &[f32], ffn: usize, out: &mut [f32]) {
    silu_mul_on(Tier::current(), gate_up, ffn, out);
}

/// [`silu_mul`] with the instructions of `tier`.
///
/// # Panics
/// If the lengths do not fit.
pub fn silu_mul_on(tier: Tier, gate_up: &[f32], ffn: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate and up against outputs");
    let len = out.len();
    let out = SharedMut::new(out);
    for_each_row(len, ffn, |row| {
        let (gate, up) = gate_up[2 * row * ffn..][..2 * ffn].split_at(ffn);
        // SAFETY: rows are disjoint, and each is visited once.
        let out = unsafe { out.slice(row * ffn..(row + 1) * ffn) };
        tier.run(SiluRow { gate, up, out });
    });
}

fn for_each_row(elements: usize, len: usize, f: impl Fn(usize) + Sync) {
    assert!(len > 0 && elements.is_multiple_of(len), "{elements} elements are no whole rows of {len}");
    let (rows, rows_a_task) = (elements / len, (ELEMENTS_A_TASK / len).max(1));
    for_each_task(rows.div_ceil(rows_a_task), |task| {
        (task * rows_a_task..rows.min((task + 1) * rows_a_task)).for_each(&f);
    });
}

struct NormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let len = self.x.len();
        let whole = len - len % S::LANES;
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let x = S::load(self.x.as_ptr().add(i));
            squares = S::mul_add(x, x, squares);
        }
        let mut lanes = [0.0; 16];
        S::store(lanes.as_mut_ptr(), squares);
        let tail: f32 = self.x[whole..].iter().map(|x| x * x).sum();
        let mean = (lanes.iter().sum::<f32>() + tail) / len as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }
}

struct AddRow<'a> {
    x: &'a [f32],
    sum: &'a mut [f32],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (sum, x) in self.sum.iter_mut().zip(self.x) {
            *sum += x;
        }
    }
}

struct SiluRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let len = self.out.len();
        for i in (0..len).step_by(S::LANES) {
            if i + S::LANES <= len {
                let v = silu::<S>(S::load(self.gate.as_ptr().add(i)), S::load(self.up.as_ptr().add(i)));
                S::store(self.out.as_mut_ptr().add(i), v);
                continue;
            }
            let (mut gate, mut up, rest) = ([0.0; 16], [0.0; 16], len - i);
            gate[..rest].copy_from_slice(&self.gate[i..]);
            up[..rest].copy_from_slice(&self.up[i..]);
            let v = silu::<S>(S::load(gate.as_ptr()), S::load(up.as_ptr()));
            S::store(gate.as_mut_ptr(), v);
            self.out[i..].copy_from_slice(&gate[..rest]);
        }
    }
}

#[inline(always)]
unsafe fn silu<S: Simd>(gate: S::F, up: S::F) -> S::F {
    let exp = S::exp(S::sub(S::splat(0.0), gate));
    S::mul(S::div(gate, S::add(S::splat(1.0), exp)), up)
}
