//! The tensors of a model, found and checked against its configuration: after this, packing cannot fail.

use crate::arch::TensorNames;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::files::ModelFiles;
use crate::source::{StoredTensor, TensorTable};
use candle_core::quantized::GgmlDType;

/// Every tensor of a model.
pub(crate) struct CheckedModel {
    /// `None`: tied to `lm_head`.
    pub(crate) embedding: Option<(StoredTensor, GgmlDType)>,
    pub(crate) lm_head: CheckedMatrix,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) layers: Vec<CheckedLayer>,
}

/// Every tensor of a layer.
pub(crate) struct CheckedLayer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) qkv: CheckedMatrix,
    pub(crate) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    pub(crate) output: CheckedMatrix,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate_up: CheckedMatrix,
    pub(crate) down: CheckedMatrix,
}

/// A matrix made of one or more tensors, stacked by rows.
pub(crate) struct CheckedMatrix {
    /// Rows of all parts.
    pub(crate) n: usize,
    /// Elements of a row.
    pub(crate) k: usize,
    /// `[n]`, in the order of the rows.
    pub(crate) bias: Option<Vec<f32>>,
    parts: Vec<Part>,
}

struct Part {
    tensor: StoredTensor,
    dtype: GgmlDType,
    order: RowOrder,
}

/// In which order a tensor's rows are stored.
#[derive(Clone, Copy)]
enum RowOrder {
    /// As we need them.
    Plain,
    /// Within each head, the two halves that rope rotates together are interleaved.
    Interleaved {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// Where our row `row` is stored.
    fn stored(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Interleaved { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
                head * head_dim + 2 * pair + half
            }
        }
    }
}

impl CheckedMatrix {
    /// The tensor of our row `row`, its type, and the row in it.
    pub(crate) fn row(&self, mut row: usize) -> (&StoredTensor, GgmlDType, usize) {
        for part in &self.parts {
            let rows = part.tensor.shape[0];
            if row < rows {
                return (&part.tensor, part.dtype, part.order.stored(row));
            }
            row -= rows;
        }
        unreachable!("row {row} past the end of a matrix of {} rows", self.n)
    }

    /// The stored types of the parts.
    pub(crate) fn dtypes(&self) -> Vec<GgmlDType> {
        self.parts.iter().map(|part| part.dtype).collect()
    }

    /// The stored bytes of all rows in our order; runs of rows that lie in order are one slice.
    pub(crate) fn stored_rows(&self) -> Vec<&[u8]> {
        let mut rows = Vec::new();
        for part in &self.parts {
            match part.order {
                RowOrder::Plain => rows.push(part.tensor.bytes()),
                order => {
                    rows.extend(
                        (0..part.tensor.shape[0]).map(|row| part.tensor.row_bytes(order.stored(row))),
                    );
                }
            }
        }
        rows
    }
}

impl CheckedModel {
    /// Finds and checks all tensors.
    pub(crate) fn new(files: &ModelFiles) -> Result<Self, LoadError> {
        let spec = files.config.architecture.spec();
        let names = if files.is_gguf { spec.gguf } else { spec.hugging_face };
        let rope_order = if files.is_gguf && spec.gguf_rows_interleaved {
            RowOrder::Interleaved { head_dim: files.config.head_dim }
        } else {
            RowOrder::Plain
        };
        let finder = Finder { tensors: &files.tensors, config: &files.config, names, rope_order };
        let ModelConfig { vocab, hidden, .. } = files.config;
        let tied = files.config.tie_embeddings;
        let lm_head = if tied { names.embedding } else { names.lm_head };
        let embedding = files.tensors.require(names.embedding, &[vocab, hidden])?;
        Ok(Self {
            lm_head: finder.stack(hidden, &[(lm_head.to_owned(), vocab, RowOrder::Plain)], None)?,
            embedding: if tied { None } else { Some((embedding.clone(), embedding.ggml_dtype()?)) },
            final_norm: files.tensors.require(names.final_norm, &[hidden])?.to_vec()?,
            layers: (0..files.config.layers).map(|index| finder.layer(index)).collect::<Result<_, _>>()?,
        })
    }
}

struct Finder<'a> {
    tensors: &'a TensorTable,
    config: &'a ModelConfig,
    names: TensorNames,
    rope_order: RowOrder,
}

impl Finder<'_> {
    fn layer(&self, index: usize) -> Result<CheckedLayer, LoadError> {
        let ModelConfig { hidden, heads, kv_heads, head_dim, ffn, .. } = *self.config;
        let name = |suffix| self.names.layer(index, suffix);
        let vector = |suffix, len: usize| self.tensors.require(&name(suffix), &[len])?.to_vec();
        let (q_rows, kv_rows) = (heads * head_dim, kv_heads * head_dim);
        let names = &self.names;
        let qkv_bias = self.config.qkv_bias.then_some([names.q_bias, names.k_bias, names.v_bias]);
        let plain = RowOrder::Plain;
        Ok(CheckedLayer {
            attention_norm: vector(names.attention_norm, hidden)?,
            qkv: self.stack(
                hidden,
                &[
                    (name(names.q), q_rows, self.rope_order),
                    (name(names.k), kv_rows, self.rope_order),
                    (name(names.v), kv_rows, plain),
                ],
                qkv_bias.map(|biases| biases.map(name)).as_ref().map(|biases| biases.as_slice()),
            )?,
            qk_norm: match self.config.qk_norm {
                true => Some((vector(names.q_norm, head_dim)?, vector(names.k_norm, head_dim)?)),
                false => None,
            },
            output: self.stack(
                q_rows,
                &[(name(names.output), hidden, plain)],
                self.config
                    .output_bias
                    .then(|| [name(names.output_bias)])
                    .as_ref()
                    .map(|bias| bias.as_slice()),
            )?,
            ffn_norm: vector(names.ffn_norm, hidden)?,
            gate_up: self.stack(
                hidden,
                &[(name(names.gate), ffn, plain), (name(names.up), ffn, plain)],
                None,
            )?,
            down: self.stack(ffn, &[(name(names.down), hidden, plain)], None)?,
        })
    }

    /// Stacks tensors of `k` columns, and their biases if there are any.
    fn stack(
        &self,
        k: usize,
        parts: &[(String, usize, RowOrder)],
        biases: Option<&[String]>,
    ) -> Result<CheckedMatrix, LoadError> {
        let mut checked = Vec::new();
        for (name, rows, order) in parts {
            let tensor = self.tensors.require(name, &[*rows, k])?;
            checked.push(Part { tensor: tensor.clone(), dtype: tensor.ggml_dtype()?, order: *order });
        }
        let mut bias = biases.map(|_| Vec::new());
        for ((_, rows, order), name) in parts.iter().zip(biases.unwrap_or_default()) {
            let stored = self.tensors.require(name, &[*rows])?.to_vec()?;
            bias.get_or_insert_default().extend((0..*rows).map(|row| stored[order.stored(row)]));
        }
        Ok(CheckedMatrix { n: parts.iter().map(|(_, rows, _)| rows).sum(), k, bias, parts: checked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_go_back_to_their_halves() {
        let order = RowOrder::Interleaved { head_dim: 6 };
        let stored: Vec<_> = (0..12).map(|row| order.stored(row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
