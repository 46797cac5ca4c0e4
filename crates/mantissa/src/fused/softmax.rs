use burn::tensor::{Bool, Tensor};
use mantissa_kernels::softmax::{
    Mask, masked_softmax_backward, softmax as forward, softmax_backward as backward,
};

use crate::flex_tensor::{contiguous, elements};
use crate::operation::{Gradient, Operation, Outcome};

/// Which attention scores are masked, for every query of every sequence.
#[derive(Clone)]
pub(crate) struct ScoreMask {
    /// `[batch, queries or 1, keys]`
    masked: Vec<u8>,
    each_query: bool,
    value: f32,
}

impl ScoreMask {
    /// The union of a mask of keys, `[batch, keys]`, and one of pairs, `[batch, queries, keys]`; masked scores become
    /// `value`.
    pub(crate) fn new(
        keys: &Option<Tensor<2, Bool>>,
        pairs: &Option<Tensor<3, Bool>>,
        value: f32,
    ) -> Option<Self> {
        let bytes = |data: burn::tensor::TensorData| -> Vec<u8> {
            data.iter::<bool>().map(u8::from).collect()
        };
        let masked = match (keys, pairs) {
            (None, None) => return None,
            (Some(keys), None) => bytes(keys.to_data()),
            (None, Some(pairs)) => bytes(pairs.to_data()),
            (Some(keys), Some(pairs)) => {
                let [batch_size, _, columns] = pairs.dims();
                let keys = keys.clone().reshape([batch_size, 1, columns]);
                bytes(pairs.clone().bool_or(keys.expand(pairs.dims())).to_data())
            }
        };
        Some(Self {
            masked,
            each_query: pairs.is_some(),
            value,
        })
    }

    /// The mask of scores `[batch, heads, queries, keys]`.
    pub(super) fn of(&self, heads: usize, queries: usize, keys: usize) -> Mask<'_> {
        if self.each_query {
            Mask::of_batches(&self.masked, heads, queries, keys, self.value)
        } else {
            Mask::of_keys(&self.masked, heads, queries, keys, self.value)
        }
    }
}

/// `softmax(scale · scores)` over the keys of `[batch, heads, queries, keys]`, in the memory of the scores where nobody
/// else reads them; keeps the probabilities.
pub(crate) fn softmax(scores: Tensor<4>, scale: f32, mask: Option<ScoreMask>) -> Tensor<4> {
    let [_, heads, queries, keys] = scores.dims();
    Operation::new("softmax", move |inputs, wanted| {
        let scores = inputs.into_iter().map(contiguous).next();
        let Some(mut result) = scores else {
            unreachable!("one input")
        };
        let view = mask.as_ref().map(|mask| mask.of(heads, queries, keys));
        forward(result.storage_mut(), keys, scale, view);
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            let (probabilities, mask) = (result.clone(), mask.clone());
            Box::new(move |grad| {
                let mut grad = contiguous(grad);
                let probabilities = elements(&probabilities);
                match mask.as_ref().map(|mask| mask.of(heads, queries, keys)) {
                    None => backward(probabilities, grad.storage_mut(), keys, scale),
                    Some(mask) => {
                        let grad = grad.storage_mut();
                        masked_softmax_backward(probabilities, grad, keys, scale, mask);
                    }
                }
                vec![Some(grad)]
            })
        });
        Outcome { result, gradient }
    })
    .apply(vec![scores.into()])
}
