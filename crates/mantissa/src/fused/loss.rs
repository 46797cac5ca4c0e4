use burn::tensor::{Int, Tensor};
use mantissa_kernels::loss::{cross_entropy as forward, cross_entropy_backward as backward};

use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements};
use crate::operation::{Gradient, Operation, Outcome};

/// Mean cross-entropy of rows of logits; keeps the logits, whose memory then becomes their gradient's, and one number a row.
///
/// # Panics
/// If a target is not a class.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let targets: Vec<i32> = targets.into_data().iter::<i32>().collect();
    Operation::new("cross_entropy", move |inputs, wanted| {
        let logits = inputs.into_iter().map(contiguous).next();
        let Some(logits) = logits else {
            unreachable!("one input")
        };
        let mut log_sum_exp = Buffer::new(rows);
        let loss = forward(elements(&logits), classes, &targets, &mut log_sum_exp);
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            let targets = targets.clone();
            Box::new(move |grad| {
                let grad = elements(&contiguous(grad))[0];
                let mut logits = logits;
                let values = logits.storage_mut::<f32>();
                backward(values, classes, &targets, &log_sum_exp, grad);
                vec![Some(logits)]
            })
        });
        Outcome {
            result: Buffer::from(vec![loss]).into_tensor(&[1]),
            gradient,
        }
    })
    .apply(vec![logits.into()])
}
