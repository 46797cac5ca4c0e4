//! Unfolding and folding as differentiable operations, each the other's backward pass.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::windows::Windows;
use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements, shape};
use crate::operation::{Gradient, Operation, Outcome};

/// The windows of images, one a row; keeps nothing.
///
/// # Shapes
/// `[batch, space 0, space 1, space 2, channels] -> [groups, batch * positions, taps * channels / groups]`
pub(super) fn unfold(windows: Windows, images: Tensor<5>) -> Tensor<3> {
    let [batch, .., channels] = images.dims();
    if windows.is_identity() {
        return images.reshape([1, batch * windows.count(), channels]);
    }
    Operation::new("unfold", move |inputs, wanted| {
        let result = columns_of(&windows, single(inputs));
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            Box::new(move |grad| vec![Some(images_of(&windows, [batch, channels], grad))])
        });
        Outcome { result, gradient }
    })
    .apply(vec![images.into()])
}

/// The images whose windows, summed where they overlap, are the rows of `columns`; keeps nothing.
///
/// # Shapes
/// `[groups, batch * positions, taps * channels / groups] -> [batch, space 0, space 1, space 2, channels]`
pub(super) fn fold(windows: Windows, columns: Tensor<3>) -> Tensor<5> {
    let [groups, rows, depth] = columns.dims();
    let size = [rows / windows.count(), groups * depth / windows.taps()];
    Operation::new("fold", move |inputs, wanted| {
        let result = images_of(&windows, size, single(inputs));
        let gradient = wanted
            .contains(&true)
            .then(|| -> Gradient { Box::new(move |grad| vec![Some(columns_of(&windows, grad))]) });
        Outcome { result, gradient }
    })
    .apply(vec![columns.into()])
}

fn single(inputs: Vec<FlexTensor>) -> FlexTensor {
    let Some(input) = inputs.into_iter().next() else {
        unreachable!("one input")
    };
    input
}

fn columns_of(windows: &Windows, images: FlexTensor) -> FlexTensor {
    let images = contiguous(images);
    let [batch, _, _, _, channels] = shape(&images)[..] else {
        unreachable!("images have five axes")
    };
    let rows = batch * windows.count();
    let depth = windows.taps() * channels / windows.groups;
    let mut columns = Buffer::new(windows.groups * rows * depth);
    windows.unfold(elements(&images), channels, &mut columns);
    columns.into_tensor(&[windows.groups, rows, depth])
}

fn images_of(windows: &Windows, [batch, channels]: [usize; 2], columns: FlexTensor) -> FlexTensor {
    let columns = contiguous(columns);
    let [first, second, third] = windows.image;
    let shape = [batch, first, second, third, channels];
    let mut images = Buffer::new(shape.iter().product());
    windows.fold(elements(&columns), channels, &mut images);
    images.into_tensor(&shape)
}
