//! The microkernels on AVX2 and FMA: tiles of six rows and 16 columns. Codes are multiplied as 16-bit
//! integers.

use core::arch::x86_64::*;

use super::tile::{Dots, Tile, Vectors, codes, floats};

/// Rows of a tile of f32.
pub const ROWS: usize = 6;
/// Rows of a tile of codes, whose cells take more registers.
pub const CODE_ROWS: usize = 4;
/// Columns of a tile.
pub const COLUMNS: usize = 16;

/// Vectors of eight elements.
pub struct Avx2;

#[inline(always)]
unsafe fn mask(lanes: usize) -> __m256i {
    // SAFETY: instructions of AVX2, which the caller has.
    unsafe {
        let each = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), each)
    }
}

// SAFETY: each function is an instruction or two of AVX2 or FMA, which the caller has, and touches the
// lanes promised.
unsafe impl Vectors for Avx2 {
    const LANES: usize = 8;
    type Floats = __m256;
    type Ints = __m256i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, lanes: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, mask(lanes)) }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: __m256, lanes: usize) {
        unsafe { _mm256_maskstore_ps(to, mask(lanes), x) }
    }

    #[inline(always)]
    unsafe fn add(x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_add_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply(x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: __m256, y: __m256, z: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(x, y, z) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add_ints(x: __m256i, y: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn to_floats(x: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_ints(x: __m256) -> __m256i {
        unsafe { _mm256_castps_si256(x) }
    }

    #[inline(always)]
    unsafe fn as_floats(x: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(x) }
    }
}

/// The even and the odd codes of each cell as 16-bit integers, whose products `vpmaddwd` adds in
/// pairs: exact, unlike the saturating instruction on bytes.
struct Words;

#[inline(always)]
unsafe fn words(cells: __m256i) -> [__m256i; 2] {
    // SAFETY: instructions of AVX2, which the caller has.
    unsafe {
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(cells));
        [even, _mm256_srai_epi16::<8>(cells)]
    }
}

// SAFETY: instructions of AVX2, which the caller has.
unsafe impl Dots for Words {
    type Vectors = Avx2;
    type Left = [__m256i; 2];
    type Right = [__m256i; 2];

    #[inline(always)]
    unsafe fn left(from: *const u32) -> [__m256i; 2] {
        unsafe { words(_mm256_set1_epi32(*from as i32)) }
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> [__m256i; 2] {
        unsafe { words(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256i, left: [__m256i; 2], right: [__m256i; 2]) -> __m256i {
        unsafe {
            let even = _mm256_madd_epi16(left[0], right[0]);
            let odd = _mm256_madd_epi16(left[1], right[1]);
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }
}

/// A tile of f32.
///
/// # Safety
/// As of [`floats`], on a machine with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn float_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        match tile.rows {
            1 => floats::<Avx2, 1, 2, 2>(tile),
            2 => floats::<Avx2, 2, 2, 2>(tile),
            3 => floats::<Avx2, 3, 2, 2>(tile),
            4 => floats::<Avx2, 4, 2, 2>(tile),
            5 => floats::<Avx2, 5, 2, 2>(tile),
            _ => floats::<Avx2, 6, 2, 2>(tile),
        }
    }
}

/// A tile of codes.
///
/// # Safety
/// As of [`codes`], on a machine with AVX2.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn code_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        match tile.rows {
            1 => codes::<Words, 1, 2, 2>(tile),
            2 => codes::<Words, 2, 2, 2>(tile),
            3 => codes::<Words, 3, 2, 2>(tile),
            _ => codes::<Words, 4, 2, 2>(tile),
        }
    }
}
