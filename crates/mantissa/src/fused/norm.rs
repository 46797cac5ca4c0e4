use burn::tensor::Tensor;
use mantissa_kernels::norm::{RowMoments, layer_norm as forward, layer_norm_backward as backward};

use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements, shape};
use crate::operation::{Gradient, Input, Operation, Outcome};

/// Layer normalization over the last axis; keeps the input and two numbers a row.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let mut inputs: Vec<Input> = vec![x.into(), gamma.into()];
    inputs.extend(beta.map(Input::from));
    Operation::new("layer_norm", move |inputs, wanted| {
        let mut inputs = inputs.into_iter().map(contiguous);
        let (Some(x), Some(gamma), beta) = (inputs.next(), inputs.next(), inputs.next()) else {
            unreachable!("an input and its gamma")
        };
        let (shape, width) = (shape(&x), elements(&gamma).len());
        let mut out = Buffer::new(elements(&x).len());
        let unknown = RowMoments {
            mean: 0.0,
            inverse_deviation: 0.0,
        };
        let mut moments = vec![unknown; out.len() / width];
        let beta = beta.as_ref().map(elements);
        let epsilon = epsilon as f32;
        forward(
            elements(&x),
            elements(&gamma),
            beta,
            epsilon,
            &mut out,
            &mut moments,
        );
        let has_beta = beta.is_some();
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            Box::new(move |grad| {
                let mut grad = contiguous(grad);
                let (mut grad_gamma, mut grad_beta) = (Buffer::new(width), Buffer::new(width));
                backward(
                    elements(&x),
                    &moments,
                    elements(&gamma),
                    grad.storage_mut(),
                    &mut grad_gamma,
                    has_beta.then_some(&mut grad_beta),
                );
                let vector = |values: Buffer| Some(values.into_tensor(&[width]));
                vec![Some(grad), vector(grad_gamma), vector(grad_beta)]
            })
        });
        Outcome {
            result: out.into_tensor(&shape),
            gradient,
        }
    })
    .apply(inputs)
}
