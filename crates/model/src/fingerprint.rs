//! Names for a model and for the KV memory made with it, so that two processes can tell whether they mean the same.

use crate::config::ModelConfig;
use crate::files::ModelFiles;

/// Bytes looked at in each tensor: its first ones. All of them would mean reading the whole model twice.
const SAMPLE_BYTES: usize = 256;

/// Names a model by its configuration, its tensor table and a sample of every tensor's bytes; not by file names.
pub(crate) fn identity(files: &ModelFiles) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("baton model identity v1");
    hasher.update(format!("{:?}", files.config).as_bytes());
    for (name, tensor) in &files.tensors.tensors {
        hasher.update(format!("{name} {:?} {:?};", tensor.dtype, tensor.shape).as_bytes());
        let bytes = tensor.bytes();
        hasher.update(&bytes[..bytes.len().min(SAMPLE_BYTES)]);
    }
    *hasher.finalize().as_bytes()
}

/// Names a KV layout: the model, and how a block's bytes are arranged.
pub(crate) fn kv_layout(identity: &[u8; 32], config: &ModelConfig, block_size: usize) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("baton cpu kv layout v1");
    hasher.update(identity);
    hasher.update(b"f32 [block][layer] k [kv_head][head_dim][token] v [kv_head][token][head_dim]");
    for size in [config.layers, config.kv_heads, config.head_dim, block_size] {
        hasher.update(&(size as u64).to_le_bytes());
    }
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    fingerprint
}
