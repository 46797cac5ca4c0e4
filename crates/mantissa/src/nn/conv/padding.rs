//! How many zeros a layer's padding stands for.

use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};

/// Elements before and after each axis of space.
type Pairs<const N: usize> = [(usize, usize); N];

pub(super) fn pairs_1d(
    padding: &PaddingConfig1d,
    size: [usize; 1],
    kernel: [usize; 1],
    stride: [usize; 1],
) -> Pairs<1> {
    match padding {
        PaddingConfig1d::Same => same(size, kernel, stride),
        PaddingConfig1d::Valid => [(0, 0)],
        PaddingConfig1d::Explicit(left, right) => [(*left, *right)],
    }
}

pub(super) fn pairs_2d(
    padding: &PaddingConfig2d,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> Pairs<2> {
    match padding {
        PaddingConfig2d::Same => same(size, kernel, stride),
        PaddingConfig2d::Valid => [(0, 0); 2],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(*top, *bottom), (*left, *right)],
    }
}

/// # Panics
/// If an axis needs another number of zeros before than after: Burn has no such convolution.
pub(super) fn pairs_3d(
    padding: &PaddingConfig3d,
    size: [usize; 3],
    kernel: [usize; 3],
    stride: [usize; 3],
) -> Pairs<3> {
    match padding {
        PaddingConfig3d::Same => {
            let pairs = same(size, kernel, stride);
            assert!(
                pairs.iter().all(|(before, after)| before == after),
                "`Same` padding of three axes needs kernels of odd sizes: {kernel:?} over {size:?} would need {pairs:?}"
            );
            pairs
        }
        PaddingConfig3d::Valid => [(0, 0); 3],
        PaddingConfig3d::Explicit(depth, height, width) => {
            [*depth, *height, *width].map(|zeros| (zeros, zeros))
        }
    }
}

/// The zeros for `ceil(size / stride)` windows, the odd one after, as in ONNX and Burn; dilation does not count.
fn same<const N: usize>(size: [usize; N], kernel: [usize; N], stride: [usize; N]) -> Pairs<N> {
    std::array::from_fn(|axis| {
        let windows = size[axis].div_ceil(stride[axis]);
        let covered = windows.saturating_sub(1) * stride[axis] + kernel[axis];
        let zeros = if windows == 0 {
            0
        } else {
            covered.saturating_sub(size[axis])
        };
        (zeros / 2, zeros - zeros / 2)
    })
}
