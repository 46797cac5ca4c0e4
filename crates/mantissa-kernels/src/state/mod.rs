//! What an optimizer remembers of each parameter, in few bits.
//!
//! A moment is stored as codes, with a scale for each block of them or for the tensor, and never as anything wider: an update
//! decodes a piece of it into the first cache, computes in f32, and codes the piece again, in one pass over memory. (Only a scale
//! for the whole tensor needs two, because it depends on the largest of the new moments.)
//!
//! - [`StateFormat`]: how the elements are coded, as data with a text form; [`StateFormats`] for both moments;
//! - [`Moment`]: first or second, which decides what the codes are spent on;
//! - [`StateBuffer`]: the codes and scales of one tensor's moment;
//! - [`StateView`]: a moment as the updates of [`optimizer`](crate::optimizer) take it.
//!
//! A second moment that is positive never becomes zero, whatever its format: it rounds up to the smallest positive code. The
//! quotient of the moments would otherwise explode where the first moment survives. A scale is never infinite and, but for a block
//! of nothing but zeros, never zero; what lies beyond it saturates.
//!
//! ```
//! use mantissa_formats::RandomBits;
//! use mantissa_kernels::optimizer::{Adam, WeightDecay};
//! use mantissa_kernels::state::{Moment, StateBuffer, StateFormat};
//!
//! let format: StateFormat = "dynamic8/block256".parse()?;
//! let mut first = StateBuffer::zeros(format, Moment::First, 1000);
//! let mut second = StateBuffer::zeros(format, Moment::Second, 1000);
//! let mut parameters = vec![1.0; 1000];
//! let adam = Adam::new([0.9, 0.999], 1e-8, WeightDecay::Decoupled(0.01), 1e-3, 1);
//! let views = [first.view(RandomBits::NONE), second.view(RandomBits::NONE)];
//! adam.update(1.0, &vec![0.5; 1000], &mut parameters, views);
//! assert_eq!(first.bytes() + second.bytes(), 2 * (1000 + 4 * 4));
//! # Ok::<(), mantissa_kernels::state::StateFormatError>(())
//! ```

mod buffer;
mod coder;
mod expansion;
mod format;
mod map;
mod pair;
mod pass;

pub use buffer::{DamagedState, StateBuffer, StateView};
pub use format::{StateFormat, StateFormatError};
pub use pair::StateFormats;
pub(crate) use pass::update;

/// What of the gradients a buffer averages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The gradients themselves, of either sign: Adam's first moment, the velocity of momentum.
    First,
    /// Their squares, which are never negative. Coded so that what is positive stays positive.
    Second,
}
