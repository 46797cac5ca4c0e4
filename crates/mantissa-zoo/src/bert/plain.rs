//! The network over `burn::nn`, from the same source.

#[path = "network.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "one source over two sets of layers is how they are known to be one network"
)]
mod network;

use burn::nn;
pub use network::Bert;
