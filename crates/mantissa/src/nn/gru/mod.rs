//! [`burn::nn::gru`], of layers that follow the current autocast.

mod bidirectional;
mod unidirectional;

pub use bidirectional::{BiGru, BiGruConfig};
pub use unidirectional::{Gru, GruConfig};
