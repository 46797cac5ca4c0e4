//! [`burn::nn::attention`], with a [`MultiHeadAttention`] that follows the current autocast.

mod cache;
mod multi_head;

pub use burn::nn::attention::*;
pub use cache::MhaCache;
pub use multi_head::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
