//! Optimizer updates in one pass over parameters, gradients and moments.
