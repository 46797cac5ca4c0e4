//! Convolutions under quantized numerics equal a reference that takes windows by their definition, quantizes with the
//! scalar codec and multiplies in f64.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use mantissa::plan::{PassNumerics, Plan, Recipe, SiteNumerics};
use mantissa::{Session, plan::Pass};
use mantissa_quant::Numerics;

mod reference;

use reference::{Matrices, product, values};

const BATCH: usize = 3;
const KERNEL: [usize; 2] = [3, 2];
const STRIDE: [usize; 2] = [2, 1];
const DILATION: [usize; 2] = [1, 3];
/// Zeros above and below, left and right.
const PADDING: [usize; 2] = [1, 2];
/// Sizes of the larger and of the smaller images: of a convolution's input and output, and the other way round.
const LARGE: [usize; 2] = [7, 8];
const SMALL: [usize; 2] = [4, 9];
const GROUPS: usize = 2;
const TAPS: usize = KERNEL[0] * KERNEL[1];
const WINDOWS: usize = SMALL[0] * SMALL[1];

/// Where tap `tap` of window `window` is in a large image, if not in its padding.
fn place(window: usize, tap: usize) -> Option<usize> {
    let at = [window / SMALL[1], window % SMALL[1]];
    let tap = [tap / KERNEL[1], tap % KERNEL[1]];
    let along = |axis: usize| {
        let place = at[axis] * STRIDE[axis] + tap[axis] * DILATION[axis];
        let place = place.checked_sub(PADDING[axis])?;
        (place < LARGE[axis]).then_some(place)
    };
    Some(along(0)? * LARGE[1] + along(1)?)
}

/// Columns of images `[BATCH, channels, LARGE]`: rows of windows, the channels of a tap beside each other.
fn columns(images: &[f32], channels: usize) -> Matrices {
    let per_group = channels / GROUPS;
    let size = LARGE[0] * LARGE[1];
    let mut values = Vec::new();
    for group in 0..GROUPS {
        for row in 0..BATCH * WINDOWS {
            for depth in 0..TAPS * per_group {
                let channel = group * per_group + depth % per_group;
                let image = &images[(row / WINDOWS * channels + channel) * size..][..size];
                let place = place(row % WINDOWS, depth / per_group);
                values.push(place.map_or(0.0, |place| image[place]));
            }
        }
    }
    Matrices {
        values,
        outer: BATCH * WINDOWS,
        depth: TAPS * per_group,
    }
}

/// Images whose elements are the sums of what columns hold of them, with the sums of magnitudes.
fn images(columns: &[(f64, f64)], channels: usize) -> Vec<(f64, f64)> {
    let per_group = channels / GROUPS;
    let size = LARGE[0] * LARGE[1];
    let mut images = vec![(0.0, 0.0); BATCH * channels * size];
    let depth = TAPS * per_group;
    for (i, (x, magnitude)) in columns.iter().enumerate() {
        let (row, depth) = (i / depth, i % depth);
        let (group, row) = (row / (BATCH * WINDOWS), row % (BATCH * WINDOWS));
        let channel = group * per_group + depth % per_group;
        if let Some(place) = place(row % WINDOWS, depth / per_group) {
            let sum = &mut images[(row / WINDOWS * channels + channel) * size + place];
            *sum = (sum.0 + x, sum.1 + magnitude);
        }
    }
    images
}

/// `[BATCH, channels, SMALL] -> [GROUPS, BATCH * WINDOWS, channels / GROUPS]`
fn rows(images: &[f32], channels: usize) -> Matrices {
    let per_group = channels / GROUPS;
    let mut values = Vec::new();
    for group in 0..GROUPS {
        for row in 0..BATCH * WINDOWS {
            for channel in group * per_group..(group + 1) * per_group {
                let at = (row / WINDOWS * channels + channel) * WINDOWS + row % WINDOWS;
                values.push(images[at]);
            }
        }
    }
    Matrices {
        values,
        outer: BATCH * WINDOWS,
        depth: per_group,
    }
}

/// The inverse of [`rows`].
fn images_of_rows(rows: &[(f64, f64)], channels: usize) -> Vec<(f64, f64)> {
    let per_group = channels / GROUPS;
    (0..rows.len())
        .map(|i| {
            let (image, within) = (i / (channels * WINDOWS), i % (channels * WINDOWS));
            let (channel, window) = (within / WINDOWS, within % WINDOWS);
            let (group, channel) = (channel / per_group, channel % per_group);
            rows[((group * BATCH + image) * WINDOWS + window) * per_group + channel]
        })
        .collect()
}

/// A weight `[GROUPS * first, second, TAPS]` as `[GROUPS]` matrices `[TAPS * second, first]`.
fn kernel(weight: &[f32], first: usize, second: usize) -> Matrices {
    let mut values = Vec::new();
    for group in 0..GROUPS {
        for depth in 0..TAPS * second {
            let (tap, inner) = (depth / second, depth % second);
            let at = |outer| ((group * first + outer) * second + inner) * TAPS + tap;
            values.extend((0..first).map(|outer| weight[at(outer)]));
        }
    }
    Matrices {
        values,
        outer: TAPS * second,
        depth: first,
    }
}

/// The inverse of [`kernel`].
fn weight_of_kernel(kernel: &[(f64, f64)], first: usize, second: usize) -> Vec<(f64, f64)> {
    (0..kernel.len())
        .map(|i| {
            let (outer, within) = (i / (second * TAPS), i % (second * TAPS));
            let (group, outer) = (outer / first, outer % first);
            let depth = within % TAPS * second + within / TAPS;
            kernel[(group * TAPS * second + depth) * first + outer]
        })
        .collect()
}

fn assert_within_rounding(what: &str, actual: &[f32], expected: &[(f64, f64)], terms: usize) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (actual, (exact, magnitude))) in actual.iter().zip(expected).enumerate() {
        let bound = (terms as f64 + 4.0) * f64::from(f32::EPSILON) * magnitude;
        let error = (f64::from(*actual) - exact).abs();
        assert!(
            error <= bound,
            "{what}[{i}]: {actual} instead of {exact}, bound {bound}"
        );
    }
}

fn session<M: Module>(layer: &M, numerics: SiteNumerics) -> Session {
    let recipe = Recipe::preset("fp32").unwrap();
    let mut plan = Plan::from_recipe(&recipe, &mantissa::sites(layer)).unwrap();
    plan.sites[0].numerics = numerics;
    Session::bind(layer, &plan, 5).unwrap()
}

/// Different numerics in each pass, so that a mix-up of passes or operands shows.
fn cases() -> impl Iterator<Item = (String, SiteNumerics)> {
    let pairs = [
        ("int8/tensor", "e4m3/tensor"),
        ("int8/channel", "int8/channel"),
        ("int8/block4", "e5m2/channel"),
        ("e5m2/unscaled", "bf16"),
        ("mxfp8", "int8/tensor"),
    ];
    pairs.into_iter().map(|(first, second)| {
        let numerics = |text: &str| text.parse::<Numerics>().unwrap();
        let (left, right) = (numerics(first), numerics(second));
        let pass = PassNumerics { left, right };
        let swapped = PassNumerics {
            left: right,
            right: left,
        };
        let site = SiteNumerics {
            forward: pass,
            grad_lhs: swapped,
            grad_rhs: pass,
        };
        (format!("{first} x {second}"), site)
    })
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, &Device::flex().autodiff())
}

fn elements<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Output, and gradients of input and weight, of a layer with this weight and without a bias.
fn run<M: Module>(
    session: &Session,
    layer: &M,
    weight: &Param<Tensor<4>>,
    [input, upstream]: [Tensor<4>; 2],
    forward: impl Fn(&M, Tensor<4>) -> Tensor<4>,
) -> [Vec<f32>; 3] {
    let input = input.require_grad();
    session.begin_step(0);
    let output = session.autocast(|| forward(layer, input.clone()));
    let gradients = (output.clone() * upstream).sum().backward();
    let grad = input.grad(&gradients).unwrap();
    let grad_weight = weight.val().grad(&gradients).unwrap();
    [elements(output), elements(grad), elements(grad_weight)]
}

#[test]
fn the_three_passes_of_a_convolution() {
    // Channels of a group, of the input and of the output.
    const IN: usize = 5;
    const OUT: usize = 4;
    let large = values(BATCH * GROUPS * IN * LARGE[0] * LARGE[1], 1);
    let weight = values(GROUPS * OUT * IN * TAPS, 2);
    let small = values(BATCH * GROUPS * OUT * WINDOWS, 3);
    let (lhs, rhs) = (columns(&large, GROUPS * IN), kernel(&weight, OUT, IN));
    let grad = rows(&small, GROUPS * OUT);

    let [vertical, horizontal] = PADDING;
    let mut layer: Conv2d = Conv2dConfig::new([GROUPS * IN, GROUPS * OUT], KERNEL)
        .with_stride(STRIDE)
        .with_dilation(DILATION)
        .with_groups(GROUPS)
        .with_padding(PaddingConfig2d::Explicit(
            vertical, horizontal, vertical, horizontal,
        ))
        .with_bias(false)
        .init(&Device::flex().autodiff());
    let shape = layer.weight.dims();
    layer.weight = Param::from_tensor(tensor(&weight, shape));
    for (what, numerics) in cases() {
        let session = session(&layer, numerics);
        let input = tensor(&large, [BATCH, GROUPS * IN, LARGE[0], LARGE[1]]);
        let upstream = tensor(&small, [BATCH, GROUPS * OUT, SMALL[0], SMALL[1]]);
        let forward = |layer: &Conv2d, x| layer.forward(x);
        let [output, grad_lhs, grad_rhs] =
            run(&session, &layer, &layer.weight, [input, upstream], forward);

        let expected = product(&lhs, &rhs.transposed(), &numerics.forward);
        let expected = images_of_rows(&expected, GROUPS * OUT);
        let what = |pass: Pass| format!("{what} {pass}");
        assert_within_rounding(&what(Pass::Forward), &output, &expected, TAPS * IN);
        let expected = images(&product(&grad, &rhs, &numerics.grad_lhs), GROUPS * IN);
        assert_within_rounding(&what(Pass::GradLhs), &grad_lhs, &expected, OUT + TAPS);
        let expected = product(&lhs.transposed(), &grad.transposed(), &numerics.grad_rhs);
        let expected = weight_of_kernel(&expected, OUT, IN);
        assert_within_rounding(&what(Pass::GradRhs), &grad_rhs, &expected, BATCH * WINDOWS);
    }
}

#[test]
fn the_three_passes_of_a_transposed_convolution() {
    const IN: usize = 5;
    const OUT: usize = 4;
    let small = values(BATCH * GROUPS * IN * WINDOWS, 1);
    let weight = values(GROUPS * IN * OUT * TAPS, 2);
    let large = values(BATCH * GROUPS * OUT * LARGE[0] * LARGE[1], 3);
    let lhs = rows(&small, GROUPS * IN);
    let rhs = kernel(&weight, IN, OUT).transposed();
    let grad = columns(&large, GROUPS * OUT);

    let mut layer: ConvTranspose2d =
        ConvTranspose2dConfig::new([GROUPS * IN, GROUPS * OUT], KERNEL)
            .with_stride(STRIDE)
            .with_dilation(DILATION)
            .with_groups(GROUPS)
            .with_padding(PADDING)
            .with_bias(false)
            .init(&Device::flex().autodiff());
    let shape = layer.weight.dims();
    layer.weight = Param::from_tensor(tensor(&weight, shape));
    for (what, numerics) in cases() {
        let session = session(&layer, numerics);
        let input = tensor(&small, [BATCH, GROUPS * IN, SMALL[0], SMALL[1]]);
        let upstream = tensor(&large, [BATCH, GROUPS * OUT, LARGE[0], LARGE[1]]);
        let forward = |layer: &ConvTranspose2d, x| layer.forward(x);
        let [output, grad_lhs, grad_rhs] =
            run(&session, &layer, &layer.weight, [input, upstream], forward);

        let expected = product(&lhs, &rhs.transposed(), &numerics.forward);
        let expected = images(&expected, GROUPS * OUT);
        let what = |pass: Pass| format!("{what} {pass}");
        assert_within_rounding(&what(Pass::Forward), &output, &expected, IN + TAPS);
        let expected = product(&grad, &rhs, &numerics.grad_lhs);
        let expected = images_of_rows(&expected, GROUPS * IN);
        assert_within_rounding(&what(Pass::GradLhs), &grad_lhs, &expected, TAPS * OUT);
        let expected = product(
            &grad.transposed(),
            &lhs.transposed(),
            &PassNumerics {
                left: numerics.grad_rhs.right,
                right: numerics.grad_rhs.left,
            },
        );
        let expected = weight_of_kernel(&expected, IN, OUT);
        assert_within_rounding(&what(Pass::GradRhs), &grad_rhs, &expected, BATCH * WINDOWS);
    }
}
