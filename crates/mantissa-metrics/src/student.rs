//! Maximum-likelihood fit of a Student-t distribution.

use serde::{Deserialize, Serialize};

/// A Student-t distribution with location and scale.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentT {
    /// Degrees of freedom.
    pub nu: f64,
    /// Centre.
    pub location: f64,
    /// Scale: for `nu > 2` the variance is `scale^2 * nu / (nu - 2)`.
    pub scale: f64,
}

/// TODO
pub fn fit_student_t(sample: &[f32]) -> Option<StudentT> {
    let _ = sample;
    todo!()
}
