//! `burn::nn`, with the modules that follow the current autocast in place of Burn's.
//!
//! Every module here has the name, configuration, fields and record of Burn's, so `use mantissa::nn` instead of
//! `use burn::nn` is the whole change, and a checkpoint of one loads into the other. Outside
//! [`Session::autocast`](crate::Session::autocast) they run Burn's own ops; inside, products are quantized as the plan
//! says, and the work between them is fused unless [`Session::set_kernels`](crate::Session::set_kernels) asks for
//! Burn's.
//!
//! Products: [`Linear`], [`conv::Conv1d`], [`conv::Conv2d`], [`conv::Conv3d`], [`conv::ConvTranspose1d`],
//! [`conv::ConvTranspose2d`], [`conv::ConvTranspose3d`], [`Embedding`], [`Rnn`], [`BiRnn`], [`Lstm`], [`BiLstm`], [`Gru`],
//! [`BiGru`], [`SwiGlu`], [`attention::MultiHeadAttention`], [`attention::CrossAttention`],
//! [`transformer::TransformerEncoder`], [`transformer::TransformerDecoder`]. Between them: [`LayerNorm`], [`Dropout`],
//! [`activation::Gelu`], [`loss::CrossEntropyLoss`]. Everything else is Burn's. Of what multiplies, that is
//! [`conv::DeformConv2d`], a `SwiGlu` inside [`activation::Activation`], and [`RotaryEncoding`], whose matrix only flips signs:
//! they run in full precision.

pub mod activation;
pub mod attention;
pub mod basic;
pub mod cache;
pub mod conv;
mod dropout;
mod embedding;
mod gate_controller;
pub mod gru;
mod layer_norm;
mod linear;
pub mod loss;
pub mod lstm;
mod swiglu;
mod time;
pub mod transformer;

pub use activation::Gelu;
pub use basic::{BiRnn, BiRnnConfig, Rnn, RnnConfig};
pub use burn::nn::*;
pub use dropout::{Dropout, DropoutConfig};
pub use embedding::{Embedding, EmbeddingConfig};
pub use gate_controller::GateController;
pub use gru::{BiGru, BiGruConfig, Gru, GruConfig};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{Linear, LinearConfig};
pub use lstm::{BiLstm, BiLstmConfig, Lstm, LstmConfig};
pub use swiglu::{SwiGlu, SwiGluConfig};
