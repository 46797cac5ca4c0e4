//! The transcendental functions, without branches, so that a loop over them becomes vector code.

/// e to the `x`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    x.exp()
}
