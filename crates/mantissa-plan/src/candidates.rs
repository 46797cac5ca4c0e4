//! Which numerics are considered for which operand.

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::site::{Pass, PassNumerics, Role};
use crate::toml_text::{self, TomlFault};

/// The candidate numerics of each operand.
///
/// The default set is `candidates.toml` beside the source of this module.
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

impl Default for Candidates {
    fn default() -> Self {
        Candidates::from_toml(include_str!("candidates.toml"))
            .expect("the candidates in the source are read by a test")
    }
}

impl Candidates {
    /// Reads a candidate set from TOML.
    pub fn from_toml(text: &str) -> Result<Candidates, TomlFault> {
        toml_text::parse_unversioned(text)
    }

    /// The candidates for one operand.
    pub fn of(&self, role: Role) -> &[Numerics] {
        match role {
            Role::Lhs => &self.lhs,
            Role::Rhs => &self.rhs,
            Role::Grad => &self.grad,
        }
    }

    /// Every pair of candidates for the operands of a pass.
    pub fn pairs_named(&self, pass: Pass) -> Vec<PassNumerics> {
        let [left, right] = pass.operands();
        let (left, right) = (self.of(left), self.of(right));
        let with_left = |&left| right.iter().map(move |&right| PassNumerics { left, right });
        left.iter().flat_map(with_left).collect()
    }

    /// Every pair of candidates for the operands of a pass, and f32 for both where the set leaves that out.
    pub fn pairs(&self, pass: Pass) -> Vec<PassNumerics> {
        let mut pairs = self.pairs_named(pass);
        if !pairs.contains(&PassNumerics::FP32) {
            pairs.push(PassNumerics::FP32);
        }
        pairs
    }
}
