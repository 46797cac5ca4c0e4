use burn::tensor::Tensor;

use crate::nn::cache::TensorCache;

/// What a [`MultiHeadAttention`](super::MultiHeadAttention) computed of the positions that it has seen.
pub struct MhaCache {
    pub(super) query: Projection<4>,
    pub(super) key: Projection<4>,
    pub(super) value: Projection<4>,
    pub(super) output: Projection<3>,
}

impl MhaCache {
    /// For self-attention: everything grows with the input.
    pub fn autoregressive() -> Self {
        Self {
            query: Projection::growing(2),
            key: Projection::growing(2),
            value: Projection::growing(2),
            output: Projection::growing(1),
        }
    }

    /// For cross-attention to a memory that stays as it is: keys and values are those of the first call.
    pub fn autoregressive_cross_attention() -> Self {
        Self {
            key: Projection::fixed(),
            value: Projection::fixed(),
            ..Self::autoregressive()
        }
    }
}

/// What one linear layer computed.
pub(super) struct Projection<const D: usize> {
    known: TensorCache<D>,
    /// The axis of positions in the result, if it grows.
    grows_along: Option<usize>,
}

impl<const D: usize> Projection<D> {
    fn growing(axis: usize) -> Self {
        Self {
            known: TensorCache::empty(),
            grows_along: Some(axis),
        }
    }

    fn fixed() -> Self {
        Self {
            known: TensorCache::empty(),
            grows_along: None,
        }
    }

    /// `project(input)`, of which only what is new is computed.
    pub(super) fn extend(
        &mut self,
        input: Tensor<3>,
        project: impl Fn(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        match self.grows_along {
            Some(axis) => self.known.extend(input, axis, project),
            None => self.known.keep(input, project),
        }
    }
}
