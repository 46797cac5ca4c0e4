//! The operations between the products of a training step, each one pass over its tensors, on Burn tensors.
//!
//! The arithmetic is that of [`mantissa_kernels`]; here it meets Burn's graph. Every operation keeps for its backward
//! pass only what it cannot compute again cheaply.

mod activation;
mod attention;
mod dropout;
mod embedding;
mod loss;
mod norm;
mod softmax;

pub(crate) use activation::activation;
pub(crate) use attention::attention;
pub(crate) use dropout::{dropout, dropout_add};
pub(crate) use embedding::embedding;
pub(crate) use loss::cross_entropy;
pub(crate) use norm::layer_norm;
pub(crate) use softmax::{ScoreMask, softmax};
