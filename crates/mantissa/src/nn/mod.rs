//! `burn::nn`, with the modules that multiply replaced by ones that follow the current autocast.
//!
//! Every module here has the name, configuration, fields and record of Burn's, so `use mantissa::nn` instead of
//! `use burn::nn` is the whole change, and a checkpoint of one loads into the other. Outside
//! [`Session::autocast`](crate::Session::autocast), and at sites whose numerics are `fp32`, they run Burn's own ops.
//!
//! Replaced so far: [`Linear`], [`Embedding`], [`attention::MultiHeadAttention`] and
//! [`transformer::TransformerEncoder`]; everything else is Burn's. Multiplying modules that are not replaced run in
//! full precision.

pub mod attention;
mod embedding;
mod linear;
pub mod transformer;

pub use burn::nn::*;
pub use embedding::{Embedding, EmbeddingConfig};
pub use linear::{Linear, LinearConfig};
