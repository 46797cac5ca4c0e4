//! The heads of a tensor as matrices in memory, and their products.

use std::marker::PhantomData;

use gemm::Parallelism;

use crate::attention::HeadStrides;

/// A matrix somewhere in memory that is borrowed for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    start: *mut f32,
    row: usize,
    column: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> Matrix<'a> {
    /// A contiguous matrix.
    pub(crate) fn of(data: &'a mut [f32], columns: usize) -> Self {
        Self {
            start: data.as_mut_ptr(),
            row: columns,
            column: 1,
            borrowed: PhantomData,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// Without the rows before `first`.
    pub(crate) fn after_rows(self, first: usize) -> Self {
        Self {
            start: self.start.wrapping_add(first * self.row),
            ..self
        }
    }

    /// The elements of one row.
    ///
    /// # Safety
    /// The matrix has that row, of `width` elements next to each other, and nobody writes to it.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, index: usize, width: usize) -> &'a [f32] {
        debug_assert_eq!(self.column, 1);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.add(index * self.row), width) }
    }
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs`, of an `[m, k]` and a `[k, n]` matrix.
///
/// # Safety
/// All three matrices are as large as that, and nobody else writes to any or reads `dst`.
pub(crate) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    dst: Matrix,
    add: bool,
    lhs: Matrix,
    rhs: Matrix,
) {
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.start,
            dst.column as isize,
            dst.row as isize,
            add,
            lhs.start,
            lhs.column as isize,
            lhs.row as isize,
            rhs.start,
            rhs.column as isize,
            rhs.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A tensor whose heads different threads work on.
pub(crate) struct Heads<'a> {
    start: *mut f32,
    heads: usize,
    strides: HeadStrides,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: pointers are only followed in unsafe code, which has to answer for who reads and writes each head.
unsafe impl Sync for Heads<'_> {}

impl<'a> Heads<'a> {
    /// A tensor of `[batch, heads, rows, width]` elements that is only read; `name` is for messages.
    ///
    /// # Panics
    /// If they do not lie in `data`.
    pub(crate) fn shared(
        name: &str,
        sizes: [usize; 4],
        strides: HeadStrides,
        data: &'a [f32],
    ) -> Self {
        check_extent(name, sizes, strides, data.len());
        Self {
            start: data.as_ptr().cast_mut(),
            heads: sizes[1],
            strides,
            borrowed: PhantomData,
        }
    }

    /// A tensor that is written to.
    ///
    /// # Panics
    /// If its elements do not lie in `data`, or not all apart from each other.
    pub(crate) fn exclusive(
        name: &str,
        sizes: [usize; 4],
        strides: HeadStrides,
        data: &'a mut [f32],
    ) -> Self {
        check_extent(name, sizes, strides, data.len());
        let [batch, heads, rows, width] = sizes;
        let mut axes = [
            (strides.batch, batch),
            (strides.head, heads),
            (strides.row, rows),
        ];
        axes.sort_unstable();
        // Each axis steps over all that the faster ones reach.
        let mut reach = width;
        for (stride, count) in axes.into_iter().filter(|axis| axis.1 > 1) {
            assert!(stride >= reach, "the {name} overlap: {strides:?}");
            reach += stride * (count - 1);
        }
        Self {
            start: data.as_mut_ptr(),
            heads,
            strides,
            borrowed: PhantomData,
        }
    }

    /// The rows of one head, numbered over all batches.
    pub(crate) fn head(&self, index: usize) -> Matrix<'a> {
        let (batch, head) = (index / self.heads, index % self.heads);
        Matrix {
            start: self
                .start
                .wrapping_add(batch * self.strides.batch + head * self.strides.head),
            row: self.strides.row,
            column: 1,
            borrowed: PhantomData,
        }
    }
}

fn check_extent(name: &str, sizes: [usize; 4], strides: HeadStrides, len: usize) {
    if sizes.contains(&0) {
        return;
    }
    let [batch, heads, rows, width] = sizes;
    let steps = [
        (batch, strides.batch),
        (heads, strides.head),
        (rows, strides.row),
    ];
    let end = steps.into_iter().try_fold(width, |end, (count, stride)| {
        end.checked_add((count - 1).checked_mul(stride)?)
    });
    assert!(
        end.is_some_and(|end| end <= len),
        "the {name} have {len} elements, too few for {sizes:?} with {strides:?}"
    );
}
