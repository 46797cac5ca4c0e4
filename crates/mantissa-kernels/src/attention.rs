//! Scaled dot-product attention without stored scores.
