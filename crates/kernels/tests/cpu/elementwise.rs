use super::{assert_close, bits, on_threads, random};
use baton_kernels::cpu::{
    RopePairs, RopeTable, Tier, add_rms_norm_on, rms_norm_on, rope_in_place, silu_mul_on,
};

#[test]
fn rms_norm_matches_its_formula() {
    let (x, weight) = (random(1, 3 * 37), random(2, 37));
    let mut expected = Vec::new();
    for row in x.chunks(37) {
        let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 37.0;
        expected.extend(
            row.iter().zip(&weight).map(|(x, w)| f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*w)),
        );
    }
    let expected: Vec<f32> = expected.into_iter().map(|x| x as f32).collect();
    for tier in Tier::supported() {
        let mut out = vec![0.0; x.len()];
        rms_norm_on(tier, &x, &weight, 1e-5, &mut out);
        assert_close(&out, &expected, 1e-6, &format!("{tier:?}"));

        let half: Vec<f32> = x.iter().map(|x| x / 2.0).collect();
        let mut residual = half.clone();
        let mut fused = vec![0.0; x.len()];
        add_rms_norm_on(tier, &half, &mut residual, &weight, 1e-5, &mut fused);
        assert_eq!(residual, x, "{tier:?}: halves add up exactly");
        assert_eq!(bits(&fused), bits(&out), "{tier:?}");
    }
}

#[test]
fn silu_mul_matches_its_formula_also_far_out() {
    let ffn = 21;
    let mut gate_up: Vec<f32> = random(3, 2 * 2 * ffn).iter().map(|x| 20.0 * x).collect();
    (gate_up[0], gate_up[1]) = (-1000.0, 1000.0);
    for tier in Tier::supported() {
        let mut out = vec![f32::NAN; 2 * ffn];
        silu_mul_on(tier, &gate_up, ffn, &mut out);
        for (row, out) in gate_up.chunks(2 * ffn).zip(out.chunks(ffn)) {
            for i in 0..ffn {
                let (gate, up) = (f64::from(row[i]), f64::from(row[ffn + i]));
                let expected = gate / (1.0 + (-gate).exp()) * up;
                let error = (f64::from(out[i]) - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs() + 1e-30,
                    "{tier:?}: {gate} {up} gives {}, not {expected}",
                    out[i]
                );
            }
        }
    }
}

#[test]
fn elementwise_rows_do_not_depend_on_company_or_threads() {
    let (rows, len) = (80, 576);
    let (x, weight) = (random(4, rows * 2 * len), random(5, len));
    for tier in Tier::supported() {
        let run = |threads, x: &[f32]| {
            on_threads(threads, || {
                let (mut norm, mut silu) = (vec![0.0; x.len()], vec![0.0; x.len() / 2]);
                rms_norm_on(tier, x, &weight, 1e-5, &mut norm);
                silu_mul_on(tier, x, len, &mut silu);
                (bits(&norm), bits(&silu))
            })
        };
        let (norm, silu) = run(2, &x);
        assert_eq!((norm.clone(), silu.clone()), run(1, &x), "{tier:?}");
        let (norm_alone, silu_alone) = run(1, &x[70 * 2 * len..][..2 * len]);
        assert_eq!(norm_alone, norm[140 * len..][..2 * len], "{tier:?}");
        assert_eq!(silu_alone, silu[70 * len..][..len], "{tier:?}");
    }
}

#[test]
fn rope_turns_pairs_by_position() {
    // Two pairs, a quarter turn and a half turn a position; one head, one element that stays.
    let inv_freq = vec![std::f32::consts::FRAC_PI_2, std::f32::consts::PI];
    let turned = |pairs, x: [f32; 5]| {
        let rotation = RopeTable::new(inv_freq.clone(), 1.0, pairs).rotation(&[0, 1]);
        let mut x = [x, x].concat();
        rope_in_place(&rotation, &mut x, 5, 1, 4);
        x
    };
    let halves = turned(RopePairs::Halves, [1.0, 2.0, 3.0, 4.0, 9.0]);
    assert_close(&halves, &[1.0, 2.0, 3.0, 4.0, 9.0, -3.0, -2.0, 1.0, -4.0, 9.0], 1e-5, "halves");
    let interleaved = turned(RopePairs::Interleaved, [1.0, 2.0, 3.0, 4.0, 9.0]);
    assert_close(&interleaved, &[1.0, 2.0, 3.0, 4.0, 9.0, -2.0, 1.0, -3.0, -4.0, 9.0], 1e-5, "interleaved");
}

#[test]
fn rope_table_from_theta() {
    let rotation = RopeTable::with_theta(10_000.0, 4, RopePairs::Halves).rotation(&[3]);
    let mut x = [1.0, 1.0, 0.0, 0.0];
    rope_in_place(&rotation, &mut x, 4, 1, 4);
    assert_close(&x, &[3.0_f32.cos(), 0.03_f32.cos(), 3.0_f32.sin(), 0.03_f32.sin()], 1e-6, "theta");
}
