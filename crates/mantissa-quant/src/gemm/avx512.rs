//! The microkernels on AVX-512: tiles of 14 rows and 32 columns, whose sums fill 28 of the 32
//! registers. Codes are multiplied by VNNI's dot product where it exists, else as 16-bit integers.

use core::arch::x86_64::*;

use super::tile::{Dots, Tile, Vectors, codes, floats};

/// Rows of a tile.
pub const ROWS: usize = 14;
/// Columns of a tile.
pub const COLUMNS: usize = 32;

/// Vectors of sixteen elements.
pub struct Avx512;

#[inline(always)]
fn mask(lanes: usize) -> __mmask16 {
    (0xffff_u32 >> (16 - lanes)) as __mmask16
}

// SAFETY: each function is one instruction of AVX-512F, which the caller has, and touches the lanes
// promised.
unsafe impl Vectors for Avx512 {
    const LANES: usize = 16;
    type Floats = __m512;
    type Ints = __m512i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, lanes: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(lanes), from) }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: __m512, lanes: usize) {
        unsafe { _mm512_mask_storeu_ps(to, mask(lanes), x) }
    }

    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_add_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply(x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: __m512, y: __m512, z: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add_ints(x: __m512i, y: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn to_floats(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_ints(x: __m512) -> __m512i {
        unsafe { _mm512_castps_si512(x) }
    }

    #[inline(always)]
    unsafe fn as_floats(x: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(x) }
    }
}

/// `vpdpbusd`: unsigned codes on the left (they are offset by 128, and the sums begin with what makes
/// up for it), signed ones on the right.
struct Vnni;

// SAFETY: each function is one instruction of AVX-512F or VNNI, which the caller has.
unsafe impl Dots for Vnni {
    type Vectors = Avx512;
    type Left = __m512i;
    type Right = __m512i;

    #[inline(always)]
    unsafe fn left(from: *const u32) -> __m512i {
        unsafe { _mm512_set1_epi32(*from as i32) }
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, left, right) }
    }
}

/// The even and the odd codes of each cell as 16-bit integers, whose products `vpmaddwd` adds in
/// pairs: exact, unlike the saturating instruction on bytes.
struct Words;

#[inline(always)]
unsafe fn words(cells: __m512i) -> [__m512i; 2] {
    // SAFETY: instructions of AVX-512BW, which the caller has.
    unsafe {
        let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(cells));
        [even, _mm512_srai_epi16::<8>(cells)]
    }
}

// SAFETY: instructions of AVX-512F and AVX-512BW, which the caller has.
unsafe impl Dots for Words {
    type Vectors = Avx512;
    type Left = [__m512i; 2];
    type Right = [__m512i; 2];

    #[inline(always)]
    unsafe fn left(from: *const u32) -> [__m512i; 2] {
        unsafe { words(_mm512_set1_epi32(*from as i32)) }
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> [__m512i; 2] {
        unsafe { words(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, left: [__m512i; 2], right: [__m512i; 2]) -> __m512i {
        unsafe {
            let even = _mm512_madd_epi16(left[0], right[0]);
            let odd = _mm512_madd_epi16(left[1], right[1]);
            _mm512_add_epi32(sums, _mm512_add_epi32(even, odd))
        }
    }
}

/// Calls the tile with as many rows as it has, and one vector of columns if that is enough.
macro_rules! by_rows {
    ($tile:ident, $kernel:ident, $unit:ty, $($rows:literal)+) => {
        match ($tile.rows, $tile.columns <= 16) {
            $(($rows, false) => $kernel::<$unit, $rows, 2, 2>($tile),)+
            $(($rows, true) => $kernel::<$unit, $rows, 1, 2>($tile),)+
            (rows, _) => unreachable!("tiles of {rows} rows"),
        }
    };
}

/// A tile of f32.
///
/// # Safety
/// As of [`floats`], on a machine with AVX-512F.
#[target_feature(enable = "avx512f")]
pub unsafe fn float_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, floats, Avx512, 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// A tile of codes, those of the left operand offset by 128.
///
/// # Safety
/// As of [`codes`], on a machine with AVX-512F and AVX-512VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn vnni_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, codes, Vnni, 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// Rows of a tile of codes without VNNI, whose cells take more registers.
pub const WORD_ROWS: usize = 10;

/// A tile of codes.
///
/// # Safety
/// As of [`codes`], on a machine with AVX-512F and AVX-512BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn word_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe { by_rows!(tile, codes, Words, 1 2 3 4 5 6 7 8 9 10) }
}
