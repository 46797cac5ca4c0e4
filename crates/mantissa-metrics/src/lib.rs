//! One-pass statistics of tensors, distribution fits and quantization-error metrics.
//!
//! Three questions, in the order in which a choice of numerics asks them:
//!
//! 1. *What do the values look like?* [`TensorStatistics`] (which are [`Moments`] and an
//!    [`ExponentHistogram`]), [`MagnitudeSketch`], [`GroupSpreads`] and [`fit_distributions`].
//! 2. *What does a numerics do to them?* [`quantization_error`]: SQNR, MSE, bias, cosine,
//!    underflow, saturation, clipping.
//! 3. *What does it do to the product?* [`backward_error`]: |LR − Q(L,R)| / (|L||R|), element by
//!    element; [`SignedError`]: its bias, and the cosine of what a training step makes of it.
//!
//! How far a sample can be trusted is part of the answer: an [`Estimate`] has a standard error and a
//! confidence interval, quantiles have theirs ([`quantile_interval`]).
//!
//! ```
//! use mantissa_formats::RandomBits;
//! use mantissa_metrics::{ExactProduct, Moments, fit_student_t, quantization_error, sample};
//! use mantissa_quant::{Numerics, Operand};
//!
//! // Two matrices of 64 rows with heavy tails, to be multiplied along their 256 columns.
//! let left = sample::student_t(3.0, RandomBits::new(1, 0), 64 * 256);
//! let right = sample::student_t(3.0, RandomBits::new(1, 1), 64 * 256);
//!
//! assert!(Moments::of(&left).kurtosis().unwrap() > 3.0);
//! assert!(fit_student_t(&left).unwrap().nu < 4.0);
//!
//! let (lhs, rhs) = (Operand::matrix(&left, 64, 256)?, Operand::matrix(&right, 64, 256)?);
//! let exact = ExactProduct::new(&lhs, &rhs);
//! let median = |token: &str| {
//!     let numerics: Numerics = token.parse().unwrap();
//!     let none = RandomBits::NONE;
//!     exact.backward_error(&numerics, none, &numerics, none).unwrap().median
//! };
//! // With one scale for the whole tensor, tails like these need exponent bits; with a scale for
//! // every 32 elements, mantissa bits are worth more.
//! assert!(median("e4m3/tensor") < median("int8/tensor"));
//! assert!(median("int8/block32") < median("e4m3/block32"));
//!
//! // The reason: one scale lets int8 lose small elements.
//! let error = quantization_error(&lhs, &"int8/tensor".parse()?, RandomBits::NONE);
//! assert!(error.underflow > 0.05 && error.saturation == 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything here is deterministic: the same input gives the same bits, whatever the number of
//! threads or the width of the machine's vectors.
#![forbid(unsafe_code)]

mod backward;
mod chunk;
mod distribution;
mod error;
mod estimate;
mod exponents;
mod fit;
mod groups;
mod histogram;
mod interval;
mod moments;
mod row;
pub mod sample;
mod serial;
mod signed;
mod sketch;
mod statistics;
mod student;

pub use backward::{BackwardError, ExactProduct, backward_error};
pub use distribution::Distribution;
pub use error::{ErrorSums, QuantizationError, cosine, quantization_error, row_errors};
pub use estimate::{CrossedSums, Estimate};
pub use fit::{Fit, Fits, fit_distributions};
pub use groups::{GroupSpread, GroupSpreads};
pub use histogram::ExponentHistogram;
pub use interval::{Interval, mean_interval, quantile_interval};
pub use moments::Moments;
pub use signed::{Compared, SignedError};
pub use sketch::MagnitudeSketch;
pub use statistics::TensorStatistics;
pub use student::{StudentT, estimate_nu, fit_student_t};
