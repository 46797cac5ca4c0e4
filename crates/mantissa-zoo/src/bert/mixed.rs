//! The network over `mantissa::nn`.

#[path = "network.rs"]
mod network;

use mantissa::nn;
pub use network::Bert;
