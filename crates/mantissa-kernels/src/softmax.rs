//! Scaled and masked softmax.
