//! One-pass statistics of tensors, distribution fits and quantization-error metrics.
//!
//! Three questions, in the order in which a choice of numerics asks them:
//!
//! 1. *What do the values look like?* [`Moments`], [`ExponentHistogram`] and [`fit_student_t`].
//! 2. *What does a numerics do to them?* [`quantization_error`]: SQNR, MSE, bias, cosine, underflow, saturation.
//! 3. *What does it do to the product?* [`backward_error`]: |LR − Q(L,R)| / (|L||R|), element by element.
//!
//! Everything here is deterministic: the same input gives the same bits, whatever the number of threads or the width of
//! the machine's vectors.
#![forbid(unsafe_code)]

mod backward;
mod error;
mod histogram;
mod interval;
mod moments;
pub mod sample;
mod serial;
mod student;

pub use backward::{BackwardError, ExactProduct, backward_error};
pub use error::{QuantizationError, cosine, quantization_error};
pub use histogram::ExponentHistogram;
pub use interval::{Interval, mean_interval, quantile_interval};
pub use moments::Moments;
pub use student::{StudentT, fit_student_t};
