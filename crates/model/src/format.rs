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
    /// The packing of a projection whose tensors are stored as `stored` and have rows of `k` elements.
    ///
    /// One packing serves prompts and output tokens alike. Measured, 8-bit products over 4-bit weights beat f32 for one
    /// row (bytes read) and for 512 rows (products a second) alike, so a second copy for prefill would cost memory and
    /// start-up time, and would make a token's KV depend on the phase that computed it.
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
        quantised_or_f32(packing, k)
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

/// Quantised formats come in blocks of 32: other row lengths stay exact.
fn quantised_or_f32(packing: Packing, k: usize) -> Packing {
    match packing {
        Packing::Repack(MatrixFormat::Q8_0) if !k.is_multiple_of(32) => Packing::Repack(MatrixFormat::F32),
        other => other,
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
        assert_eq!(file(&[GgmlDType::BF16]), Packing::Repack(MatrixFormat::Bf16));
        let odd = WeightsFormat::Q8_0.packing(&[GgmlDType::F32], 40);
        assert_eq!(odd, Packing::Repack(MatrixFormat::F32), "40 is not a multiple of the block");
    }
}
