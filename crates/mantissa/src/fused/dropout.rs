use burn::tensor::{Device, Distribution, Tensor};
use mantissa_formats::RandomBits;
use mantissa_kernels::dropout::{dropout as drop_out, dropout_add as add};

use crate::flex_tensor::contiguous;
use crate::operation::{Gradient, Operation, Outcome};
use crate::session;

/// The random bits of `elements` elements, from a stream whose name is drawn from the device's generator, so that seeding
/// the device seeds it. Ranks that draw the same name have the bits of their rows of the whole batch.
fn stream(device: &Device, elements: usize) -> RandomBits {
    let name = Tensor::<1>::random([3], Distribution::Default, device).into_data();
    // An f32 in [0, 1) has 24 random bits.
    let draw = |x: f32| (x * (1 << 24) as f32) as u64;
    let draws: Vec<u64> = name.iter::<f32>().map(draw).collect();
    session::of_share(
        RandomBits::new(draws[0] << 24 | draws[1], draws[2]),
        elements,
    )
}

/// Dropout; keeps nothing: its mask is drawn again.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    let random = stream(&x.device(), x.shape().num_elements());
    Operation::new("dropout", move |inputs, wanted| {
        let x = inputs.into_iter().map(contiguous).next();
        let Some(mut result) = x else {
            unreachable!("one input")
        };
        drop_out(result.storage_mut(), probability, random);
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            Box::new(move |grad| {
                let mut grad = contiguous(grad);
                drop_out(grad.storage_mut(), probability, random);
                vec![Some(grad)]
            })
        });
        Outcome { result, gradient }
    })
    .apply(vec![x.into()])
}

/// `residual + dropout(x)`; keeps nothing.
pub(crate) fn dropout_add<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    probability: f64,
) -> Tensor<D> {
    let random = stream(&x.device(), x.shape().num_elements());
    Operation::new("dropout_add", move |inputs, wanted| {
        let mut inputs = inputs.into_iter().map(contiguous);
        let (Some(x), Some(mut result)) = (inputs.next(), inputs.next()) else {
            unreachable!("an input and a residual")
        };
        add(x.storage(), result.storage_mut(), probability, random);
        let wanted_x = wanted[0];
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            Box::new(move |grad| {
                let dropped = wanted_x.then(|| {
                    let mut dropped = contiguous(grad.clone());
                    drop_out(dropped.storage_mut(), probability, random);
                    dropped
                });
                vec![dropped, Some(grad)]
            })
        });
        Outcome { result, gradient }
    })
    .apply(vec![x.into(), residual.into()])
}
