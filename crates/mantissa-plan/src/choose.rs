//! The cheapest pair of numerics that clears the thresholds with confidence.

use crate::plan::Plan;
use crate::profile::Profile;
use crate::{Candidates, Target};

/// The thresholds a pair of numerics must clear, the candidates, and the target whose cost decides among those that do.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The numerics considered.
    pub candidates: Candidates,
    /// The cost model.
    pub target: Target,
    /// Keys the random bits of stochastic candidates.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        todo!()
    }
}

impl Policy {
    /// The default thresholds and candidates, for the built-in target of this name.
    pub fn for_target(name: &str) -> Result<Policy, crate::cost::TargetError> {
        todo!("{name}")
    }
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {}

/// Chooses numerics for every pass of every site of the profile.
pub fn choose(profile: &Profile, policy: &Policy) -> Result<Plan, ChooseError> {
    let _ = (profile, policy);
    todo!()
}
