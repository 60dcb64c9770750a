//! The header of a GGUF file (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): metadata and tensor table.
//!
//! candle reads it, from the mapped file: over a `File` its many small reads and position queries would each be a
//! system call.

use super::{SourceFile, StoredTensor, StoredType, TensorTable};
use crate::config::gguf::Metadata;
use crate::error::LoadError;
use baton_kernels::cpu::mapped_file::MappedFile;
use candle_core::quantized::gguf_file::Content;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// Opens a GGUF file and checks that every tensor lies inside it.
pub(crate) fn open(path: &Path) -> Result<(Metadata, TensorTable), LoadError> {
    let map = MappedFile::open(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    let file = Arc::new(SourceFile { path: path.to_owned(), map });
    let content =
        Content::read(&mut Cursor::new(&file.map[..])).map_err(|error| header_error(path, &error))?;
    let mut tensors = BTreeMap::new();
    for (name, info) in content.tensor_infos {
        let shape = info.shape.dims().to_vec();
        let start = content.tensor_data_offset.saturating_add(info.offset);
        let range = tensor_range(&file, &name, &shape, info.ggml_dtype, start)?;
        let dtype = StoredType::Ggml(info.ggml_dtype);
        let tensor = StoredTensor { file: file.clone(), name: name.clone(), dtype, shape, range };
        tensors.insert(name, tensor);
    }
    let metadata = Metadata { path: path.to_owned(), values: content.metadata };
    Ok((metadata, TensorTable { path: path.to_owned(), tensors }))
}

fn header_error(path: &Path, error: &candle_core::Error) -> LoadError {
    // candle's only sign of an element type that it does not know.
    let error = error.to_string();
    if error.contains("unknown dtype") {
        return LoadError::UnsupportedFeature {
            path: path.to_owned(),
            what: format!("a tensor's quantisation ({error})"),
            supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K and Q6_K",
        };
    }
    let reason =
        format!("not a readable GGUF header ({error}); the file may be cut short or of a newer kind");
    LoadError::Malformed { path: path.to_owned(), reason }
}

fn tensor_range(
    file: &SourceFile,
    name: &str,
    shape: &[usize],
    dtype: candle_core::quantized::GgmlDType,
    start: u64,
) -> Result<std::ops::Range<usize>, LoadError> {
    let malformed = |reason: String| LoadError::Malformed { path: file.path.clone(), reason };
    let row_len = shape.last().copied().unwrap_or(1);
    let elements = shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size as u64));
    let elements = elements.filter(|elements| *elements > 0).ok_or_else(|| {
        malformed(format!("tensor '{name}': expected a shape of at least one element, found {shape:?}"))
    })?;
    if !row_len.is_multiple_of(dtype.block_size()) {
        let block = dtype.block_size();
        return Err(malformed(format!(
            "tensor '{name}': expected rows of a multiple of {block} elements for {dtype:?}, found {row_len}"
        )));
    }
    let size = (elements / dtype.block_size() as u64).saturating_mul(dtype.type_size() as u64);
    let end = start.saturating_add(size);
    if end > file.map.len() as u64 {
        return Err(LoadError::Truncated {
            path: file.path.clone(),
            what: format!("tensor '{name}'"),
            needed: end,
            found: file.map.len() as u64,
        });
    }
    Ok(start as usize..end as usize)
}
