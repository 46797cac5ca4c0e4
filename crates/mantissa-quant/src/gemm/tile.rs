//! The microkernel: the sums of one tile of the result, kept in registers over a block of the depth.
//!
//! It is written once over two small traits of vector operations; a file for each instruction set
//! implements them and compiles the tile with its features.
//!
//! Both operands come as *cells* of four bytes: one f32, or the codes of four neighbours along the
//! depth. The rows of the left operand lie [`STRIDE`] cells apart, a cell for each step along the depth.
//! Of the right operand, all the columns of a tile lie together for each step.

/// Cells along the depth that are summed before the result is touched. Sums of f32 are made of
/// blocks of this length: one chain of fused multiply-adds within a block, the blocks added in order.
pub const STEPS: usize = 256;

/// Distance between rows of the left operand. The extra line of cache keeps a column of rows from
/// falling into the same few sets of the cache.
pub const STRIDE: usize = STEPS + 16;

/// Operations on vectors of f32 and i32 in one instruction set.
///
/// # Safety
/// Its functions may only be called where the instruction set exists, with pointers that are valid
/// for the lanes they touch: all of them, or the first `lanes` where a number is given.
pub unsafe trait Vectors {
    /// Elements of a vector.
    const LANES: usize;
    /// A vector of f32.
    type Floats: Copy;
    /// A vector of i32.
    type Ints: Copy;

    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn load_some(from: *const f32, lanes: usize) -> Self::Floats;
    unsafe fn store_some(to: *mut f32, x: Self::Floats, lanes: usize);
    unsafe fn add(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    unsafe fn multiply(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    /// `x * y + z`, rounded once.
    unsafe fn multiply_add(x: Self::Floats, y: Self::Floats, z: Self::Floats) -> Self::Floats;

    /// Brings a vector's worth of memory, at any address, near for writing.
    unsafe fn prefetch(at: *const f32);

    unsafe fn load_ints(from: *const i32) -> Self::Ints;
    unsafe fn add_ints(x: Self::Ints, y: Self::Ints) -> Self::Ints;
    unsafe fn to_floats(x: Self::Ints) -> Self::Floats;
    /// The same bits.
    unsafe fn as_ints(x: Self::Floats) -> Self::Ints;
    /// The same bits.
    unsafe fn as_floats(x: Self::Ints) -> Self::Floats;
}

/// Dot products of cells of four codes.
///
/// # Safety
/// As of [`Vectors`].
pub unsafe trait Dots {
    /// The vectors of the sums.
    type Vectors: Vectors;
    /// A cell of the left operand, ready to meet every column.
    type Left: Copy;
    /// A cell of each of a vector's columns.
    type Right: Copy;

    unsafe fn left(from: *const u32) -> Self::Left;
    unsafe fn right(from: *const u32) -> Self::Right;
    /// Adds to each column's sum the products of the four codes of its cell with those of `left`.
    unsafe fn dot(
        sums: <Self::Vectors as Vectors>::Ints,
        left: Self::Left,
        right: Self::Right,
    ) -> <Self::Vectors as Vectors>::Ints;
}

/// What a tile is computed from, and where it goes.
#[derive(Copy, Clone)]
pub struct Tile {
    /// Rows, at most the kernel's.
    pub rows: usize,
    /// Columns to be written, at most the kernel's.
    pub columns: usize,
    /// Cells along the depth.
    pub steps: usize,
    /// The first row's first cell.
    pub left: *const u32,
    /// The right cells; for codes, what each column's sum begins with lies before them.
    pub right: *const u32,
    /// The first element of the result.
    pub out: *mut f32,
    /// Distance between rows of the result.
    pub out_stride: usize,
    /// Whether the result holds the sums of the blocks before; those of codes as bits of i32.
    pub add: bool,
    /// What becomes of the sums after the last block; before it they are stored as they are.
    pub finish: Option<Finish>,
}

/// `sum * (row_scale * column_scale) + bias`.
#[derive(Copy, Clone)]
pub struct Finish {
    /// One for each row.
    pub row_scales: *const f32,
    /// One for each column of the kernel.
    pub column_scales: *const f32,
    /// One for each column of the kernel, or null.
    pub bias: *const f32,
}

/// Does something for each row. It is written out, for a loop of that length would not be unrolled, and
/// an array that a loop indexes cannot stay in registers.
macro_rules! each_row {
    ($rows:ident, |$row:ident| $body:block) => {
        each_row!(@ $rows, $row, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $rows:ident, $row:ident, $body:block, $($number:literal)+) => {
        $(if $number < $rows {
            let $row: usize = $number;
            $body
        })+
    };
}

/// Takes all steps. On the way the tile's place in the result is fetched, a row at a time: all at once
/// at the end, the stores would wait for memory one by one.
macro_rules! each_step {
    ($tile:ident, $vectors:ty, $columns:ident, $step:expr, $advance:block) => {{
        let mut row = $tile.out;
        let last = row.wrapping_add(($tile.rows - 1) * $tile.out_stride);
        for _ in 0..$tile.steps / 4 {
            for v in 0..$columns {
                <$vectors>::prefetch(row.wrapping_add(v * <$vectors>::LANES));
            }
            row = if row == last { row } else { row.wrapping_add($tile.out_stride) };
            $step;
            $advance
            $step;
            $advance
            $step;
            $advance
            $step;
            $advance
        }
        for _ in 0..$tile.steps % 4 {
            $step;
            $advance
        }
    }};
}

/// One step of [`floats`].
#[inline(always)]
unsafe fn float_step<U: Vectors, const R: usize, const V: usize>(
    sums: &mut [[U::Floats; V]; R],
    left: *const f32,
    right: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut columns = [U::splat(0.0); V];
        for (v, column) in columns.iter_mut().enumerate() {
            *column = U::load(right.add(v * U::LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = U::splat(*left.add(r * STRIDE));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = U::multiply_add(x, column, *sum);
            }
        }
    }
}

/// One step of [`codes`].
#[inline(always)]
unsafe fn code_step<D: Dots, const R: usize, const V: usize>(
    sums: &mut [[<D::Vectors as Vectors>::Ints; V]; R],
    left: *const u32,
    right: *const u32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut columns = [D::right(right); V];
        for (v, column) in columns.iter_mut().enumerate() {
            *column = D::right(right.add(v * <D::Vectors as Vectors>::LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = D::left(left.add(r * STRIDE));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = D::dot(*sum, x, column);
            }
        }
    }
}

/// A tile of `R` rows and `V` vectors of columns, of f32. There is room for `W` vectors in the panel.
///
/// # Safety
/// The instruction set exists; the tile's pointers are valid for what it says, its right cells and
/// scales for whole vectors.
#[inline(always)]
pub unsafe fn floats<U: Vectors, const R: usize, const V: usize, const W: usize>(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[U::splat(0.0); V]; R];
        let (mut left, mut right) = (tile.left.cast::<f32>(), tile.right.cast::<f32>());
        each_step!(tile, U, V, float_step::<U, R, V>(&mut sums, left, right), {
            left = left.add(1);
            right = right.add(W * U::LANES);
        });
        let lanes = lanes::<U, V>(tile.columns);
        each_row!(R, |row| {
            let out = tile.out.add(row * tile.out_stride);
            let mut sums = sums[row];
            if tile.add {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = U::add(U::load_some(out.add(v * U::LANES), lanes[v]), *sum);
                }
            }
            finish::<U, V>(tile, row, sums, lanes);
        });
    }
}

/// A tile of `R` rows and `V` vectors of columns, of codes. There is room for `W` vectors in the panel.
///
/// # Safety
/// As of [`floats`].
#[inline(always)]
pub unsafe fn codes<D: Dots, const R: usize, const V: usize, const W: usize>(tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        let lanes_of_all = <D::Vectors as Vectors>::LANES;
        let mut first = [D::Vectors::load_ints(tile.right.cast()); V];
        for (v, first) in first.iter_mut().enumerate() {
            *first = D::Vectors::load_ints(tile.right.add(v * lanes_of_all).cast());
        }
        let mut sums = [first; R];
        let (mut left, mut right) = (tile.left, tile.right.add(W * lanes_of_all));
        each_step!(
            tile,
            D::Vectors,
            V,
            code_step::<D, R, V>(&mut sums, left, right),
            {
                left = left.add(1);
                right = right.add(W * lanes_of_all);
            }
        );
        let lanes = lanes::<D::Vectors, V>(tile.columns);
        each_row!(R, |row| {
            let out = tile.out.add(row * tile.out_stride);
            let mut floats = [D::Vectors::splat(0.0); V];
            for (v, mut sum) in sums[row].into_iter().enumerate() {
                if tile.add {
                    let before = D::Vectors::load_some(out.add(v * lanes_of_all), lanes[v]);
                    sum = D::Vectors::add_ints(D::Vectors::as_ints(before), sum);
                }
                floats[v] = if tile.finish.is_some() {
                    D::Vectors::to_floats(sum)
                } else {
                    D::Vectors::as_floats(sum)
                };
            }
            finish::<D::Vectors, V>(tile, row, floats, lanes);
        });
    }
}

/// How many lanes of each vector are columns to be written.
#[inline(always)]
fn lanes<U: Vectors, const V: usize>(columns: usize) -> [usize; V] {
    let mut lanes = [0; V];
    for (v, lanes) in lanes.iter_mut().enumerate() {
        *lanes = columns.saturating_sub(v * U::LANES).min(U::LANES);
    }
    lanes
}

/// Scales and writes a row of the tile.
#[inline(always)]
unsafe fn finish<U: Vectors, const V: usize>(
    tile: &Tile,
    row: usize,
    mut sums: [U::Floats; V],
    lanes: [usize; V],
) {
    // SAFETY: the caller's.
    unsafe {
        if let Some(finish) = &tile.finish {
            let scale = U::splat(*finish.row_scales.add(row));
            for (v, sum) in sums.iter_mut().enumerate() {
                let column = U::load(finish.column_scales.add(v * U::LANES));
                *sum = U::multiply(*sum, U::multiply(scale, column));
                if !finish.bias.is_null() {
                    *sum = U::add(*sum, U::load(finish.bias.add(v * U::LANES)));
                }
            }
        }
        let out = tile.out.add(row * tile.out_stride);
        for (v, sum) in sums.into_iter().enumerate() {
            U::store_some(out.add(v * U::LANES), sum, lanes[v]);
        }
    }
}
