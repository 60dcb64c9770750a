//! Safetensors checkpoints (<https://github.com/huggingface/safetensors>): one file, or shards named by an index.

use super::{SourceFile, StoredTensor, StoredType, TensorTable};
use crate::config::hugging_face::JsonFile;
use crate::error::LoadError;
use baton_kernels::cpu::mapped_file::MappedFile;
use candle_core::quantized::GgmlDType;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Whether a directory holds a safetensors checkpoint.
pub(crate) fn is_present(directory: &Path) -> bool {
    directory.join(SINGLE).is_file() || directory.join(INDEX).is_file()
}

/// The tensors of a directory.
pub(crate) fn open(directory: &Path) -> Result<TensorTable, LoadError> {
    let index = directory.join(INDEX);
    if !index.is_file() {
        let path = directory.join(SINGLE);
        let mut tensors = BTreeMap::new();
        read_shard(&path, &mut tensors)?;
        return Ok(TensorTable { path, tensors });
    }
    let mut tensors = BTreeMap::new();
    for shard in shard_names(&index)? {
        read_shard(&directory.join(shard), &mut tensors)?;
    }
    Ok(TensorTable { path: index, tensors })
}

/// The files that the index names, each once.
fn shard_names(index: &Path) -> Result<BTreeSet<String>, LoadError> {
    let malformed = |reason: &str| LoadError::Malformed { path: index.to_owned(), reason: reason.to_owned() };
    let file = JsonFile::read(index)?;
    let Some(Value::Object(map)) = file.get("weight_map") else {
        return Err(malformed("expected an object 'weight_map' from tensor to file name"));
    };
    map.values()
        .map(|name| match name.as_str() {
            // The index names its neighbours: a path would lead out of the directory.
            Some(name) if !name.contains(['/', '\\']) => Ok(name.to_owned()),
            _ => Err(malformed("expected plain file names in 'weight_map'")),
        })
        .collect()
}

fn read_shard(path: &Path, tensors: &mut BTreeMap<String, StoredTensor>) -> Result<(), LoadError> {
    let map = MappedFile::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LoadError::NotFound { path: path.to_owned() },
        _ => LoadError::Io { path: path.to_owned(), source },
    })?;
    let file = Arc::new(SourceFile { path: path.to_owned(), map });
    let (header_len, metadata) =
        SafeTensors::read_metadata(&file.map).map_err(|error| header_error(&file, error))?;
    let data_start = header_len + 8;
    for (name, info) in metadata.tensors() {
        let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
        let dtype = stored_type(info.dtype);
        let shape = info.shape.clone();
        if info.shape.iter().product::<usize>() == 0 {
            let reason = format!("tensor '{name}': expected at least one element, found shape {shape:?}");
            return Err(LoadError::Malformed { path: path.to_owned(), reason });
        }
        let tensor = StoredTensor { file: file.clone(), name: name.clone(), dtype, shape, range };
        tensors.insert(name, tensor);
    }
    Ok(())
}

/// Names the first tensor that does not fit, where that is what is wrong.
fn header_error(file: &SourceFile, error: SafeTensorError) -> LoadError {
    let bytes: &[u8] = &file.map;
    if matches!(error, SafeTensorError::MetadataIncompleteBuffer)
        && let Some((header_len, metadata)) = read_header(bytes)
        && let Some(name) = metadata.offset_keys().into_iter().find(|name| {
            metadata.info(name).is_some_and(|info| 8 + header_len + info.data_offsets.1 > bytes.len())
        })
    {
        let end = metadata.info(&name).map_or(0, |info| 8 + header_len + info.data_offsets.1);
        return LoadError::Truncated {
            path: file.path.clone(),
            what: format!("tensor '{name}'"),
            needed: end as u64,
            found: bytes.len() as u64,
        };
    }
    LoadError::Malformed {
        path: file.path.clone(),
        reason: format!("not a readable safetensors header ({error}); download the file again"),
    }
}

fn read_header(bytes: &[u8]) -> Option<(usize, Metadata)> {
    let header_len = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header = bytes.get(8..header_len.checked_add(8)?)?;
    Some((header_len, serde_json::from_slice(header).ok()?))
}

fn stored_type(dtype: Dtype) -> StoredType {
    match dtype {
        Dtype::F32 => StoredType::Ggml(GgmlDType::F32),
        Dtype::F16 => StoredType::Ggml(GgmlDType::F16),
        Dtype::BF16 => StoredType::Ggml(GgmlDType::BF16),
        Dtype::F64 => StoredType::Other("F64"),
        Dtype::I8 => StoredType::Other("I8"),
        Dtype::U8 => StoredType::Other("U8"),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => StoredType::Other("F8"),
        _ => StoredType::Other("an integer or packed type"),
    }
}
