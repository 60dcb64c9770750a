use super::{assert_close, bits, on_threads, random};
use baton_kernels::cpu::{MatrixFormat, PackedMatrix, ShapeError, Tier};
use half::f16;

const FORMATS: [MatrixFormat; 4] =
    [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Q8_0, MatrixFormat::Q4_1];

fn packed(format: MatrixFormat, n: usize, k: usize, weights: &[f32]) -> PackedMatrix {
    PackedMatrix::pack(format, n, k, |i, row| row.copy_from_slice(&weights[i * k..][..k]))
        .expect("shapes fit")
}

fn product(matrix: &PackedMatrix, tier: Tier, x: &[f32], rows: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * matrix.n()];
    matrix.matmul_on(tier, x, rows, &mut out).expect("shapes fit");
    out
}

/// Activations as the quantised kernels see them.
fn rounded(x: &[f32]) -> Vec<f32> {
    let round = |block: &[f32]| -> Vec<f32> {
        let max = block.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
        block.iter().map(|x| (x * inverse).round_ties_even() * (max / 127.0)).collect()
    };
    x.chunks(32).flat_map(round).collect()
}

#[test]
fn products_match_a_plain_loop_over_the_stored_weights() {
    for format in FORMATS {
        let quantised = matches!(format, MatrixFormat::Q8_0 | MatrixFormat::Q4_1);
        for (n, k) in [(1, 32), (17, 64), (320, 160), (45, 48), (33, 7)] {
            if quantised && k % 32 != 0 {
                continue;
            }
            let matrix = packed(format, n, k, &random(1, n * k));
            for rows in [1, 2, 3, 5, 29] {
                let x = random(2, rows * k);
                let seen = if quantised { rounded(&x) } else { x.clone() };
                let mut expected = vec![0.0; rows * n];
                let mut weights = vec![0.0; k];
                for i in 0..n {
                    matrix.dequantise_row(i, &mut weights);
                    for r in 0..rows {
                        let dot = |sum: f64, (x, w): (&f32, &f32)| sum + f64::from(*x) * f64::from(*w);
                        expected[r * n + i] = seen[r * k..][..k].iter().zip(&weights).fold(0.0, dot) as f32;
                    }
                }
                for tier in Tier::supported() {
                    let what = format!("{format:?} {n}x{k}, {rows} rows, {tier:?}");
                    assert_close(&product(&matrix, tier, &x, rows), &expected, 3e-5, &what);
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company_and_on_any_number_of_threads() {
    let all: Vec<usize> = (2..=33).collect();
    for format in FORMATS {
        for (n, k, companies) in [(80, 64, &all[..]), (320, 160, &[2, 8, 33]), (1536, 576, &[3, 13])] {
            let matrix = packed(format, n, k, &random(3, n * k));
            let x = random(4, 33 * k);
            for tier in Tier::supported() {
                let alone: Vec<Vec<u32>> =
                    x.chunks(k).map(|row| bits(&product(&matrix, tier, row, 1))).collect();
                for threads in [1, 2] {
                    on_threads(threads, || {
                        for rows in companies {
                            let together = product(&matrix, tier, &x[..rows * k], *rows);
                            for (r, row) in together.chunks(n).enumerate() {
                                let what = format!(
                                    "{format:?} {n}x{k} {tier:?}: row {r} of {rows}, {threads} threads"
                                );
                                assert_eq!(bits(row), alone[r], "{what}");
                            }
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn many_rows_and_panels_cut_into_tasks_leave_no_gap() {
    for format in FORMATS {
        let (n, k, rows) = (2049, 96, 1500);
        let matrix = packed(format, n, k, &random(5, n * k));
        let x = random(6, rows * k);
        let out = on_threads(3, || product(&matrix, Tier::detected(), &x, rows));
        for r in [0, 511, 700, 1499] {
            let alone = product(&matrix, Tier::detected(), &x[r * k..][..k], 1);
            assert_eq!(bits(&out[r * n..][..n]), bits(&alone), "{format:?}: row {r}");
        }
        assert!(out.iter().all(|value| value.is_finite()), "{format:?}: an output was not written");
    }
}

#[test]
fn extreme_quants_do_not_saturate() {
    // Largest quants on both sides: dots of 32 * 15 * 127 and 32 * 128 * 127.
    for tier in Tier::supported() {
        for sign in [1.0, -1.0] {
            let x = vec![sign; 32];
            let mut q4 = vec![0; 20];
            q4[..2].copy_from_slice(&f16::from_f32(1.0).to_bits().to_le_bytes());
            q4[4..].fill(0xff);
            let matrix = PackedMatrix::from_q4_1(32, &[&q4]).expect("one row");
            assert_close(&product(&matrix, tier, &x, 1), &[sign * 480.0], 1e-3, "Q4_1");
            for weight in [-128_i8, 127] {
                let mut q8 = vec![weight as u8; 34];
                q8[..2].copy_from_slice(&f16::from_f32(1.0).to_bits().to_le_bytes());
                let matrix = PackedMatrix::from_q8_0(32, &[&q8]).expect("one row");
                let expected = sign * f32::from(weight) * 32.0;
                assert_close(&product(&matrix, tier, &x, 1), &[expected], 1e-2, "Q8_0");
            }
        }
    }
}

#[test]
fn gguf_blocks_keep_their_weights() {
    let (d, m) = (f16::from_f32(0.25), f16::from_f32(-1.5));
    let nibbles: Vec<u8> = (0..16).map(|j| j | (15 - j) << 4).collect();
    let row = |matrix: &PackedMatrix, i| {
        let mut out = vec![0.0; 32];
        matrix.dequantise_row(i, &mut out);
        out
    };
    let quants: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| q as f32).collect();

    let q4_1 = [&d.to_bits().to_le_bytes()[..], &m.to_bits().to_le_bytes(), &nibbles].concat();
    let zeros = [0; 40];
    let matrix = PackedMatrix::from_q4_1(32, &[&zeros, &q4_1]).expect("three rows");
    assert_eq!((matrix.n(), matrix.k(), matrix.format()), (3, 32, MatrixFormat::Q4_1));
    assert_eq!(row(&matrix, 2), quants.iter().map(|q| 0.25 * q - 1.5).collect::<Vec<_>>());
    assert_eq!(row(&matrix, 1), vec![0.0; 32]);

    let q4_0 = [&d.to_bits().to_le_bytes()[..], &nibbles].concat();
    let matrix = PackedMatrix::from_q4_0(32, &[&q4_0]).expect("one row");
    assert_eq!(row(&matrix, 0), quants.iter().map(|q| 0.25 * (q - 8.0)).collect::<Vec<_>>());

    let bytes: Vec<u8> = (0..32).map(|j| (j as i8 - 16) as u8).collect();
    let q8_0 = [&d.to_bits().to_le_bytes()[..], &bytes].concat();
    let matrix = PackedMatrix::from_q8_0(32, &[&q8_0]).expect("one row");
    assert_eq!(row(&matrix, 0), (-16..16).map(|q| 0.25 * q as f32).collect::<Vec<_>>());
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let pack = |format, n, k| PackedMatrix::pack(format, n, k, |_, row| row.fill(0.0)).map(|_| ());
    assert_eq!(pack(MatrixFormat::Q4_1, 4, 48), Err(ShapeError::PartialBlock { k: 48 }));
    assert_eq!(pack(MatrixFormat::F32, 0, 48), Err(ShapeError::Zero { what: "the number of outputs" }));
    assert!(PackedMatrix::from_q8_0(64, &[&[0; 67]]).is_err());
    let matrix = packed(MatrixFormat::F32, 4, 48, &[0.0; 192]);
    assert!(matrix.matmul(&[0.0; 48], 2, &mut [0.0; 8]).is_err());
    assert!(matrix.matmul(&[0.0; 96], 2, &mut [0.0; 4]).is_err());
}
