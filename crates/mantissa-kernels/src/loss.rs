//! Cross-entropy from logits.
