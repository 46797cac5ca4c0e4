//! [`burn::nn::conv`], with convolutions that follow the current autocast.
//!
//! Inside an autocast a convolution is a product, one site: the windows of the input, one a row, times the kernel as a
//! matrix. Its three passes quantize their operands along their own contraction: `forward` over the elements of a
//! window, `grad_lhs` over the channels of the output, `grad_rhs` over the positions of the batch. A transposed
//! convolution contracts the channels of its input instead and sums windows. Groups are a batch of products.
//!
//! A window holds the channels of one tap beside each other, so that blocks of scales are channels of one tap.
//!
//! Deformable convolutions are Burn's: they sample their windows between the elements of the input.

mod conv1d;
mod conv2d;
mod conv3d;
mod conv_transpose1d;
mod conv_transpose2d;
mod conv_transpose3d;
mod convolve;
mod padding;
mod unfold;
mod windows;

pub use burn::nn::conv::*;
pub use conv_transpose1d::{ConvTranspose1d, ConvTranspose1dConfig};
pub use conv_transpose2d::{ConvTranspose2d, ConvTranspose2dConfig};
pub use conv_transpose3d::{ConvTranspose3d, ConvTranspose3dConfig};
pub use conv1d::{Conv1d, Conv1dConfig};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use conv3d::{Conv3d, Conv3dConfig};
