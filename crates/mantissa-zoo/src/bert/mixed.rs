//! The network over `mantissa::nn`.

#[path = "network.rs"]
mod network;

use burn::nn;
pub use network::Bert;
