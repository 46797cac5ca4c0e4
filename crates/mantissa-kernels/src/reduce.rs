//! Sums over rows and checks of whole tensors.
