//! Which instructions to use, decided at run time, and how generic kernels are compiled for each.

#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{Portable, Simd};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use thiserror::Error;

/// A set of instructions that kernels are compiled for. Results may differ between tiers in the last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Plain code: the reference, and what other architectures run.
    Portable,
    /// AVX2 with FMA and F16C: x86 servers since 2013 (Intel) and 2015 (AMD).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI: Intel since Cascade Lake, AMD since Zen 4. Chips with AVX-512 but no VNNI run the
    /// AVX2 tier.
    Avx512,
}

/// The tier that kernels run on when nobody names one. Set once, by [`Tier::choose`] or by the first kernel.
static CURRENT: OnceLock<Tier> = OnceLock::new();

/// Why a tier cannot be had.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TierError {
    /// Choose one that this machine has.
    #[error("this machine does not run {wanted} kernels; the best it runs is {best}")]
    Unsupported {
        /// The tier asked for.
        wanted: Tier,
        /// The best one here.
        best: Tier,
    },
    /// Choose before the first kernel runs.
    #[error("kernels run on {current} already; the tier is chosen before the first of them")]
    InUse {
        /// The tier in use.
        current: Tier,
    },
    /// Not a tier's name.
    #[error("not a tier of CPU kernels; expected avx512, avx2 or portable")]
    Unknown,
}

impl Tier {
    /// The tier of all kernels that are not told one: the chosen one, otherwise the best that this machine runs.
    pub fn current() -> Self {
        *CURRENT.get_or_init(Self::detected)
    }

    /// Makes all kernels of this process run on this tier, so that machines of several kinds compute the same bits.
    ///
    /// # Errors
    /// [`TierError`]: this machine lacks it, or kernels have run on another one.
    pub fn choose(self) -> Result<(), TierError> {
        if !self.is_supported() {
            return Err(TierError::Unsupported { wanted: self, best: Self::detected() });
        }
        match *CURRENT.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(TierError::InUse { current }),
        }
    }

    /// The best tier that this machine runs.
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Tier> = OnceLock::new();
        *DETECTED.get_or_init(|| *Self::supported().last().expect("the portable tier runs everywhere"))
    }

    /// Every tier that this machine runs, worst first.
    pub fn supported() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|tier| tier.is_supported()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_supported(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && avx512(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_supported(self) -> bool {
        self == Self::Portable
    }

    /// Rows of this tier's largest matrix tile.
    pub(crate) fn tile_rows(self, quantised: bool) -> usize {
        fn of<S: Simd>(quantised: bool) -> usize {
            if quantised { S::QUANTISED_ROWS } else { S::FLOAT_ROWS }
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<Avx2>(quantised),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => of::<Avx512>(quantised),
            _ => of::<Portable>(quantised),
        }
    }

    /// Runs `kernel`, compiled for this tier.
    ///
    /// # Panics
    /// If this machine lacks the tier.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self <= Self::detected(), "this machine does not run {self:?} kernels");
        match self {
            // SAFETY: plain code needs no instructions beyond the target's.
            Self::Portable => unsafe { kernel.run::<Portable>() },
            // SAFETY: tiers are totally ordered, and every one up to the detected one is supported (asserted above).
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("no other tier is supported here"),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Portable, Self::Avx2, Self::Avx512]
            .into_iter()
            .find(|tier| tier.to_string() == text)
            .ok_or(TierError::Unknown)
    }
}

/// A kernel's arguments; `run` is its body, generic over the vector type.
pub(crate) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, with everything in it that should be compiled for the tier: a function that is not
    /// inlined is compiled for the baseline, where intrinsics become calls.
    ///
    /// # Safety
    /// The machine runs the instructions of `S`. Implementations uphold every other promise themselves.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller promises the features of this function.
    unsafe { kernel.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller promises the features of this function.
    unsafe { kernel.run::<Avx512>() }
}
