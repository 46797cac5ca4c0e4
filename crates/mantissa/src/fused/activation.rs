use burn::tensor::Tensor;
use mantissa_kernels::activation::Activation;

use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements, shape};
use crate::operation::{Gradient, Operation, Outcome};

/// An activation function; keeps its input.
pub(crate) fn activation<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    Operation::new("activation", move |inputs, wanted| {
        let x = inputs.into_iter().map(contiguous).next();
        let Some(x) = x else {
            unreachable!("one input")
        };
        let mut out = Buffer::new(elements(&x).len());
        activation.forward(elements(&x), &mut out);
        let result = out.into_tensor(&shape(&x));
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            Box::new(move |grad| {
                let mut grad = contiguous(grad);
                activation.backward(elements(&x), grad.storage_mut());
                vec![Some(grad)]
            })
        });
        Outcome { result, gradient }
    })
    .apply(vec![x.into()])
}
