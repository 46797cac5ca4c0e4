//! Which vector instructions the slice codec runs on.

use std::fmt;
use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

/// A set of vector instructions that this processor has. Results are the same on every one of them; only tests and benchmarks
/// have a reason to choose.
///
/// ```
/// use mantissa_formats::SimdLevel;
///
/// assert!(SimdLevel::available().any(|level| level == SimdLevel::PORTABLE));
/// println!("running on {}", SimdLevel::best());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SimdLevel(Unit);

/// A value of a vector unit's type is the proof that the processor has it.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl SimdLevel {
    /// What every processor of the target has.
    pub const PORTABLE: Self = Self(Unit::Portable);

    /// The widest that this processor has, looked up once.
    pub fn best() -> Self {
        static BEST: LazyLock<SimdLevel> =
            LazyLock::new(|| SimdLevel::available().last().unwrap_or(SimdLevel::PORTABLE));
        *BEST
    }

    /// All that this processor has, the widest last.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            Some(Unit::Portable),
            #[cfg(target_arch = "x86_64")]
            pulp::x86::V3::try_new().map(Unit::Avx2),
            #[cfg(target_arch = "x86_64")]
            pulp::x86::V4::try_new().map(Unit::Avx512),
            #[cfg(target_arch = "aarch64")]
            pulp::aarch64::Neon::try_new().map(Unit::Neon),
        ]
        .into_iter()
        .flatten()
        .map(Self)
    }

    /// `portable`, `avx2`, `avx512` or `neon`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Unit::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Unit::Neon(_) => "neon",
        }
    }

    /// Runs an operation compiled for these instructions. What it calls has to be inlined into it, or it is compiled for none.
    #[inline]
    pub fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self.0 {
            Unit::Portable => Simd::vectorize(pulp::Scalar::new(), op),
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2(unit) => Simd::vectorize(unit, op),
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512(unit) => Simd::vectorize(unit, op),
            #[cfg(target_arch = "aarch64")]
            Unit::Neon(unit) => Simd::vectorize(unit, op),
        }
    }
}

impl PartialEq for SimdLevel {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for SimdLevel {}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
