//! How weights are kept in memory: what a person may choose, and what that means for one matrix.

use baton_kernels::cpu::MatrixFormat;
use candle_core::quantized::GgmlDType;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Choice of the in-memory format of all projections (`--weights`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsFormat {
    /// The file's quantisation where a kernel reads it, otherwise `Q8_0`.
    #[default]
    Auto,
    /// 4 bytes a weight; the reference.
    F32,
    /// 2 bytes a weight; exact for models published in bfloat16.
    Bf16,
    /// About 1.1 bytes a weight.
    Q8_0,
    /// As in the file, where a kernel for it exists; otherwise the smallest format that loses next to nothing.
    File,
}

/// Not a weights format.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a weights format; expected auto, f32, bf16, q8_0 or file")]
pub struct ParseWeightsFormatError(String);

impl FromStr for WeightsFormat {
    type Err = ParseWeightsFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "q8_0" => Ok(Self::Q8_0),
            "file" => Ok(Self::File),
            other => Err(ParseWeightsFormatError(other.to_owned())),
        }
    }
}

impl fmt::Display for WeightsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::File => "file",
        })
    }
}

/// How one matrix is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Through f32 into this format.
    Repack(MatrixFormat),
    /// Block by block from the file, values unchanged.
    AsStored(GgmlDType),
}

impl WeightsFormat {
    /// The packing of a matrix whose tensors are stored as `stored` and have rows of `k` elements.
    ///
    /// Prefill and decode share it. On SmolLM2-135M with AVX-512, quantised weights measured 1.5 times as fast as f32 in
    /// prefill and 4 times in decode, so a second packing would cost memory, and every mixed step a second pass over the
    /// weights, to be slower.
    pub(crate) fn packing(self, stored: &[GgmlDType], k: usize) -> Packing {
        let packing = match self {
            Self::F32 => Packing::Repack(MatrixFormat::F32),
            Self::Bf16 => Packing::Repack(MatrixFormat::Bf16),
            Self::Q8_0 => Packing::Repack(MatrixFormat::Q8_0),
            Self::File => as_stored(stored),
            Self::Auto => match as_stored(stored) {
                packing @ Packing::AsStored(_) => packing,
                Packing::Repack(_) => Packing::Repack(MatrixFormat::Q8_0),
            },
        };
        match packing {
            // Quantised formats come in blocks of 32: other row lengths stay exact.
            Packing::Repack(MatrixFormat::Q8_0) if !k.is_multiple_of(32) => {
                Packing::Repack(MatrixFormat::F32)
            }
            packing => packing,
        }
    }
}

/// The closest thing to the file's own bits: a projection is fused from tensors, which may be stored differently.
fn as_stored(stored: &[GgmlDType]) -> Packing {
    let first = stored[0];
    if stored.iter().any(|dtype| *dtype != first) {
        return Packing::Repack(MatrixFormat::Q8_0);
    }
    match first {
        GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q8_0 => Packing::AsStored(first),
        GgmlDType::F32 | GgmlDType::F16 => Packing::Repack(MatrixFormat::F32),
        GgmlDType::BF16 => Packing::Repack(MatrixFormat::Bf16),
        _ => Packing::Repack(MatrixFormat::Q8_0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for name in ["auto", "f32", "bf16", "q8_0", "file"] {
            assert_eq!(name.parse::<WeightsFormat>().map(|format| format.to_string()), Ok(name.to_owned()));
        }
        let error = "int4".parse::<WeightsFormat>().map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("'int4' is not a weights format; expected auto, f32, bf16, q8_0 or file".to_owned())
        );
    }

    #[test]
    fn a_fused_matrix_of_mixed_types_is_repacked() {
        let file = |stored: &[GgmlDType]| WeightsFormat::File.packing(stored, 64);
        assert_eq!(file(&[GgmlDType::Q4_1, GgmlDType::Q4_1]), Packing::AsStored(GgmlDType::Q4_1));
        assert_eq!(file(&[GgmlDType::Q4_1, GgmlDType::Q6K]), Packing::Repack(MatrixFormat::Q8_0));
        let auto = WeightsFormat::Auto.packing(&[GgmlDType::Q4K], 256);
        assert_eq!(auto, Packing::Repack(MatrixFormat::Q8_0), "no kernel reads it as it is");
        assert_eq!(file(&[GgmlDType::BF16]), Packing::Repack(MatrixFormat::Bf16));
        let odd = WeightsFormat::Q8_0.packing(&[GgmlDType::F32], 40);
        assert_eq!(odd, Packing::Repack(MatrixFormat::F32), "40 is not a multiple of the block");
    }
}
