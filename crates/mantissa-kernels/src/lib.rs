//! The f32 work between the products of a training step, fused: each operation reads and writes its tensors once.

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod loss;
pub mod norm;
pub mod optimizer;
pub mod reduce;
pub mod softmax;
