//! What a pair of numerics does to a measured product.
