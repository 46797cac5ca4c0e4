//! The kernels of this machine.

use std::sync::LazyLock;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
use super::tile::Tile;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A microkernel with its measures.
pub struct Kernel {
    /// The instructions it is made of.
    #[cfg_attr(not(test), expect(dead_code))]
    pub name: &'static str,
    /// The most rows of a tile.
    pub rows: usize,
    /// Columns of a tile.
    pub columns: usize,
    /// Whether the left codes are to be offset by 128.
    pub offset: bool,
    /// Whether cells are four codes, and not an f32.
    pub codes: bool,
    tile: unsafe fn(&Tile),
    available: fn() -> bool,
}

macro_rules! kernel {
    ($name:literal, $module:ident :: $tile:ident, $rows:expr, $codes:expr, $offset:expr, $available:expr) => {
        Kernel {
            name: $name,
            rows: $rows,
            columns: $module::COLUMNS,
            offset: $offset,
            codes: $codes,
            tile: $module::$tile,
            available: $available,
        }
    };
}

/// Every kernel, the better ones first.
static ALL: &[Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    kernel!(
        "avx512",
        avx512::float_tile,
        avx512::ROWS,
        false,
        false,
        || { is_x86_feature_detected!("avx512f") }
    ),
    #[cfg(target_arch = "x86_64")]
    kernel!(
        "avx512vnni",
        avx512::vnni_tile,
        avx512::ROWS,
        true,
        true,
        || { is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") }
    ),
    #[cfg(target_arch = "x86_64")]
    kernel!(
        "avx512bw",
        avx512::word_tile,
        avx512::WORD_ROWS,
        true,
        false,
        || { is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") }
    ),
    #[cfg(target_arch = "x86_64")]
    kernel!("avx2", avx2::float_tile, avx2::ROWS, false, false, || {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }),
    #[cfg(target_arch = "x86_64")]
    kernel!(
        "avx2",
        avx2::code_tile,
        avx2::CODE_ROWS,
        true,
        false,
        || { is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") }
    ),
    #[cfg(target_arch = "aarch64")]
    kernel!("neon", neon::float_tile, neon::ROWS, false, false, || {
        std::arch::is_aarch64_feature_detected!("neon")
    }),
    #[cfg(target_arch = "aarch64")]
    kernel!(
        "dotprod",
        neon::dotprod_tile,
        neon::ROWS,
        true,
        false,
        || { std::arch::is_aarch64_feature_detected!("dotprod") }
    ),
    #[cfg(target_arch = "aarch64")]
    kernel!("neon", neon::code_tile, neon::ROWS, true, false, || {
        std::arch::is_aarch64_feature_detected!("neon")
    }),
    kernel!(
        "portable",
        portable::float_tile,
        portable::ROWS,
        false,
        false,
        || true
    ),
    kernel!(
        "portable",
        portable::code_tile,
        portable::ROWS,
        true,
        false,
        || true
    ),
];

impl Kernel {
    /// The kernels of f32 or of codes that this machine has, the better ones first.
    pub fn all(codes: bool) -> impl Iterator<Item = &'static Kernel> {
        ALL.iter()
            .filter(move |kernel| kernel.codes == codes && (kernel.available)())
    }

    /// The best kernel of f32 or of codes.
    pub fn best(codes: bool) -> &'static Kernel {
        static BEST: LazyLock<[&Kernel; 2]> = LazyLock::new(|| {
            [false, true].map(|codes| {
                let mut all = Kernel::all(codes);
                all.next().expect("the portable kernel is everywhere")
            })
        });
        BEST[usize::from(codes)]
    }

    /// Cells before each panel of the right operand: what the columns' sums begin with.
    pub fn header(&self) -> usize {
        if self.codes { self.columns } else { 0 }
    }

    /// Computes a tile.
    ///
    /// # Safety
    /// The tile's pointers are valid for what it says, with the measures of this kernel; the kernel
    /// is one of this machine's.
    pub unsafe fn run(&self, tile: &Tile) {
        debug_assert!(1 <= tile.rows && tile.rows <= self.rows && tile.columns <= self.columns);
        // SAFETY: the caller's.
        unsafe { (self.tile)(tile) }
    }
}
