//! Which rows of a batch are a rank's.

use std::ops::Range;

use burn::tensor::Tensor;

/// A rank's rows of a batch. The shares of all ranks are next to each other, in the order of the ranks, and differ by at
/// most one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    start: usize,
    len: usize,
    of: usize,
}

/// A batch that cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a batch of {rows} rows is too small for {ranks} ranks; give every rank a row, or start fewer"
)]
pub struct ShareError {
    /// The batch's rows.
    pub rows: usize,
    /// The ranks.
    pub ranks: usize,
}

impl Share {
    /// All rows of a batch, however many those are.
    pub(crate) const ALL: Self = Self {
        start: 0,
        len: 1,
        of: 1,
    };

    /// The share of `rank` among `ranks` in a batch of `rows`.
    pub(crate) fn new(rows: usize, rank: usize, ranks: usize) -> Result<Self, ShareError> {
        if rows < ranks {
            return Err(ShareError { rows, ranks });
        }
        let start = rank * rows / ranks;
        Ok(Self {
            start,
            len: (rank + 1) * rows / ranks - start,
            of: rows,
        })
    }

    /// The rows.
    pub fn rows(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// How many rows the whole batch has.
    pub fn batch_rows(&self) -> usize {
        self.of
    }

    /// This rank's part of the loss of the whole batch, given the mean over its own rows: times its share of the rows,
    /// so that the parts of all ranks add up to the mean over all. Gradients then have the size that they have on one
    /// rank, and meet the same roundings.
    pub fn part(&self, loss: Tensor<1>) -> Tensor<1> {
        if self.len == self.of {
            return loss;
        }
        loss.mul_scalar(self.len as f64 / self.of as f64)
    }

    /// How many of the batch's elements come before this share's, of which there are `elements`; `None` if they cannot
    /// be whole rows.
    pub(crate) fn elements_before(&self, elements: usize) -> Option<u64> {
        elements
            .is_multiple_of(self.len)
            .then(|| (elements / self.len) as u64 * self.start as u64)
    }

    /// The first row.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_a_batch() {
        for (rows, ranks) in [(1, 1), (8, 2), (7, 3), (5, 5), (32, 6)] {
            let mut next = 0;
            for rank in 0..ranks {
                let share = Share::new(rows, rank, ranks).unwrap();
                assert_eq!(share.rows().start, next);
                assert!(share.rows().len().abs_diff(rows / ranks) <= 1);
                next = share.rows().end;
            }
            assert_eq!(next, rows);
        }
        let error = Share::new(3, 0, 4).unwrap_err().to_string();
        assert!(error.contains("3 rows") && error.contains("4 ranks"));
    }

    #[test]
    fn what_comes_before_is_whole_rows() {
        let share = Share::new(8, 1, 2).unwrap();
        assert_eq!(share.elements_before(4 * 10), Some(40));
        assert_eq!(share.elements_before(41), None);
        assert_eq!(Share::ALL.elements_before(41), Some(0));
    }
}
