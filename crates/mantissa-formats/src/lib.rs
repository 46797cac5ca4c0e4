//! Number formats of 4 to 32 bits as plain data: one reference codec, fast slice codecs equal to it bit for bit, counter-based random bits.

#![forbid(unsafe_code)]

pub mod codec;
mod format;
mod kernel;
mod parse;
mod random;
mod rounding;
mod slice;

pub use codec::{decode, encode, round};
pub use format::{Format, Specials};
pub use parse::UnknownName;
pub use random::RandomBits;
pub use rounding::{Overflow, Rounding};
pub use slice::Rounder;
