//! Convolutions as products: columns of the unfolded input times a weight, and the transposed ones.
//!
//! The whole batch is unfolded at once, so that one scale can hold for all of a tensor and the weight's gradient is one
//! contraction over all positions. The columns take `taps / stride` times the memory of the input, and are what waits for
//! the backward pass: in the codes of their numerics, one byte an element, where one scale serves both passes that read
//! them. Kernels of one element need no columns of their own.

use burn::module::Param;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Shape, Tensor};

use super::unfold::{fold, unfold};
use super::windows::Windows;
use crate::product::{observe, site_product};
use crate::session::SiteUse;
use crate::sites::SiteKey;
use crate::storage::read;

/// The parameters of a layer whose tensors have `D` axes.
pub(super) struct Parameters<'a, const D: usize> {
    pub(super) weight: &'a Param<Tensor<D>>,
    pub(super) bias: &'a Option<Param<Tensor<1>>>,
}

impl<const D: usize> Parameters<'_, D> {
    fn values(&self) -> (Tensor<D>, Option<Tensor<1>>) {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        (read(self.weight.val()), bias)
    }

    fn site(&self) -> Option<SiteUse> {
        SiteUse::of_key(SiteKey::Weight(self.weight.id))
    }
}

/// A convolution: `burns` outside an autocast and at sites that Burn computes.
///
/// # Panics
/// If the input has not the channels of the weight, or is smaller than the kernel.
pub(super) fn convolution<const D: usize, const N: usize>(
    input: Tensor<D>,
    parameters: Parameters<'_, D>,
    options: ConvOptions<N>,
    burns: impl FnOnce(Tensor<D>, Tensor<D>, Option<Tensor<1>>, ConvOptions<N>) -> Tensor<D>,
) -> Tensor<D> {
    let (weight, bias) = parameters.values();
    let Some(site) = parameters.site() else {
        return burns(input, weight, bias, options);
    };
    let windows = windows_of_convolution(&input, &weight, &options);
    let columns = |input| unfold(windows, channels_last(input));
    if !site.is_burns() {
        let size = [input.dims()[0], weight.dims()[0]];
        let (inner, outer) = split_bias(bias, windows.groups);
        let weight = kernel_matrix(weight, windows.groups);
        let rows = site_product(site, columns(input), weight, inner);
        let images = images_of_rows(rows, size, windows.positions);
        return channels_second(add_bias(images, outer));
    }
    let output = burns(input.clone(), weight.clone(), bias, options);
    if !site.is_profiled() {
        return output;
    }
    let size = [output.dims()[0], output.dims()[1]];
    let rows = rows_of_images(channels_last(output), windows.groups);
    let weight = kernel_matrix(weight, windows.groups);
    let rows = observe(site, columns(input), weight, rows);
    channels_second(images_of_rows(rows, size, windows.positions))
}

/// A transposed convolution: `burns` outside an autocast and at sites that Burn computes.
///
/// # Panics
/// If the input has not the channels of the weight, or the output would be empty.
pub(super) fn transposed_convolution<const D: usize, const N: usize>(
    input: Tensor<D>,
    parameters: Parameters<'_, D>,
    options: ConvTransposeOptions<N>,
    burns: impl FnOnce(Tensor<D>, Tensor<D>, Option<Tensor<1>>, ConvTransposeOptions<N>) -> Tensor<D>,
) -> Tensor<D> {
    let (weight, bias) = parameters.values();
    let Some(site) = parameters.site() else {
        return burns(input, weight, bias, options);
    };
    let windows = windows_of_transposed(&input, &weight, &options);
    let rows = |input| rows_of_images(channels_last(input), windows.groups);
    if !site.is_burns() {
        let weight = transposed_kernel_matrix(weight, windows.groups);
        let columns = site_product(site, rows(input), weight, None);
        return channels_second(add_bias(fold(windows, columns), bias));
    }
    let output = burns(input.clone(), weight.clone(), bias, options);
    if !site.is_profiled() {
        return output;
    }
    // Burn's op has no columns whose gradient could be measured. These are zeros with that gradient, and the signs
    // leave every output as it is, negative zeros too.
    let (rows, weight) = (
        rows(input),
        transposed_kernel_matrix(weight, windows.groups),
    );
    let [groups, count, _] = rows.dims();
    let columns = Tensor::zeros([groups, count, weight.dims()[2]], &rows.device()).require_grad();
    let columns = observe(site, rows, weight, columns);
    output - channels_second(fold(windows, columns.neg()))
}

fn windows_of_convolution<const D: usize, const N: usize>(
    input: &Tensor<D>,
    weight: &Tensor<D>,
    options: &ConvOptions<N>,
) -> Windows {
    let (input, weight) = (input.dims(), weight.dims());
    assert_eq!(
        input[1],
        weight[1] * options.groups,
        "the input has {} channels, not the {} of the layer",
        input[1],
        weight[1] * options.groups
    );
    let (image, kernel) = (three(&input[2..]), three(&weight[2..]));
    let stride = three(&options.stride);
    let dilation = three(&options.dilation);
    let padding = three(&options.padding_begin());
    let mut after = [0; 3];
    after[3 - N..].copy_from_slice(&options.padding_end());
    let padding = without_missing::<N>(padding);
    let positions = [0, 1, 2].map(|axis| {
        let padded = image[axis] + padding[axis] + after[axis];
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        assert!(
            padded >= reach,
            "a kernel that reaches over {reach} elements does not fit {padded} elements with padding"
        );
        (padded - reach) / stride[axis] + 1
    });
    Windows {
        image,
        kernel,
        stride,
        dilation,
        padding,
        positions,
        groups: options.groups,
    }
}

fn windows_of_transposed<const D: usize, const N: usize>(
    input: &Tensor<D>,
    weight: &Tensor<D>,
    options: &ConvTransposeOptions<N>,
) -> Windows {
    let (input, weight) = (input.dims(), weight.dims());
    assert_eq!(
        input[1], weight[0],
        "the input has {} channels, not the {} of the layer",
        input[1], weight[0]
    );
    let (positions, kernel) = (three(&input[2..]), three(&weight[2..]));
    let stride = three(&options.stride);
    let dilation = three(&options.dilation);
    let padding = without_missing::<N>(three(&options.padding));
    let extra = without_missing::<N>(three(&options.padding_out));
    let image = [0, 1, 2].map(|axis| {
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        let padded = (positions[axis] - 1) * stride[axis] + reach + extra[axis];
        assert!(
            padded > 2 * padding[axis],
            "padding of {} leaves nothing of {padded} elements",
            padding[axis]
        );
        padded - 2 * padding[axis]
    });
    Windows {
        image,
        kernel,
        stride,
        dilation,
        padding,
        positions,
        groups: options.groups,
    }
}

/// Values of up to three axes of space; those of the missing first ones are 1.
fn three(values: &[usize]) -> [usize; 3] {
    let mut all = [1; 3];
    all[3 - values.len()..].copy_from_slice(values);
    all
}

/// Padding, of which the missing axes have none.
fn without_missing<const N: usize>(mut padding: [usize; 3]) -> [usize; 3] {
    padding[..3 - N].fill(0);
    padding
}

/// `[batch, channels, space…] -> [batch, space 0, space 1, space 2, channels]`
fn channels_last<const D: usize>(images: Tensor<D>) -> Tensor<5> {
    let size = images.dims();
    let [first, second, third] = three(&size[2..]);
    let axes = std::array::from_fn::<usize, D, _>(|axis| match axis {
        0 => 0,
        axis if axis == D - 1 => 1,
        axis => axis + 1,
    });
    images
        .permute(axes)
        .reshape([size[0], first, second, third, size[1]])
}

/// `[batch, space 0, space 1, space 2, channels] -> [batch, channels, space…]`
fn channels_second<const D: usize>(images: Tensor<5>) -> Tensor<D> {
    let size = images.dims();
    let mut last = vec![size[0]];
    last.extend_from_slice(&size[6 - D..]);
    let images = images.reshape::<D, _>(Shape::from(last));
    images.permute(std::array::from_fn::<usize, D, _>(|axis| match axis {
        0 => 0,
        1 => D - 1,
        axis => axis - 1,
    }))
}

/// `[batch, space 0, space 1, space 2, channels] -> [groups, batch * positions, channels / groups]`
fn rows_of_images(images: Tensor<5>, groups: usize) -> Tensor<3> {
    let [batch, first, second, third, channels] = images.dims();
    let rows = batch * first * second * third;
    if groups == 1 {
        images.reshape([1, rows, channels])
    } else {
        images
            .reshape([rows, groups, channels / groups])
            .swap_dims(0, 1)
    }
}

/// `[groups, batch * positions, channels / groups] -> [batch, space 0, space 1, space 2, channels]`
fn images_of_rows(
    rows: Tensor<3>,
    [batch, channels]: [usize; 2],
    [first, second, third]: [usize; 3],
) -> Tensor<5> {
    let rows = if rows.dims()[0] == 1 {
        rows
    } else {
        rows.swap_dims(0, 1)
    };
    rows.reshape([batch, first, second, third, channels])
}

/// `[channels out, channels in / groups, taps…] -> [groups, taps * channels in / groups, channels out / groups]`
fn kernel_matrix<const D: usize>(weight: Tensor<D>, groups: usize) -> Tensor<3> {
    let size = weight.dims();
    let taps = size[2..].iter().product::<usize>();
    let outer = size[0] / groups;
    weight
        .reshape([groups, outer, size[1], taps])
        .permute([0, 3, 2, 1])
        .reshape([groups, taps * size[1], outer])
}

/// `[channels in, channels out / groups, taps…] -> [groups, channels in / groups, taps * channels out / groups]`
fn transposed_kernel_matrix<const D: usize>(weight: Tensor<D>, groups: usize) -> Tensor<3> {
    let size = weight.dims();
    let taps = size[2..].iter().product::<usize>();
    let inner = size[0] / groups;
    weight
        .reshape([groups, inner, size[1], taps])
        .swap_dims(2, 3)
        .reshape([groups, inner, taps * size[1]])
}

/// The bias that the product adds, and the one that is added to the images: columns of several groups share no bias.
fn split_bias(bias: Option<Tensor<1>>, groups: usize) -> (Option<Tensor<1>>, Option<Tensor<1>>) {
    if groups == 1 {
        (bias, None)
    } else {
        (None, bias)
    }
}

fn add_bias(images: Tensor<5>, bias: Option<Tensor<1>>) -> Tensor<5> {
    match bias {
        Some(bias) => {
            let [channels] = bias.dims();
            images + bias.reshape([1, 1, 1, 1, channels])
        }
        None => images,
    }
}
