//! Which numerics are considered for which operand.

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::site::Role;

/// The candidate numerics of each operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// For `lhs`.
    pub lhs: Vec<Numerics>,
    /// For `rhs`.
    pub rhs: Vec<Numerics>,
    /// For `grad`.
    pub grad: Vec<Numerics>,
}

impl Candidates {
    /// The candidates for one operand.
    pub fn of(&self, role: Role) -> &[Numerics] {
        match role {
            Role::Lhs => &self.lhs,
            Role::Rhs => &self.rhs,
            Role::Grad => &self.grad,
        }
    }
}
