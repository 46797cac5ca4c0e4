//! The microkernels on NEON: tiles of six rows and 16 columns. Codes are multiplied by `sdot` where it
//! exists, else as 16-bit products that are added in pairs.

use core::arch::aarch64::*;
use core::arch::asm;

use super::tile::{Dots, Tile, Vectors, codes, floats};

/// Rows of a tile.
pub const ROWS: usize = 6;
/// Columns of a tile.
pub const COLUMNS: usize = 16;

/// Vectors of four elements.
pub struct Neon;

// SAFETY: each function is an instruction of NEON, which the caller has, and touches the lanes promised.
unsafe impl Vectors for Neon {
    const LANES: usize = 4;
    type Floats = float32x4_t;
    type Ints = int32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, lanes: usize) -> float32x4_t {
        unsafe {
            if lanes == 4 {
                return vld1q_f32(from);
            }
            let mut x = [0.0; 4];
            core::ptr::copy_nonoverlapping(from, x.as_mut_ptr(), lanes);
            vld1q_f32(x.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: float32x4_t, lanes: usize) {
        unsafe {
            if lanes == 4 {
                return vst1q_f32(to, x);
            }
            let mut some = [0.0; 4];
            vst1q_f32(some.as_mut_ptr(), x);
            core::ptr::copy_nonoverlapping(some.as_ptr(), to, lanes);
        }
    }

    #[inline(always)]
    unsafe fn add(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: float32x4_t, y: float32x4_t, z: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(z, x, y) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint at any address.
        unsafe { asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn add_ints(x: int32x4_t, y: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(x, y) }
    }

    #[inline(always)]
    unsafe fn to_floats(x: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(x) }
    }

    #[inline(always)]
    unsafe fn as_ints(x: float32x4_t) -> int32x4_t {
        unsafe { vreinterpretq_s32_f32(x) }
    }

    #[inline(always)]
    unsafe fn as_floats(x: int32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(x) }
    }
}

#[inline(always)]
unsafe fn left(from: *const u32) -> int8x16_t {
    // SAFETY: instructions of NEON, which the caller has; valid for a cell.
    unsafe { vreinterpretq_s8_u32(vdupq_n_u32(*from)) }
}

#[inline(always)]
unsafe fn right(from: *const u32) -> int8x16_t {
    // SAFETY: as above, for four cells.
    unsafe { vreinterpretq_s8_u32(vld1q_u32(from)) }
}

/// `sdot`, whose intrinsic Rust does not have yet.
struct Dotprod;

// SAFETY: instructions of NEON and its dot products, which the caller has.
unsafe impl Dots for Dotprod {
    type Vectors = Neon;
    type Left = int8x16_t;
    type Right = int8x16_t;

    #[inline(always)]
    unsafe fn left(from: *const u32) -> int8x16_t {
        unsafe { left(from) }
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> int8x16_t {
        unsafe { right(from) }
    }

    #[inline(always)]
    unsafe fn dot(mut sums: int32x4_t, left: int8x16_t, right: int8x16_t) -> int32x4_t {
        unsafe {
            asm!(
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sums,
                in(vreg) left,
                in(vreg) right,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}

/// Products of 16 bits, each exact, added in pairs.
struct Pairs;

// SAFETY: instructions of NEON, which the caller has.
unsafe impl Dots for Pairs {
    type Vectors = Neon;
    type Left = int8x16_t;
    type Right = int8x16_t;

    #[inline(always)]
    unsafe fn left(from: *const u32) -> int8x16_t {
        unsafe { left(from) }
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> int8x16_t {
        unsafe { right(from) }
    }

    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, left: int8x16_t, right: int8x16_t) -> int32x4_t {
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(left), vget_low_s8(right)));
            let high = vpaddlq_s16(vmull_high_s8(left, right));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }
}

/// Calls the tile with as many rows as it has.
macro_rules! by_rows {
    ($tile:ident, $kernel:ident, $unit:ty) => {
        match $tile.rows {
            1 => $kernel::<$unit, 1, 4, 4>($tile),
            2 => $kernel::<$unit, 2, 4, 4>($tile),
            3 => $kernel::<$unit, 3, 4, 4>($tile),
            4 => $kernel::<$unit, 4, 4, 4>($tile),
            5 => $kernel::<$unit, 5, 4, 4>($tile),
            _ => $kernel::<$unit, 6, 4, 4>($tile),
        }
    };
}

/// A tile of f32.
///
/// # Safety
/// As of [`floats`], on a machine with NEON.
#[target_feature(enable = "neon")]
pub unsafe fn float_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, floats, Neon) }
}

/// A tile of codes.
///
/// # Safety
/// As of [`codes`], on a machine with NEON and its dot products.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn dotprod_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, codes, Dotprod) }
}

/// A tile of codes.
///
/// # Safety
/// As of [`codes`], on a machine with NEON.
#[target_feature(enable = "neon")]
pub unsafe fn code_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, codes, Pairs) }
}
