//! One-pass statistics of tensors, distribution fits and quantization-error metrics.
