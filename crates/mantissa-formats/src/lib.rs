//! Number formats of 4 to 32 bits as plain data: one reference codec, fast slice codecs equal to it bit for bit, counter-based
//! random bits.
//!
//! This crate knows how one element is coded, and nothing of tensors or scales. It reads in this order:
//!
//! - [`Format`]: the formats, as data; [`Format::NAMED`] is the table of their specifications;
//! - [`Rounding`] and [`Overflow`]: what happens to a value that has no code;
//! - [`codec`]: the definition, one element at a time ([`encode`], [`decode`], [`round`]);
//! - [`Rounder`]: the same for slices, at the speed of memory;
//! - [`RandomBits`]: what stochastic rounding reads, a pure function of seed, stream and element index.
//!
//! ```
//! use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, decode, encode, round};
//!
//! // One element. OCP's E4M3 ends at 448 and has no infinity.
//! let e4m3: Format = "e4m3".parse()?;
//! assert_eq!(encode(e4m3, 1.3, Rounding::Nearest, Overflow::Special, 0), 0x3a);
//! assert_eq!(decode(e4m3, 0x3a), 1.25);
//! assert_eq!(round(e4m3, 1e9, Rounding::Nearest, Overflow::Saturate, 0), 448.0);
//! assert!(round(e4m3, 1e9, Rounding::Nearest, Overflow::Special, 0).is_nan());
//!
//! // A slice, rounded stochastically: 1.3 becomes 1.25 or 1.375, and 1.3 on average.
//! let mut values = vec![1.3; 100_000];
//! Rounder::new(e4m3, Rounding::Stochastic, Overflow::Saturate).round(RandomBits::new(1, 0), 0, &mut values);
//! assert!(values.iter().all(|x| [1.25, 1.375].contains(x)));
//! let mean = values.iter().sum::<f32>() / values.len() as f32;
//! assert!((mean - 1.3).abs() < 1e-3);
//!
//! // Any other float of up to 8 exponent and 23 mantissa bits has a name too.
//! let e6m9: Format = "e6m9".parse()?;
//! assert_eq!((e6m9.bits(), e6m9.max_finite()), (16, 4290772992.0));
//! # Ok::<(), mantissa_formats::UnknownName>(())
//! ```
//!
//! # Sources
//!
//! IEEE 754-2019 (binary16, binary32, roundings); OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2); OCP Microscaling Formats
//! Specification 1.0 (E8M0, E2M3, E3M2, E2M1); Noune et al. 2022, arXiv 2206.02915 (the `fnuz` formats); Salmon et al. 2011
//! (Philox). The golden tables in `golden/` come from ml_dtypes and gfloat.

#![deny(unsafe_code)]

mod block_loop;
pub mod codec;
mod format;
mod kernel;
mod level;
mod parse;
mod pass;
mod prefetch;
mod random;
#[cfg(target_arch = "x86_64")]
mod random_avx512;
mod rounding;
mod scales;
mod slice;

pub use codec::{decode, encode, round};
pub use format::{Format, Specials};
pub use level::SimdLevel;
pub use parse::UnknownName;
#[doc(hidden)]
pub use prefetch::ahead as prefetch_ahead;
pub use random::RandomBits;
pub use rounding::{Overflow, Rounding};
pub use slice::Rounder;
