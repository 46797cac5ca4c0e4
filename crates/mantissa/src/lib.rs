//! Metric-driven mixed-precision training for Burn.
