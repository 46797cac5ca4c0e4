//! Reference models and data for mantissa.
