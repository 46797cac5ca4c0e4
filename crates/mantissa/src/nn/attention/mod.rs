//! [`burn::nn::attention`], with a [`MultiHeadAttention`] and a [`CrossAttention`] that follow the current autocast.

mod cache;
mod cross;
mod multi_head;

pub use burn::nn::attention::*;
pub use cache::MhaCache;
pub use cross::{CrossAttention, CrossAttentionCache, CrossAttentionConfig};
pub use multi_head::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
