//! Faults on purpose: a way to see what a run, and its guard, make of trouble.

use std::fmt;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use mantissa::plan::decision::{Change, Decision};
use mantissa::plan::{Plan, PlanError, SiteKind};
use mantissa::{Session, storage};
use mantissa_zoo::Bert;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Trouble at a step: `scale:SITE:FACTOR@STEP`, `outlier:SITE:FACTOR@STEP`, or `learning-rate:FACTOR@STEP` with `+STEPS` for
/// more than one.
///
/// The first and the last strike once: a run that was rolled back to before them comes by their step unharmed, as it would
/// after a fault of a machine or a bad batch. An outlier is there from its step on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Injection {
    kind: Kind,
    factor: f32,
    step: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// The weight of this site is multiplied.
    Scale(String),
    /// One feature of the left operand of this site is multiplied, and what reads it in the right operand divided: the
    /// product stays the same, but for its numerics.
    Outlier(String),
    /// The learning rate of so many steps is multiplied.
    LearningRate(u64),
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{text}` is no injection; write scale:SITE:FACTOR@STEP, outlier:SITE:FACTOR@STEP or \
                 learning-rate:FACTOR@STEP+STEPS"
            )
        };
        let (what, when) = text.rsplit_once('@').ok_or_else(wrong)?;
        let (kind, rest) = what.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let (kind, factor, step) = match kind {
            "learning-rate" => {
                let (step, steps) = when.split_once('+').unwrap_or((when, "1"));
                (Kind::LearningRate(number(steps)?), rest, step)
            }
            _ => {
                let (site, factor) = rest.rsplit_once(':').ok_or_else(wrong)?;
                let site = site.to_owned();
                match kind {
                    "scale" => (Kind::Scale(site), factor, when),
                    "outlier" => (Kind::Outlier(site), factor, when),
                    _ => return Err(wrong()),
                }
            }
        };
        let factor: f32 = factor.parse().map_err(|_| wrong())?;
        if !factor.is_finite() || factor <= 0.0 {
            return Err(format!("`{text}`: the factor must be a positive number"));
        }
        Ok(Self {
            kind,
            factor,
            step: number(step)?,
        })
    }
}

impl TryFrom<String> for Injection {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Injection> for String {
    fn from(injection: Injection) -> Self {
        injection.to_string()
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, factor, step } = self;
        match kind {
            Kind::Scale(site) => write!(f, "scale:{site}:{factor}@{step}"),
            Kind::Outlier(site) => write!(f, "outlier:{site}:{factor}@{step}"),
            Kind::LearningRate(1) => write!(f, "learning-rate:{factor}@{step}"),
            Kind::LearningRate(steps) => write!(f, "learning-rate:{factor}@{step}+{steps}"),
        }
    }
}

impl Injection {
    /// Refuses a site that the plan does not have.
    pub fn check(&self, plan: &Plan) -> Result<(), Error> {
        let (Kind::Scale(site) | Kind::Outlier(site)) = &self.kind else {
            return Ok(());
        };
        let planned = plan.site(site)?;
        if planned.kind == SiteKind::Linear {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "`{self}` cannot be injected: {site} is no linear layer"
        )))
    }

    /// What the learning rate of `step` is multiplied by.
    pub fn learning_rate_factor(&self, step: u64, decisions: &[Decision]) -> f64 {
        match self.kind {
            Kind::LearningRate(steps)
                if (self.step..self.step + steps).contains(&step)
                    && !self.has_struck(decisions) =>
            {
                f64::from(self.factor)
            }
            _ => 1.0,
        }
    }

    /// What lasts from its step on.
    pub fn last(&self, step: u64, session: &Session) -> Result<(), PlanError> {
        match &self.kind {
            Kind::Outlier(site) if step >= self.step => session.set_outlier(site, self.factor),
            _ => Ok(()),
        }
    }

    /// What `step` begins with.
    pub fn strike(
        &self,
        step: u64,
        decisions: &[Decision],
        plan: &Plan,
        model: Bert,
    ) -> Result<Bert, PlanError> {
        match &self.kind {
            Kind::Scale(site) if step == self.step && !self.has_struck(decisions) => {
                let scaled = scaled(model, &format!("{site}.weight"), self.factor);
                Ok(storage::store(scaled, plan)?)
            }
            _ => Ok(model),
        }
    }

    /// Whether the run was rolled back because of it: it was once beyond the step, and is before it again.
    fn has_struck(&self, decisions: &[Decision]) -> bool {
        decisions.iter().any(|decision| match decision.change {
            Change::RolledBack { to_step } => to_step <= self.step && self.step <= decision.step,
            _ => false,
        })
    }
}

/// `model` with the parameter of this path multiplied.
fn scaled(model: Bert, path: &str, factor: f32) -> Bert {
    struct Scale<'a> {
        path: Vec<String>,
        wanted: &'a str,
        factor: f32,
    }
    impl ModuleMapper for Scale<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.path.join(".") != self.wanted {
                return param;
            }
            let (id, tensor, mapper) = param.consume();
            let requires_grad = tensor.is_require_grad();
            let scaled = Tensor::from_inner(tensor.inner().mul_scalar(self.factor));
            Param::from_mapped_value(id, scaled.set_require_grad(requires_grad), mapper)
        }
    }
    storage::widened(model).map(&mut Scale {
        path: Vec::new(),
        wanted: path,
        factor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_survive_their_text() {
        for text in [
            "scale:encoder.layers.0.pwff.linear_inner:4096@120",
            "outlier:head:1000@0",
            "learning-rate:30@7",
            "learning-rate:0.5@7+20",
        ] {
            let injection: Injection = text.parse().unwrap();
            assert_eq!(injection.to_string(), text);
        }
        for text in [
            "",
            "scale:head@3",
            "scale:head:-1@3",
            "scale:head:2",
            "drop:head:2@3",
            "learning-rate:2@x",
        ] {
            assert!(text.parse::<Injection>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_rolled_back_does_not_strike_again() {
        let spike: Injection = "learning-rate:30@7+2".parse().unwrap();
        assert_eq!(spike.learning_rate_factor(6, &[]), 1.0);
        assert_eq!(spike.learning_rate_factor(8, &[]), 30.0);
        assert_eq!(spike.learning_rate_factor(9, &[]), 1.0);
        let rolled_back = |step, to_step| Decision {
            step,
            change: Change::RolledBack { to_step },
            reason: String::new(),
            evidence: None,
        };
        assert_eq!(spike.learning_rate_factor(8, &[rolled_back(12, 6)]), 1.0);
        assert_eq!(spike.learning_rate_factor(8, &[rolled_back(5, 3)]), 30.0);
    }
}
