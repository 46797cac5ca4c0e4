//! [`burn::nn::basic`], of layers that follow the current autocast.

mod bidirectional;
mod unidirectional;

pub use bidirectional::{BiRnn, BiRnnConfig};
pub use burn::nn::basic::*;
pub use unidirectional::{Rnn, RnnConfig};
