//! Choosing the tier of all kernels: once a process, so this is a test program of its own.

use baton_kernels::cpu::{MatrixFormat, PackedMatrix, Tier, TierError};

#[test]
fn the_tier_is_chosen_before_the_first_kernel_and_never_again() {
    assert_eq!("avx2".parse(), Ok(Tier::Avx2));
    assert_eq!("AVX".parse::<Tier>(), Err(TierError::Unknown));
    for tier in [Tier::Avx2, Tier::Avx512] {
        if !Tier::supported().contains(&tier) {
            assert_eq!(tier.choose(), Err(TierError::Unsupported { wanted: tier, best: Tier::detected() }));
        }
    }

    assert_eq!(Tier::Portable.choose(), Ok(()));
    assert_eq!(Tier::current(), Tier::Portable);

    let matrix = PackedMatrix::pack(MatrixFormat::F32, 40, 50, |row, out| {
        out.iter_mut().enumerate().for_each(|(k, weight)| *weight = ((row * 7 + k * 3) % 11) as f32 / 7.0);
    })
    .unwrap();
    let x: Vec<f32> = (0..50).map(|k| (k as f32).sin()).collect();
    let (mut chosen, mut portable) = ([0.0; 40], [0.0; 40]);
    matrix.matmul(&x, 1, &mut chosen).unwrap();
    matrix.matmul_on(Tier::Portable, &x, 1, &mut portable).unwrap();
    assert_eq!(chosen.map(f32::to_bits), portable.map(f32::to_bits));

    assert_eq!(Tier::Portable.choose(), Ok(()), "again is no change");
    if Tier::detected() != Tier::Portable {
        assert_eq!(Tier::detected().choose(), Err(TierError::InUse { current: Tier::Portable }));
    }
}
