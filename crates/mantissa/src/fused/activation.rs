use burn::tensor::Tensor;
use mantissa_kernels::activation::Activation;

use crate::flex_tensor::{buffer, contiguous, elements, from_vec, shape};
use crate::operation::{Gradient, Operation, Outcome};

/// An activation function; keeps its input.
pub(crate) fn activation<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    Operation::new("activation", move |inputs, wanted| {
        let x = inputs.into_iter().map(contiguous).next();
        let Some(x) = x else {
            unreachable!("one input")
        };
        let mut out = buffer(elements(&x).len());
        activation.forward(elements(&x), &mut out);
        let result = from_vec(out, &shape(&x));
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
