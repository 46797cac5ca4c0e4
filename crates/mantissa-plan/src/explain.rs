//! One site's decisions in prose.

use crate::plan::{Plan, PlanError};

/// Says, in sentences, what the plan decided for a site, on what evidence, and what came second.
pub fn explain(plan: &Plan, site: &str) -> Result<String, PlanError> {
    let _ = (plan, site);
    todo!()
}
