//! The f32 work between the products of a training step, fused: each operation reads and writes its tensors once.
//!
//! Tensors are contiguous row-major slices of f32; the *width* is the length of the last axis. Every backward is written by hand
//! and most work in place, from the gradient of the output to that of the input.
//!
//! Results are the same bits on every number of threads, and on every vector unit. Operations allocate nothing once a thread has its
//! scratch memory. Both have one exception, the products inside [`attention`](mod@attention): the `gemm` crate chooses the unit and
//! allocates memory to pack into.

pub mod activation;
pub mod attention;
pub mod dropout;
pub mod embedding;
#[cfg(test)]
mod every_unit;
mod heads;
pub mod loss;
mod math;
pub mod norm;
pub mod optimizer;
mod powers;
pub mod reduce;
mod rows;
mod scratch;
pub mod softmax;
pub mod state;
mod vector;
