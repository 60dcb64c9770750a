//! A model's weights, packed for the kernels and shared by every runner of the process.

mod checked;

use crate::arch;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::files::ModelFiles;
use crate::fingerprint;
use crate::format::{Packing, WeightsFormat};
use crate::source::dequantise;
use baton_kernels::cpu::PackedMatrix;
use candle_core::quantized::GgmlDType;
use checked::{CheckedLayer, CheckedMatrix, CheckedModel};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// All weights of a model. Immutable; runners share it by `Arc`.
pub struct Weights {
    pub(crate) config: ModelConfig,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<LayerWeights>,
    /// `[hidden]`.
    pub(crate) final_norm: Vec<f32>,
    /// `[vocab, hidden]`.
    pub(crate) lm_head: Arc<PackedMatrix>,
    /// `[head_dim / 2]`, radians a position.
    pub(crate) inverse_frequencies: Vec<f32>,
    /// Names the model: see [`crate::fingerprint`].
    pub(crate) identity: [u8; 32],
    format: WeightsFormat,
}

/// One decoder layer.
pub(crate) struct LayerWeights {
    /// `[hidden]`.
    pub(crate) attention_norm: Vec<f32>,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`: queries, keys, values.
    pub(crate) qkv: Projection,
    /// `[head_dim]` each.
    pub(crate) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `[hidden, heads * head_dim]`.
    pub(crate) output: Projection,
    /// `[hidden]`.
    pub(crate) ffn_norm: Vec<f32>,
    /// `[2 * ffn, hidden]`: gates, then ups.
    pub(crate) gate_up: Projection,
    /// `[hidden, ffn]`.
    pub(crate) down: Projection,
}

/// A linear map.
pub(crate) struct Projection {
    /// `[n, k]`.
    pub(crate) matrix: PackedMatrix,
    /// `[n]`.
    pub(crate) bias: Option<Vec<f32>>,
}

/// Where a token's first hidden state comes from.
pub(crate) enum Embedding {
    /// The output projection's rows: the model ties the two, and keeping one copy saves as much as both.
    Tied(Arc<PackedMatrix>),
    /// Rows as the file stores them, copied: a file that changes under a running server must not change the model.
    Stored {
        /// Element type of the rows.
        dtype: GgmlDType,
        /// All rows.
        bytes: Vec<u8>,
        /// Bytes of one.
        row_size: usize,
    },
}

impl Embedding {
    /// Writes the row of `token` to `out` (`[hidden]`).
    pub(crate) fn read_row(&self, token: usize, out: &mut [f32]) {
        match self {
            Self::Tied(matrix) => matrix.dequantise_row(token, out),
            Self::Stored { dtype, bytes, row_size } => {
                dequantise(*dtype, &bytes[token * row_size..][..*row_size], out);
            }
        }
    }
}

impl Weights {
    /// The model's sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How the weights were asked to be packed.
    pub fn format(&self) -> WeightsFormat {
        self.format
    }

    /// Names the model's contents: equal for the same file wherever it lies, on every machine.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Bytes of memory that the matrices take.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|l| [&l.qkv, &l.output, &l.gate_up, &l.down]);
        let embedding = match &self.embedding {
            Embedding::Tied(_) => 0,
            Embedding::Stored { bytes, .. } => bytes.len(),
        };
        layers.map(|projection| projection.matrix.bytes()).sum::<usize>() + self.lm_head.bytes() + embedding
    }
}

/// Checks everything, then packs everything.
pub(crate) fn load(
    files: &ModelFiles,
    format: WeightsFormat,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Weights, LoadError> {
    let started = Instant::now();
    let checked = CheckedModel::new(files)?;
    let check_time = started.elapsed();
    let total = 4 * checked.layers.len() + 1;
    let done = AtomicUsize::new(0);
    let report = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);

    let ((lm_head, embedding), layers) = rayon::join(
        || {
            let lm_head = Arc::new(pack(&checked.lm_head, format));
            report();
            (lm_head.clone(), embedding(&checked, lm_head))
        },
        || checked.layers.par_iter().map(|layer| pack_layer(layer, format, &report)).collect::<Vec<_>>(),
    );
    let weights = Weights {
        config: files.config.clone(),
        embedding,
        layers,
        final_norm: checked.final_norm,
        lm_head,
        inverse_frequencies: arch::inverse_frequencies(&files.config),
        identity: fingerprint::identity(files),
        format,
    };
    tracing::info!(
        model = files.name,
        stored_as = files.stored_as,
        format = %format,
        megabytes = weights.bytes() / 1_000_000,
        open_ms = files.open_time.as_millis() as u64,
        check_ms = check_time.as_millis() as u64,
        pack_ms = (started.elapsed() - check_time).as_millis() as u64,
        "weights loaded"
    );
    Ok(weights)
}

fn embedding(checked: &CheckedModel, lm_head: Arc<PackedMatrix>) -> Embedding {
    match &checked.embedding {
        None => Embedding::Tied(lm_head),
        Some((tensor, dtype)) => Embedding::Stored {
            dtype: *dtype,
            bytes: tensor.bytes().to_vec(),
            row_size: tensor.row_bytes(0).len(),
        },
    }
}

fn pack_layer(layer: &CheckedLayer, format: WeightsFormat, report: &(dyn Fn() + Sync)) -> LayerWeights {
    let project = |matrix: &CheckedMatrix| {
        let packed = pack(matrix, format);
        report();
        Projection { matrix: packed, bias: matrix.bias.clone() }
    };
    LayerWeights {
        attention_norm: layer.attention_norm.clone(),
        qkv: project(&layer.qkv),
        qk_norm: layer.qk_norm.clone(),
        output: project(&layer.output),
        ffn_norm: layer.ffn_norm.clone(),
        gate_up: project(&layer.gate_up),
        down: project(&layer.down),
    }
}

/// Packs a checked matrix; its rows, types and lengths fit by now.
fn pack(matrix: &CheckedMatrix, format: WeightsFormat) -> PackedMatrix {
    let packed = match format.packing(&matrix.dtypes(), matrix.k) {
        Packing::Repack(format) => PackedMatrix::pack(format, matrix.n, matrix.k, |row, out| {
            let (tensor, dtype, row) = matrix.row(row);
            dequantise(dtype, tensor.row_bytes(row), out);
        }),
        Packing::AsStored(dtype) => {
            let rows: Vec<&[u8]> = matrix.stored_rows();
            match dtype {
                GgmlDType::Q4_0 => PackedMatrix::from_q4_0(matrix.k, &rows),
                GgmlDType::Q4_1 => PackedMatrix::from_q4_1(matrix.k, &rows),
                _ => PackedMatrix::from_q8_0(matrix.k, &rows),
            }
        }
    };
    packed.unwrap_or_else(|error| unreachable!("a checked matrix cannot be packed: {error}"))
}
