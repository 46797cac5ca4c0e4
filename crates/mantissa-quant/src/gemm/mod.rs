//! Products of matrices whose elements are quantized while they are packed.
//!
//! It reads in this order:
//!
//! - [`tile`]: the microkernel and the two traits of vector operations that it is written on;
//! - [`avx512`], [`avx2`], [`neon`], [`portable`]: those operations, a file for each instruction set;
//! - [`kernel`]: which of the kernels this machine has;
//! - [`side`]: an operand as it is read: values that are quantized on the way, or codes;
//! - [`pack`]: from lines of an operand to what the microkernel wants, each element once;
//! - [`driver`] and [`plan`]: the loops around it, over blocks that fit the caches, on all threads.
//!
//! An element of the result is one chain of operations in a fixed order, so it is the same, bit for
//! bit, on every instruction set and every number of threads.

#[cfg(test)]
mod agreement;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod driver;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod plan;
mod portable;
mod scratch;
mod side;
mod tile;
mod transpose;

pub use driver::{Job, multiply};
pub use kernel::Kernel;
pub use side::{Reading, Scales, Side, Values};
pub use transpose::transpose;
