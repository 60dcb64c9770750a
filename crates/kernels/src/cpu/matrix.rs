//! Weight matrices in the layout that the kernels stream: outputs interleaved, so that each SIMD lane is one output.

use crate::cpu::activations::{BLOCK, pack_float, pack_quantised, quantised_row_words, with_scratch};
use crate::cpu::matmul_float::{FLOAT_PANEL, FloatTask};
use crate::cpu::matmul_quantised::QuantisedTask;
use crate::cpu::memory::ZeroedBuffer;
use crate::cpu::parallel::{SharedMut, for_each_task, part_range};
use crate::cpu::simd::PANEL;
use crate::cpu::{ShapeError, Tier, check_len};
use half::{bf16, f16};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixFormat {
    /// 4 bytes a weight.
    F32,
    /// The upper half of an f32; 2 bytes a weight. Products and sums are f32.
    Bf16,
    /// Blocks of 32 bytes with an f16 scale: `w = d q`, q in [-128, 127]; 34 bytes a block. Activations are quantised
    /// to 8 bits, a scale for each block.
    Q8_0,
    /// Blocks of 32 half bytes with an f16 scale and minimum: `w = d q + m`, q in [0, 15]; 20 bytes a block. GGUF's
    /// Q4_0 is the case `m = -8 d`. Activations as for `Q8_0`.
    Q4_1,
}

impl MatrixFormat {
    fn is_quantised(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_1)
    }

    /// Outputs that one panel interleaves.
    fn panel_width(self) -> usize {
        if self.is_quantised() { PANEL } else { FLOAT_PANEL }
    }

    /// Bytes of one panel of rows of `k` weights, rounded up to a cache line.
    pub(crate) fn panel_bytes(self, k: usize) -> usize {
        let bytes = match self {
            Self::F32 => FLOAT_PANEL * k * 4,
            Self::Bf16 => FLOAT_PANEL * k * 2,
            Self::Q8_0 => PANEL * (k / BLOCK) * 34,
            Self::Q4_1 => PANEL * (k / BLOCK) * 20,
        };
        bytes.next_multiple_of(64)
    }

    /// Bytes of the quants of one panel's block.
    fn block_bytes(self) -> usize {
        if self == Self::Q4_1 { PANEL * BLOCK / 2 } else { PANEL * BLOCK }
    }
}

/// A weight matrix `[n outputs, k inputs]`.
///
/// Panels of 32 (float) or 16 (quantised) outputs lie one after another, the last one padded with zeros.
/// Float: `[k][32]`. Quantised: the quants of all blocks, `[k / 32]` times `[8 or 4 groups][16 outputs][4 bytes]`, then
/// `[k / 32]` times 16 scales (f16) and, for `Q4_1`, 16 minima.
pub struct PackedMatrix {
    n: usize,
    k: usize,
    format: MatrixFormat,
    data: ZeroedBuffer<u8>,
}

impl PackedMatrix {
    /// Packs `n` rows of `k` weights; `row(i, buffer)` writes row `i`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// [`ShapeError`] for an empty matrix, or a quantised format whose blocks `k` does not fill.
    pub fn pack(
        format: MatrixFormat,
        n: usize,
        k: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, ShapeError> {
        let mut matrix = Self::zeroed(format, n, k)?;
        let width = format.panel_width();
        matrix.fill_panels(|panel, first, lanes| {
            let mut buffer = vec![0.0; k];
            for lane in 0..lanes {
                row(first + lane, &mut buffer);
                match format {
                    MatrixFormat::F32 => {
                        for (to, w) in panel.chunks_exact_mut(4 * width).zip(&buffer) {
                            to[4 * lane..][..4].copy_from_slice(&w.to_ne_bytes());
                        }
                    }
                    MatrixFormat::Bf16 => {
                        for (to, w) in panel.chunks_exact_mut(2 * width).zip(&buffer) {
                            to[2 * lane..][..2].copy_from_slice(&bf16::from_f32(*w).to_bits().to_ne_bytes());
                        }
                    }
                    MatrixFormat::Q8_0 | MatrixFormat::Q4_1 => {
                        for (index, w) in buffer.chunks_exact(BLOCK).enumerate() {
                            QuantisedBlock::quantise(format, w).store(format, k, panel, index, lane);
                        }
                    }
                }
            }
        });
        Ok(matrix)
    }

    /// Takes over the blocks of GGUF `Q4_1` tensors with rows of `k` weights, stacked; the weights stay as they are.
    ///
    /// # Errors
    /// [`ShapeError`] if the bytes are not whole rows.
    pub fn from_q4_1(k: usize, tensors: &[&[u8]]) -> Result<Self, ShapeError> {
        Self::from_blocks(MatrixFormat::Q4_1, k, tensors, 20, |block| QuantisedBlock {
            scale: read_u16(block, 0),
            minimum: read_u16(block, 2),
            q: array(&block[4..], 16),
        })
    }

    /// Takes over the blocks of GGUF `Q4_0` tensors; see [`from_q4_1`](Self::from_q4_1).
    ///
    /// # Errors
    /// [`ShapeError`] if the bytes are not whole rows.
    pub fn from_q4_0(k: usize, tensors: &[&[u8]]) -> Result<Self, ShapeError> {
        Self::from_blocks(MatrixFormat::Q4_1, k, tensors, 18, |block| {
            let scale = read_u16(block, 0);
            // Eight times an f16 is exact, up to scales that no model has.
            let minimum = f16::from_f32(-8.0 * f16::from_bits(scale).to_f32()).to_bits();
            QuantisedBlock { scale, minimum, q: array(&block[2..], 16) }
        })
    }

    /// Takes over the blocks of GGUF `Q8_0` tensors; see [`from_q4_1`](Self::from_q4_1).
    ///
    /// # Errors
    /// [`ShapeError`] if the bytes are not whole rows.
    pub fn from_q8_0(k: usize, tensors: &[&[u8]]) -> Result<Self, ShapeError> {
        Self::from_blocks(MatrixFormat::Q8_0, k, tensors, 34, |block| QuantisedBlock {
            scale: read_u16(block, 0),
            minimum: 0,
            q: array(&block[2..], 32).map(|q| q ^ 0x80),
        })
    }

    fn from_blocks(
        format: MatrixFormat,
        k: usize,
        tensors: &[&[u8]],
        block_bytes: usize,
        parse: impl Fn(&[u8]) -> QuantisedBlock + Sync,
    ) -> Result<Self, ShapeError> {
        if !k.is_multiple_of(BLOCK) {
            return Err(ShapeError::PartialBlock { k });
        }
        let row_bytes = (k / BLOCK * block_bytes).max(1);
        for tensor in tensors {
            let whole = tensor.len().next_multiple_of(row_bytes);
            check_len("bytes of a quantised tensor", tensor.len(), whole)?;
        }
        let rows: Vec<&[u8]> = tensors.iter().flat_map(|tensor| tensor.chunks_exact(row_bytes)).collect();
        let mut matrix = Self::zeroed(format, rows.len(), k)?;
        matrix.fill_panels(|panel, first, lanes| {
            for lane in 0..lanes {
                for (index, block) in rows[first + lane].chunks_exact(block_bytes).enumerate() {
                    parse(block).store(format, k, panel, index, lane);
                }
            }
        });
        Ok(matrix)
    }

    fn zeroed(format: MatrixFormat, n: usize, k: usize) -> Result<Self, ShapeError> {
        for (what, size) in [("the number of outputs", n), ("the number of inputs", k)] {
            if size == 0 {
                return Err(ShapeError::Zero { what });
            }
        }
        if format.is_quantised() && !k.is_multiple_of(BLOCK) {
            return Err(ShapeError::PartialBlock { k });
        }
        let data = ZeroedBuffer::new(n.div_ceil(format.panel_width()) * format.panel_bytes(k));
        Ok(Self { n, k, format, data })
    }

    /// Calls `fill(panel bytes, first output, outputs)` for every panel, in parallel.
    fn fill_panels(&mut self, fill: impl Fn(&mut [u8], usize, usize) + Sync) {
        let (n, width, bytes) = (self.n, self.format.panel_width(), self.format.panel_bytes(self.k));
        let data = SharedMut::new(&mut self.data);
        for_each_task(n.div_ceil(width), |panel| {
            // SAFETY: panels are disjoint, and each is visited by one task.
            let bytes = unsafe { data.slice(panel * bytes..(panel + 1) * bytes) };
            fill(bytes, panel * width, width.min(n - panel * width));
        });
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How the weights are stored.
    pub fn format(&self) -> MatrixFormat {
        self.format
    }

    /// Bytes of memory, padding included: what a product with one row streams.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// `out = x * transposed(self)`: x is `[rows, k]`, out `[rows, n]`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// [`ShapeError`] if a buffer's length is wrong.
    pub fn matmul(&self, x: &[f32], rows: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        self.matmul_on(Tier::current(), x, rows, out)
    }

    /// [`matmul`](Self::matmul) with the instructions of `tier`.
    ///
    /// # Errors
    /// [`ShapeError`] if a buffer's length is wrong.
    pub fn matmul_on(&self, tier: Tier, x: &[f32], rows: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        check_len("activations", x.len(), rows * self.k)?;
        check_len("outputs", out.len(), rows * self.n)?;
        let max_height = tier.tile_rows(self.format.is_quantised());
        if self.format.is_quantised() {
            with_scratch(rows * quantised_row_words(self.k), |packed| {
                pack_quantised(tier, x, self.k, rows, max_height, packed);
                self.multiply(tier, packed, quantised_row_words(self.k), rows, max_height, out);
            });
        } else {
            with_scratch(rows * self.k, |packed| {
                pack_float(x, self.k, rows, max_height, packed);
                self.multiply(tier, packed, self.k, rows, max_height, out);
            });
        }
        Ok(())
    }

    /// Cuts the product into tasks of some panels and some rows.
    fn multiply(
        &self,
        tier: Tier,
        x: &[f32],
        x_words: usize,
        rows: usize,
        max_height: usize,
        out: &mut [f32],
    ) {
        let panels = self.n.div_ceil(self.format.panel_width());
        let rows_a_task = rows_a_task(x_words, max_height).min(rows.max(1));
        let row_tasks = rows.div_ceil(rows_a_task);
        let panel_tasks = panel_tasks(panels, row_tasks, self.bytes());
        let out = SharedMut::new(out);
        for_each_task(panel_tasks * row_tasks, |task| {
            let first_row = task / panel_tasks * rows_a_task;
            let product = Product {
                weights: &self.data,
                panel_bytes: self.format.panel_bytes(self.k),
                n: self.n,
                k: self.k,
                panels: part_range(panels, panel_tasks, task % panel_tasks),
                x: &x[first_row * x_words..],
                x_words,
                rows: rows_a_task.min(rows - first_row),
                out,
                first_row,
            };
            match self.format {
                MatrixFormat::F32 => tier.run(FloatTask::<f32>::new(product)),
                MatrixFormat::Bf16 => tier.run(FloatTask::<bf16>::new(product)),
                MatrixFormat::Q8_0 => tier.run(QuantisedTask::<false>(product)),
                MatrixFormat::Q4_1 => tier.run(QuantisedTask::<true>(product)),
            }
        });
    }

    /// Row `i` as f32: `out` has `k` elements. For embeddings tied to the output matrix.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub fn dequantise_row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n, "row {i} of {}", self.n);
        assert_eq!(out.len(), self.k, "elements of a row");
        let (width, bytes) = (self.format.panel_width(), self.format.panel_bytes(self.k));
        let (panel, lane) = (&self.data[i / width * bytes..][..bytes], i % width);
        match self.format {
            MatrixFormat::F32 => {
                for (out, lanes) in out.iter_mut().zip(panel.chunks_exact(4 * width)) {
                    *out = f32::from_ne_bytes(lanes[4 * lane..][..4].try_into().expect("4 bytes"));
                }
            }
            MatrixFormat::Bf16 => {
                for (out, lanes) in out.iter_mut().zip(panel.chunks_exact(2 * width)) {
                    *out = bf16::from_bits(read_u16(lanes, 2 * lane)).to_f32();
                }
            }
            MatrixFormat::Q8_0 | MatrixFormat::Q4_1 => {
                for (index, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                    QuantisedBlock::load(self.format, self.k, panel, index, lane)
                        .dequantise(self.format, out);
                }
            }
        }
    }
}

/// One task of a product: some panels times some rows.
pub(crate) struct Product<'a> {
    /// All panels.
    pub(crate) weights: &'a [u8],
    pub(crate) panel_bytes: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Panels of this task.
    pub(crate) panels: std::ops::Range<usize>,
    /// Packed activations from this task's first row on, `x_words` a row.
    pub(crate) x: &'a [f32],
    pub(crate) x_words: usize,
    /// Rows of this task.
    pub(crate) rows: usize,
    /// All outputs, `[rows, n]`; this task writes its panels' columns of its rows.
    pub(crate) out: SharedMut<f32>,
    pub(crate) first_row: usize,
}

/// Rows whose packed activations stay in a second-level cache (half of 512 KiB, AMD's smallest) while panels pass by.
fn rows_a_task(x_words: usize, max_height: usize) -> usize {
    (256 * 1024 / 4 / x_words).next_multiple_of(max_height).max(4 * max_height)
}

/// Enough tasks to balance the threads, none so small that taking it costs more than computing it.
fn panel_tasks(panels: usize, row_tasks: usize, bytes: usize) -> usize {
    /// Bytes of weights that take about 2 µs to stream.
    const BYTES_A_TASK_MIN: usize = 32 * 1024;
    /// Four turns a thread: the last one to finish is at most a quarter of a share late.
    const TASKS_A_THREAD: usize = 4;
    let threads = rayon::current_num_threads();
    if threads == 1 {
        return 1;
    }
    (threads * TASKS_A_THREAD).div_ceil(row_tasks.max(1)).min(bytes / BYTES_A_TASK_MIN).clamp(1, panels)
}

/// One block of one row: f16 bits, and quants in GGUF's order (`Q4_1`: byte `j` holds weight `j` low, `j + 16` high;
/// 16 of the 32 bytes are used), offset by 128 for `Q8_0`.
struct QuantisedBlock {
    scale: u16,
    minimum: u16,
    q: [u8; BLOCK],
}

impl QuantisedBlock {
    fn quantise(format: MatrixFormat, w: &[f32]) -> Self {
        let mut q = [0; BLOCK];
        if format == MatrixFormat::Q8_0 {
            let max = w.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
            let scale = f16::from_f32(max / 127.0);
            let inverse = inverse(scale);
            for (q, w) in q.iter_mut().zip(w) {
                *q = ((w * inverse).round().clamp(-127.0, 127.0) as i32 + 128) as u8;
            }
            return Self { scale: scale.to_bits(), minimum: 0, q };
        }
        let (min, max) = w.iter().fold((f32::MAX, f32::MIN), |(min, max), w| (min.min(*w), max.max(*w)));
        let minimum = f16::from_f32(min);
        let scale = f16::from_f32((max - minimum.to_f32()) / 15.0);
        let inverse = inverse(scale);
        for (j, w) in w.iter().enumerate() {
            let nibble = ((w - minimum.to_f32()) * inverse).round().clamp(0.0, 15.0) as u8;
            q[j % 16] |= nibble << (j / 16 * 4);
        }
        Self { scale: scale.to_bits(), minimum: minimum.to_bits(), q }
    }

    fn dequantise(&self, format: MatrixFormat, out: &mut [f32]) {
        let scale = f16::from_bits(self.scale).to_f32();
        let minimum = f16::from_bits(self.minimum).to_f32();
        for (j, out) in out.iter_mut().enumerate() {
            *out = match format {
                MatrixFormat::Q4_1 => f32::from(self.q[j % 16] >> (j / 16 * 4) & 15) * scale + minimum,
                _ => (f32::from(self.q[j]) - 128.0) * scale,
            };
        }
    }

    fn store(&self, format: MatrixFormat, k: usize, panel: &mut [u8], index: usize, lane: usize) {
        let bytes = format.block_bytes();
        for (group, q) in self.q[..bytes / PANEL].chunks_exact(4).enumerate() {
            panel[index * bytes + group * 4 * PANEL + 4 * lane..][..4].copy_from_slice(q);
        }
        let (scale_at, minimum_at) = scale_offsets(format, k, index, lane);
        panel[scale_at..][..2].copy_from_slice(&self.scale.to_ne_bytes());
        if format == MatrixFormat::Q4_1 {
            panel[minimum_at..][..2].copy_from_slice(&self.minimum.to_ne_bytes());
        }
    }

    fn load(format: MatrixFormat, k: usize, panel: &[u8], index: usize, lane: usize) -> Self {
        let bytes = format.block_bytes();
        let mut q = [0; BLOCK];
        for (group, q) in q[..bytes / PANEL].chunks_exact_mut(4).enumerate() {
            q.copy_from_slice(&panel[index * bytes + group * 4 * PANEL + 4 * lane..][..4]);
        }
        let (scale_at, minimum_at) = scale_offsets(format, k, index, lane);
        let minimum = if format == MatrixFormat::Q4_1 { read_u16(panel, minimum_at) } else { 0 };
        Self { scale: read_u16(panel, scale_at), minimum, q }
    }
}

/// Where a panel keeps the scale and the minimum of one lane's block.
fn scale_offsets(format: MatrixFormat, k: usize, index: usize, lane: usize) -> (usize, usize) {
    let per_block = if format == MatrixFormat::Q4_1 { 4 * PANEL } else { 2 * PANEL };
    let scale = k / BLOCK * format.block_bytes() + index * per_block + 2 * lane;
    (scale, scale + 2 * PANEL)
}

fn inverse(scale: f16) -> f32 {
    if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 }
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn array(bytes: &[u8], len: usize) -> [u8; BLOCK] {
    let mut array = [0; BLOCK];
    array[..len].copy_from_slice(&bytes[..len]);
    array
}
