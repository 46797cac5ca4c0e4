//! A strided view of a batch of matrices, as one product sees it.

/// One operand of a product: a batch of matrices `[outer, depth]` in a slice, where `depth` is the
/// axis that the product contracts and `outer` the other one (the rows of the left operand, the
/// columns of the right one). Strides are in elements, so a transposed or permuted tensor needs no
/// copy.
#[derive(Copy, Clone, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where each matrix of the batch begins in `data`.
    pub offsets: &'a [usize],
    /// Length of the axis that is not contracted.
    pub outer: usize,
    /// Length of the contracted axis.
    pub depth: usize,
    /// Distance between neighbours along the outer axis.
    pub outer_stride: usize,
    /// Distance between neighbours along the contracted axis.
    pub depth_stride: usize,
}

/// An operand that reaches outside its data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an operand of {outer} x {depth} elements with strides {outer_stride} and {depth_stride} that \
     begins at {offset} reaches beyond its {len} elements of data"
)]
pub struct OperandError {
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
    offset: usize,
    len: usize,
}

impl<'a> Operand<'a> {
    /// A batch of strided matrices; an error if any of them reaches outside `data`.
    pub fn new(
        data: &'a [f32],
        offsets: &'a [usize],
        [outer, depth]: [usize; 2],
        [outer_stride, depth_stride]: [usize; 2],
    ) -> Result<Self, OperandError> {
        let operand = Operand {
            data,
            offsets,
            outer,
            depth,
            outer_stride,
            depth_stride,
        };
        operand.check()?;
        Ok(operand)
    }

    /// A single matrix `[outer, depth]`, row-major and contiguous from the start of `data`; an error
    /// if `data` is too short.
    pub fn matrix(data: &'a [f32], outer: usize, depth: usize) -> Result<Self, OperandError> {
        Operand::new(data, &[0], [outer, depth], [depth, 1])
    }

    /// The same matrices with the axes swapped: what was contracted is now the outer axis.
    pub const fn transposed(self) -> Self {
        Operand {
            outer: self.depth,
            depth: self.outer,
            outer_stride: self.depth_stride,
            depth_stride: self.outer_stride,
            ..self
        }
    }

    /// Matrices in the batch.
    pub const fn batch(&self) -> usize {
        self.offsets.len()
    }

    /// Elements in all matrices together.
    pub const fn count(&self) -> usize {
        self.offsets.len() * self.outer * self.depth
    }

    /// The element at `[matrix, outer, depth]`.
    pub fn at(&self, matrix: usize, outer: usize, depth: usize) -> f32 {
        self.data[self.offsets[matrix] + outer * self.outer_stride + depth * self.depth_stride]
    }

    /// Whether every element lies inside the data.
    pub fn check(&self) -> Result<(), OperandError> {
        if self.outer == 0 || self.depth == 0 {
            return Ok(());
        }
        let reach = || {
            let outer = (self.outer - 1).checked_mul(self.outer_stride)?;
            outer.checked_add((self.depth - 1).checked_mul(self.depth_stride)?)
        };
        let inside = |offset: usize, reach: usize| {
            offset
                .checked_add(reach)
                .is_some_and(|last| last < self.data.len())
        };
        let reach = reach();
        match self
            .offsets
            .iter()
            .find(|&&offset| !reach.is_some_and(|r| inside(offset, r)))
        {
            None => Ok(()),
            Some(&offset) => Err(OperandError {
                outer: self.outer,
                depth: self.depth,
                outer_stride: self.outer_stride,
                depth_stride: self.depth_stride,
                offset,
                len: self.data.len(),
            }),
        }
    }

    /// Panics if an element lies outside the data; the caller built the view by hand and wrongly.
    pub(crate) fn assert_inside(&self) {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_beyond_its_data_is_an_error() {
        let data = [0.0; 12];
        assert!(Operand::matrix(&data, 3, 4).is_ok());
        assert!(Operand::matrix(&data, 4, 3).is_ok());
        let error = Operand::matrix(&data, 3, 5).unwrap_err().to_string();
        assert!(error.contains("3 x 5") && error.contains("12"), "{error}");
        assert!(Operand::new(&data, &[0, 1], [3, 4], [4, 1]).is_err());
        assert!(Operand::new(&data, &[0], [3, 4], [usize::MAX, 1]).is_err());
        assert!(Operand::new(&data, &[usize::MAX], [1, 1], [0, 0]).is_err());
        assert!(Operand::new(&data, &[99], [0, 4], [4, 1]).is_ok());
    }

    #[test]
    fn transposing_swaps_the_axes() {
        let data: Vec<f32> = (0..6u8).map(f32::from).collect();
        let matrix = Operand::matrix(&data, 2, 3).unwrap();
        assert_eq!(matrix.at(0, 1, 2), 5.0);
        assert_eq!(matrix.transposed().at(0, 2, 1), 5.0);
        assert_eq!(matrix.transposed().outer, 3);
    }
}
