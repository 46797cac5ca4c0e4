//! The microkernels in plain Rust: the reference of the others, and what runs where there is no
//! vector unit that we know.

use super::tile::{Dots, Tile, Vectors, codes, floats};

/// Vectors of four elements that are arrays.
pub struct Portable;

/// What both products of a tile are: rows and vectors of columns.
pub const ROWS: usize = 4;
/// Columns of a tile.
pub const COLUMNS: usize = 8;

// SAFETY: the pointers are read and written for the lanes promised; no instruction set is needed.
unsafe impl Vectors for Portable {
    const LANES: usize = 4;
    type Floats = [f32; 4];
    type Ints = [i32; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: valid for four lanes.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, lanes: usize) -> [f32; 4] {
        let mut x = [0.0; 4];
        for (lane, x) in x.iter_mut().enumerate().take(lanes) {
            // SAFETY: valid for this many lanes.
            *x = unsafe { *from.add(lane) };
        }
        x
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: [f32; 4], lanes: usize) {
        for (lane, x) in x.into_iter().enumerate().take(lanes) {
            // SAFETY: valid for this many lanes.
            unsafe { *to.add(lane) = x };
        }
    }

    #[inline(always)]
    unsafe fn add(x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| x[lane] + y[lane])
    }

    #[inline(always)]
    unsafe fn multiply(x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| x[lane] * y[lane])
    }

    #[inline(always)]
    unsafe fn multiply_add(x: [f32; 4], y: [f32; 4], z: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| x[lane].mul_add(y[lane], z[lane]))
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> [i32; 4] {
        // SAFETY: valid for four lanes.
        unsafe { from.cast::<[i32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn add_ints(x: [i32; 4], y: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|lane| x[lane].wrapping_add(y[lane]))
    }

    #[inline(always)]
    unsafe fn to_floats(x: [i32; 4]) -> [f32; 4] {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    unsafe fn as_ints(x: [f32; 4]) -> [i32; 4] {
        x.map(|x| x.to_bits() as i32)
    }

    #[inline(always)]
    unsafe fn as_floats(x: [i32; 4]) -> [f32; 4] {
        x.map(|x| f32::from_bits(x as u32))
    }
}

fn bytes(cell: u32) -> [i32; 4] {
    cell.to_le_bytes().map(|code| i32::from(code as i8))
}

// SAFETY: as above.
unsafe impl Dots for Portable {
    type Vectors = Portable;
    type Left = [i32; 4];
    type Right = [[i32; 4]; 4];

    #[inline(always)]
    unsafe fn left(from: *const u32) -> [i32; 4] {
        // SAFETY: valid for a cell.
        bytes(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn right(from: *const u32) -> [[i32; 4]; 4] {
        // SAFETY: valid for four cells.
        unsafe { from.cast::<[u32; 4]>().read() }.map(bytes)
    }

    #[inline(always)]
    unsafe fn dot(sums: [i32; 4], left: [i32; 4], right: [[i32; 4]; 4]) -> [i32; 4] {
        std::array::from_fn(|lane| {
            (0..4).fold(sums[lane], |sum, i| {
                sum.wrapping_add(left[i] * right[lane][i])
            })
        })
    }
}

/// A tile of f32.
///
/// # Safety
/// As of [`floats`].
pub unsafe fn float_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        match tile.rows {
            1 => floats::<Portable, 1, 2, 2>(tile),
            2 => floats::<Portable, 2, 2, 2>(tile),
            3 => floats::<Portable, 3, 2, 2>(tile),
            _ => floats::<Portable, 4, 2, 2>(tile),
        }
    }
}

/// A tile of codes.
///
/// # Safety
/// As of [`codes`].
pub unsafe fn code_tile(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        match tile.rows {
            1 => codes::<Portable, 1, 2, 2>(tile),
            2 => codes::<Portable, 2, 2, 2>(tile),
            3 => codes::<Portable, 3, 2, 2>(tile),
            _ => codes::<Portable, 4, 2, 2>(tile),
        }
    }
}
