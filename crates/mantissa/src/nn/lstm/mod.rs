//! [`burn::nn::lstm`], with layers that follow the current autocast.

mod bidirectional;
mod unidirectional;

pub use bidirectional::{BiLstm, BiLstmConfig};
pub use burn::nn::lstm::*;
pub use unidirectional::{Lstm, LstmConfig};
