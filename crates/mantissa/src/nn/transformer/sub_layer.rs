//! What the sub-layers of encoder and decoder share.

use burn::tensor::{Bool, Tensor};

use crate::nn::attention::MhaInput;
use crate::nn::cache::TensorCache;

/// `of(x)`, of which only what is not in the cache is computed.
pub(super) fn position_wise(
    cache: Option<&mut TensorCache<3>>,
    x: Tensor<3>,
    of: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    match cache {
        Some(cache) => cache.extend(x, 1, of),
        None => of(x),
    }
}

/// `input` with the masks that there are.
pub(super) fn masked(
    mut input: MhaInput,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
) -> MhaInput {
    if let Some(mask) = mask_pad {
        input = input.mask_pad(mask);
    }
    if let Some(mask) = mask_attn {
        input = input.mask_attn(mask);
    }
    input
}
