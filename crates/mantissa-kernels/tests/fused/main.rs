//! Every fused operation against a plain one in f64, every backward against central differences of that, at awkward sizes.

mod activation;
mod attention;
mod comparison;
mod dropout;
mod embedding;
mod loss;
mod norm;
mod reduce;
mod softmax;
mod threads;
