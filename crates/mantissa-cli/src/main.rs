//! The `mantissa` command.
fn main() {}
