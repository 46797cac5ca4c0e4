use burn::backend::{Flex, flex::FlexTensor, ops::FloatTensorOps};
use burn::tensor::Tensor;
use mantissa_kernels::attention::{
    AttentionShape, HeadStrides, attention as forward, attention_backward as backward,
};

use super::ScoreMask;
use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements, shape};
use crate::operation::{Gradient, Operation, Outcome};

/// Scaled dot-product attention in full precision. Queries, keys and values are `[batch, heads, sequence, width]`, the
/// result is `[batch, queries, heads · width]`; keeps these four and one number a query.
pub(crate) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    scale: f32,
    mask: Option<ScoreMask>,
) -> Tensor<3> {
    let [batch, heads, queries, width] = query.dims();
    let [_, _, keys, _] = key.dims();
    Operation::new("attention", move |inputs, wanted| {
        let inputs: Vec<Heads> = inputs.into_iter().map(Heads::new).collect();
        let Ok([query, key, value]) = <[Heads; 3]>::try_from(inputs) else {
            unreachable!("queries, keys and values")
        };
        let shape = AttentionShape {
            query: query.strides,
            key: key.strides,
            value: value.strides,
            ..AttentionShape::interleaved(batch, heads, queries, keys, width)
        };
        let mut out = Buffer::new(batch * queries * heads * width);
        let mut log_sum_exp = Buffer::new(shape.rows());
        let view = mask.as_ref().map(|mask| mask.of(heads, queries, keys));
        let (q, k, v) = (query.elements(), key.elements(), value.elements());
        forward(&shape, q, k, v, scale, view, &mut out, &mut log_sum_exp);
        let result = out.into_tensor(&[batch, queries, heads * width]);
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            let (out, mask) = (result.clone(), mask.clone());
            Box::new(move |grad| {
                let grad = contiguous(grad);
                let mut grads =
                    [&query, &key, &value].map(|heads| Buffer::new(heads.elements().len()));
                let [grad_q, grad_k, grad_v] = &mut grads;
                let view = mask.as_ref().map(|mask| mask.of(heads, queries, keys));
                let (q, k, v) = (query.elements(), key.elements(), value.elements());
                backward(
                    &shape,
                    q,
                    k,
                    v,
                    scale,
                    view,
                    elements(&out),
                    &log_sum_exp,
                    elements(&grad),
                    grad_q,
                    grad_k,
                    grad_v,
                );
                let inputs = [query, key, value];
                let grads = inputs.iter().zip(grads);
                grads.map(|(input, grad)| Some(input.like(grad))).collect()
            })
        });
        Outcome { result, gradient }
    })
    .apply(vec![query.into(), key.into(), value.into()])
}

/// Vectors of heads, in the order in which a linear layer wrote them or head by head.
struct Heads {
    tensor: FlexTensor,
    strides: HeadStrides,
    /// Whether a row's heads lie side by side.
    interleaved: bool,
}

impl Heads {
    /// Takes `[batch, heads, rows, width]`, as it lies if it is the view of a whole buffer.
    fn new(tensor: FlexTensor) -> Self {
        let sizes = shape(&tensor);
        let [_, heads, rows, width] = sizes[..] else {
            unreachable!("attention has four axes")
        };
        let swapped = Flex::float_swap_dims(tensor.clone(), 1, 2);
        let whole = swapped.is_contiguous()
            && swapped.layout().start_offset() == 0
            && swapped.storage::<f32>().len() == sizes.iter().product::<usize>();
        if whole {
            return Self {
                tensor: swapped,
                strides: HeadStrides::interleaved(rows, heads, width),
                interleaved: true,
            };
        }
        Self {
            tensor: contiguous(tensor),
            strides: HeadStrides::separate(rows, heads, width),
            interleaved: false,
        }
    }

    fn elements(&self) -> &[f32] {
        elements(&self.tensor)
    }

    /// `values` in the order of these vectors, as `[batch, heads, rows, width]`.
    fn like(&self, values: Buffer) -> FlexTensor {
        let tensor = values.into_tensor(&shape(&self.tensor));
        if self.interleaved {
            Flex::float_swap_dims(tensor, 1, 2)
        } else {
            tensor
        }
    }
}
