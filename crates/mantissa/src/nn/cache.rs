//! [`burn::nn::cache`]: results of positions that a model has seen, for inference one position at a time.

use burn::tensor::Tensor;

/// The result of a module for all positions so far, as [`burn::nn::cache::TensorCache`].
pub struct TensorCache<const D: usize> {
    known: Option<Tensor<D>>,
}

impl<const D: usize> TensorCache<D> {
    /// A cache that has seen nothing.
    pub fn empty() -> Self {
        Self { known: None }
    }

    /// `of(input)`, whose positions are `axis`: of the whole input at first, then of its last position only, for an
    /// input `[batch_size, seq_length, d_model]` that grows by one position from call to call.
    pub(super) fn extend(
        &mut self,
        input: Tensor<3>,
        axis: usize,
        of: impl Fn(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        let result = match self.known.take() {
            Some(known) => {
                let last = input.dims()[1] - 1;
                Tensor::cat(vec![known, of(input.narrow(1, last, 1))], axis)
            }
            None => of(input),
        };
        self.known.insert(result).clone()
    }

    /// `of(input)` of the first call.
    pub(super) fn keep(
        &mut self,
        input: Tensor<3>,
        of: impl Fn(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        self.known.get_or_insert_with(|| of(input)).clone()
    }
}
