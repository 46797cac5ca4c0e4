//! Sums over rows and checks of whole tensors.

/// Writes the sum of each column of `x`, such as the gradient of a bias.
///
/// # Panics
/// If `x` is not whole rows of `width` or `out` is not one.
pub fn column_sums(x: &[f32], width: usize, out: &mut [f32]) {
    let _ = (x, width, out);
    todo!()
}

/// What one read of a tensor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scan {
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// The largest magnitude of the finite elements, 0 if there are none.
    pub amax: f32,
    /// The sum of the squares of the finite elements.
    pub square_sum: f64,
}

/// Reads `x` once: how many elements are not finite, the largest magnitude and the sum of squares of the finite ones.
pub fn scan(x: &[f32]) -> Scan {
    let _ = x;
    todo!()
}
