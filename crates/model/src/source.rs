//! Tensors as model files store them: one table for GGUF and safetensors, rows read on demand from mapped files.

pub(crate) mod gguf;
pub(crate) mod safetensors;

use crate::error::LoadError;
use baton_kernels::cpu::mapped_file::MappedFile;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoredType {
    /// A type that can be read.
    Ggml(GgmlDType),
    /// Anything else, by its name in the file.
    Other(&'static str),
}

impl StoredType {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Ggml(dtype) => format!("{dtype:?}").to_uppercase(),
            Self::Other(name) => name.to_owned(),
        }
    }
}

/// A mapped model file.
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) map: MappedFile,
}

/// One tensor in a mapped file. Cheap to clone; the file stays mapped as long as it lives.
#[derive(Clone)]
pub(crate) struct StoredTensor {
    pub(crate) file: Arc<SourceFile>,
    pub(crate) name: String,
    pub(crate) dtype: StoredType,
    /// Rows first.
    pub(crate) shape: Vec<usize>,
    /// Where its bytes are in the file; inside the file, and as many as type and shape say.
    pub(crate) range: Range<usize>,
}

/// All tensors of a model, by name.
pub(crate) struct TensorTable {
    /// What to name in an error about a tensor that is not there: the file, or the index of many files.
    pub(crate) path: PathBuf,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
}

impl TensorTable {
    pub(crate) fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// A tensor of exactly this shape, of a type that can be read.
    pub(crate) fn require(&self, name: &str, shape: &[usize]) -> Result<&StoredTensor, LoadError> {
        let tensor = self.get(name).ok_or_else(|| LoadError::MissingTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            expected: shape.to_vec(),
        })?;
        if tensor.shape != shape {
            return Err(LoadError::WrongShape {
                path: tensor.file.path.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.shape.clone(),
            });
        }
        tensor.ggml_dtype()?;
        Ok(tensor)
    }

    /// `"Q4_1 210, F32 61, Q8_0 1"`: how many tensors there are of each type, the most frequent first.
    pub(crate) fn summary(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for tensor in self.tensors.values() {
            *counts.entry(tensor.dtype.name()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }
}

impl StoredTensor {
    /// Elements of one row: the last dimension.
    pub(crate) fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file.map[self.range.clone()]
    }

    /// The stored bytes of one row.
    pub(crate) fn row_bytes(&self, row: usize) -> &[u8] {
        let rows = self.shape.iter().product::<usize>() / self.row_len();
        let size = self.range.len() / rows;
        &self.bytes()[row * size..][..size]
    }

    pub(crate) fn ggml_dtype(&self) -> Result<GgmlDType, LoadError> {
        match self.dtype {
            StoredType::Ggml(dtype) => Ok(dtype),
            StoredType::Other(found) => Err(LoadError::WrongDtype {
                path: self.file.path.clone(),
                tensor: self.name.clone(),
                expected: "F32, F16, BF16 or a GGUF quantisation",
                found: found.to_owned(),
            }),
        }
    }

    /// All elements in f32.
    pub(crate) fn to_vec(&self) -> Result<Vec<f32>, LoadError> {
        let dtype = self.ggml_dtype()?;
        let mut values = vec![0.0; self.shape.iter().product()];
        for (row, out) in values.chunks_exact_mut(self.row_len()).enumerate() {
            dequantise(dtype, self.row_bytes(row), out);
        }
        Ok(values)
    }
}

/// One row of stored bytes in f32. Plain types here, quantised ones through candle.
///
/// # Panics
/// When `bytes` is not as long as `out.len()` elements of `dtype` are: the table's readers have checked that.
pub(crate) fn dequantise(dtype: GgmlDType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        GgmlDType::F32 => {
            for (out, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*raw);
            }
        }
        GgmlDType::F16 => {
            for (out, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*raw).to_f32();
            }
        }
        GgmlDType::BF16 => {
            for (out, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        GgmlDType::Q8_0 => dequantise_q8_0(bytes, out),
        GgmlDType::Q4_1 => dequantise_q4_1(bytes, out),
        other => dequantise_by_candle(other, bytes, out),
    }
}

/// GGUF `Q8_0`: blocks of an f16 scale and 32 signed bytes.
fn dequantise_q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (out, quant) in out.iter_mut().zip(&block[2..]) {
            *out = f32::from(*quant as i8) * scale;
        }
    }
}

/// GGUF `Q4_1`: blocks of an f16 scale, an f16 minimum and 32 nibbles, the low nibbles first.
fn dequantise_q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let minimum = f16::from_le_bytes([block[2], block[3]]).to_f32();
        let (low, high) = out.split_at_mut(16);
        for ((low, high), quants) in low.iter_mut().zip(high).zip(&block[4..]) {
            *low = f32::from(quants & 15) * scale + minimum;
            *high = f32::from(quants >> 4) * scale + minimum;
        }
    }
}

/// Copies first, because candle reads blocks in place and a mapped row need not be aligned for them; a fresh
/// allocation is.
fn dequantise_by_candle(dtype: GgmlDType, bytes: &[u8], out: &mut [f32]) {
    let values = QStorage::from_data(Cow::Owned(bytes.to_vec()), &Device::Cpu, dtype)
        .and_then(|storage| QTensor::new(storage, out.len()))
        .and_then(|tensor| tensor.dequantize(&Device::Cpu))
        .and_then(|tensor| tensor.to_vec1::<f32>())
        .expect("the row's length was checked when the file was opened");
    out.copy_from_slice(&values);
}
