//! Llama 1 to 3 (Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>; Llama 3, <https://arxiv.org/abs/2407.21783>).
//!
//! The plain case: no biases unless the configuration asks for them, no head norms. Llama 3.1 stretches its rope
//! frequencies for a context longer than the one it was trained on first.

use super::{ArchSpec, GGUF, HUGGING_FACE, NO_WINDOW};
use std::f64::consts::TAU;

pub(super) const LLAMA: ArchSpec = ArchSpec {
    hugging_face: HUGGING_FACE,
    gguf: GGUF,
    always_qkv_bias: false,
    qk_norm: false,
    gguf_rows_interleaved: true,
    sliding_window_default: NO_WINDOW,
    head_dim_default: None,
    max_position_default: 2048,
};

/// One frequency after Llama 3.1's stretching. Wavelengths (in tokens) that fit many times into the original context
/// stay; those that hardly fit are stretched by `factor`; between the two bounds the share of each goes linearly with
/// the number of turns.
pub(super) fn scale_frequency(
    frequency: f64,
    factor: f64,
    low: f64,
    high: f64,
    original_context: f64,
) -> f64 {
    let turns = original_context * frequency / TAU;
    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    frequency * (kept + (1.0 - kept) / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waves_stay_long_waves_stretch_the_rest_blends() {
        let scale = |turns: f64| {
            let frequency = turns * TAU / 8192.0;
            scale_frequency(frequency, 8.0, 1.0, 4.0, 8192.0) / frequency
        };
        assert_eq!(scale(5.0), 1.0);
        assert_eq!(scale(0.5), 0.125);
        assert!((scale(2.5) - 0.5625).abs() < 1e-12, "half way: the mean of 1 and 1/8");
    }
}
