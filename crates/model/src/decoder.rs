//! The decoder that all architectures share: embedding, then per layer attention and a gated feed-forward part, each
//! behind an RMS norm and added to the residual (Touvron et al. 2023).
//!
//! Everything is row-major with one row a token, decode sequences and prefill chunks alike: the kernels give a row the
//! same bits whatever the other rows are, so a sequence's numbers never depend on its batch.

use crate::weights::{LayerWeights, Projection, Weights};
use baton_kernels::cpu::{
    AttentionSequence, PagedKv, RopePairs, RopeTable, add_rms_norm, paged_attention, rms_norm, rope_in_place,
    silu_mul,
};
use baton_types::{StepBatch, TokenId};
use rayon::prelude::*;

/// Buffers of the forward pass, kept from step to step: they grow to the largest step seen.
pub(crate) struct Decoder {
    rope: RopeTable,
    /// `[tokens, hidden]`: the residual.
    residual: Vec<f32>,
    /// `[tokens, hidden]`: input of a projection.
    normed: Vec<f32>,
    /// `[tokens, (heads + 2 * kv_heads) * head_dim]`.
    qkv: Vec<f32>,
    /// `[tokens, heads, head_dim]`.
    queries: Vec<f32>,
    /// `[tokens, kv_heads, head_dim]`.
    keys: Vec<f32>,
    /// `[tokens, heads, head_dim]`.
    attention: Vec<f32>,
    /// `[tokens, hidden]`: what a block adds to the residual.
    delta: Vec<f32>,
    /// `[tokens, 2 * ffn]`.
    gate_up: Vec<f32>,
    /// `[tokens, ffn]`.
    gated: Vec<f32>,
}

/// The state of all tokens after the last layer.
pub(crate) struct Hidden<'a> {
    /// `[tokens, hidden]`.
    pub(crate) residual: &'a [f32],
    /// `[tokens, hidden]`: to be added to it.
    pub(crate) delta: &'a [f32],
}

impl Decoder {
    pub(crate) fn new(weights: &Weights) -> Self {
        let rope = RopeTable::new(weights.inverse_frequencies.clone(), 1.0, RopePairs::Halves);
        let new = Vec::new;
        Self {
            rope,
            residual: new(),
            normed: new(),
            qkv: new(),
            queries: new(),
            keys: new(),
            attention: new(),
            delta: new(),
            gate_up: new(),
            gated: new(),
        }
    }

    /// Runs all layers over the step's tokens; `inputs` are its token ids. Keys and values go to their slots.
    pub(crate) fn forward(
        &mut self,
        weights: &Weights,
        kv: &mut PagedKv,
        batch: &StepBatch,
        inputs: &[TokenId],
    ) -> Hidden<'_> {
        self.resize(weights, inputs.len());
        let step = Step::new(weights, batch, &self.rope);
        embed(weights, inputs, &mut self.residual);
        for (index, layer) in weights.layers.iter().enumerate() {
            self.enter(index, &layer.attention_norm, step.norm_eps);
            self.attend(index, layer, &step, kv);
            add_rms_norm(&self.delta, &mut self.residual, &layer.ffn_norm, step.norm_eps, &mut self.normed);
            self.feed_forward(layer, &step);
        }
        Hidden { residual: &self.residual, delta: &self.delta }
    }

    /// Adds what the layer before left, and normalises.
    fn enter(&mut self, layer: usize, norm: &[f32], eps: f32) {
        match layer {
            0 => rms_norm(&self.residual, norm, eps, &mut self.normed),
            _ => add_rms_norm(&self.delta, &mut self.residual, norm, eps, &mut self.normed),
        }
    }

    /// `normed` -> keys and values in the pool, attention over it -> `delta`.
    fn attend(&mut self, index: usize, layer: &LayerWeights, step: &Step<'_>, kv: &mut PagedKv) {
        let config = &step.weights.config;
        let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let row_len = q_len + 2 * kv_len;
        step.project(&layer.qkv, &self.normed, &mut self.qkv);

        let rows = self.qkv.par_chunks(row_len).with_min_len(ROWS_A_TASK);
        let outs = self.queries.par_chunks_mut(q_len).zip(self.keys.par_chunks_mut(kv_len));
        rows.zip(outs).for_each(|(row, (queries, keys))| {
            queries.copy_from_slice(&row[..q_len]);
            keys.copy_from_slice(&row[q_len..][..kv_len]);
        });
        if let Some((q_norm, k_norm)) = &layer.qk_norm {
            rms_norm(&self.queries, q_norm, step.norm_eps, &mut self.attention);
            std::mem::swap(&mut self.queries, &mut self.attention);
            let normed = &mut self.attention[..self.keys.len()];
            rms_norm(&self.keys, k_norm, step.norm_eps, normed);
            self.keys.copy_from_slice(normed);
        }
        rope_in_place(&step.rotation, &mut self.queries, q_len, config.heads, config.head_dim);
        rope_in_place(&step.rotation, &mut self.keys, kv_len, config.kv_heads, config.head_dim);

        let tokens = self.keys.chunks_exact(kv_len).zip(self.qkv.chunks_exact(row_len));
        for (slot, (keys, row)) in step.batch.slot_mapping.iter().zip(tokens) {
            kv.write(index, *slot, keys, &row[q_len + kv_len..]);
        }
        let (heads, scale) = (config.heads, step.scale);
        paged_attention(kv, index, &self.queries, &step.sequences, heads, scale, &mut self.attention)
            .expect("the runner's buffers fit its batch");
        step.project(&layer.output, &self.attention, &mut self.delta);
    }

    /// `normed` -> `delta`.
    fn feed_forward(&mut self, layer: &LayerWeights, step: &Step<'_>) {
        step.project(&layer.gate_up, &self.normed, &mut self.gate_up);
        silu_mul(&self.gate_up, step.weights.config.ffn, &mut self.gated);
        step.project(&layer.down, &self.gated, &mut self.delta);
    }

    fn resize(&mut self, weights: &Weights, tokens: usize) {
        let config = &weights.config;
        let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        for (buffer, len) in [
            (&mut self.residual, config.hidden),
            (&mut self.normed, config.hidden),
            (&mut self.qkv, q_len + 2 * kv_len),
            (&mut self.queries, q_len),
            (&mut self.keys, kv_len),
            (&mut self.attention, q_len),
            (&mut self.delta, config.hidden),
            (&mut self.gate_up, 2 * config.ffn),
            (&mut self.gated, config.ffn),
        ] {
            buffer.resize(tokens * len, 0.0);
        }
    }
}

/// Rows that are worth handing to another thread when there is little to do for each.
const ROWS_A_TASK: usize = 32;

/// What all layers of a step share.
struct Step<'a> {
    weights: &'a Weights,
    batch: &'a StepBatch,
    sequences: Vec<AttentionSequence<'a>>,
    rotation: baton_kernels::cpu::RopeRotation,
    scale: f32,
    norm_eps: f32,
}

impl<'a> Step<'a> {
    fn new(weights: &'a Weights, batch: &'a StepBatch, rope: &RopeTable) -> Self {
        let sequences = batch.sequences.iter().map(|sequence| AttentionSequence {
            tokens: sequence.tokens.clone(),
            context_len: sequence.context_len,
            block_table: &batch.block_ids[sequence.blocks.clone()],
        });
        Self {
            weights,
            batch,
            sequences: sequences.collect(),
            rotation: rope.rotation(&batch.positions),
            scale: 1.0 / (weights.config.head_dim as f32).sqrt(),
            norm_eps: weights.config.norm_eps,
        }
    }

    /// `out = x projectionᵀ + bias`.
    fn project(&self, projection: &Projection, x: &[f32], out: &mut [f32]) {
        let matmul = projection.matrix.matmul(x, self.batch.num_tokens(), out);
        matmul.expect("the runner's buffers fit the checked weights");
        if let Some(bias) = &projection.bias {
            out.par_chunks_mut(bias.len()).with_min_len(ROWS_A_TASK).for_each(|row| {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            });
        }
    }
}

fn embed(weights: &Weights, inputs: &[TokenId], residual: &mut [f32]) {
    let rows = residual.par_chunks_mut(weights.config.hidden).with_min_len(ROWS_A_TASK);
    rows.zip(inputs).for_each(|(row, token)| weights.embedding.read_row(token.0 as usize, row));
}
