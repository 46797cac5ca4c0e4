//! Which parameters are updated how: state formats, learning rates and weight decay, by the parameters' paths.

use std::collections::HashMap;

use burn::module::{Module, ParamId};
use globset::{Glob, GlobMatcher};
use mantissa_formats::{RandomBits, UnknownName};
use mantissa_kernels::state::{StateFormat, StateFormats};
use serde::{Deserialize, Serialize};

use crate::parameters::parameters;
use crate::session::Fnv;

/// How parameters are updated, as a table: the formats of all large parameters, and groups of parameters that differ.
///
/// ```
/// use burn::tensor::Device;
/// use mantissa::nn::LinearConfig;
/// use mantissa::optimizer::{AdamWConfig, MasterOptimizer, ParameterGroup, ParameterGroups};
///
/// let model = LinearConfig::new(512, 512).init(&Device::flex().autodiff());
/// let mut groups = ParameterGroups::with_states("dynamic8/block256".parse()?);
/// groups.groups.push(ParameterGroup {
///     weight_decay: Some(0.0),
///     ..ParameterGroup::of("*bias")
/// });
/// let optimizer = MasterOptimizer::new(AdamWConfig::new()).with_groups(&groups, &model)?;
/// // The weight in 1 byte for each moment and a scale for each 256, the bias in f32.
/// let bytes = 512 * 512 + 4 * 1024 + 4 * 512;
/// assert_eq!(optimizer.expected_states(&model), [("first_moment", bytes), ("second_moment", bytes)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterGroups {
    /// The formats of parameters whose group names none.
    pub states: StateFormats,
    /// Parameters of fewer elements have f32 states, unless their group names formats: they take little memory, and scales and
    /// biases among them are touchy. 4096 as in bitsandbytes and torchao.
    pub exempt_below: usize,
    /// The first group that matches a parameter decides it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// Parameters that are updated in their own way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// A glob over parameter paths, such as `embedding.*` or `*bias`; `*` also spans dots.
    pub parameters: String,
    /// The formats of their moments, however small they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<StateFormats>,
    /// What their learning rate is multiplied with.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub learning_rate_factor: f64,
    /// Their weight decay, in place of the optimizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
}

const fn one() -> f64 {
    1.0
}

fn is_one(factor: &f64) -> bool {
    *factor == 1.0
}

impl Default for ParameterGroups {
    fn default() -> Self {
        Self {
            states: StateFormats::default(),
            exempt_below: 4096,
            groups: Vec::new(),
        }
    }
}

impl ParameterGroups {
    /// No groups, and these formats.
    pub fn with_states(states: StateFormats) -> Self {
        Self {
            states,
            ..Self::default()
        }
    }
}

impl ParameterGroup {
    /// Parameters that differ in nothing yet.
    pub fn of(parameters: &str) -> Self {
        Self {
            parameters: parameters.to_owned(),
            states: None,
            learning_rate_factor: 1.0,
            weight_decay: None,
        }
    }

    fn glob(&self) -> Result<GlobMatcher, globset::Error> {
        Glob::new(&self.parameters).map(|glob| glob.compile_matcher())
    }
}

/// Parameter groups that do not fit a model or an optimizer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterGroupsError {
    /// A group's glob is not one.
    #[error("parameter group {group}: `{parameters}` is not a glob: {fault}")]
    Glob {
        /// The group's place, from 1.
        group: usize,
        /// Its glob.
        parameters: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A group decides no parameter.
    #[error("parameter group {group}: `{parameters}` decides no parameter: {remedy}")]
    MatchesNothing {
        /// The group's place, from 1.
        group: usize,
        /// Its glob.
        parameters: String,
        /// What to write instead.
        remedy: String,
    },
    /// A number is out of its range.
    #[error(
        "parameter group {group}: the {setting} must be finite and not negative, and is {value}"
    )]
    Setting {
        /// The group's place, from 1.
        group: usize,
        /// Which number.
        setting: &'static str,
        /// What it is.
        value: f64,
    },
    /// The optimizer has taken steps already.
    #[error(
        "an optimizer that has taken steps keeps its formats: give it its groups first, and load its record then"
    )]
    TooLate,
    /// The optimizer is one of Burn's.
    #[error(
        "Burn's optimizers have their own groups and f32 states; use one of mantissa::optimizer"
    )]
    Burn,
}

/// How one parameter is updated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) path: String,
    pub(super) states: StateFormats,
    pub(super) learning_rate_factor: f64,
    pub(super) weight_decay: Option<f32>,
}

impl Member {
    /// In no group.
    pub(super) const PLAIN: &'static Self = &Self {
        path: String::new(),
        states: StateFormats::both(StateFormat::FP32),
        learning_rate_factor: 1.0,
        weight_decay: None,
    };

    /// The random bits of a buffer in a step: a function of the seed, the parameter's steps and path, and the buffer's name.
    pub(super) fn random(&self, seed: u64, steps: u64, buffer: &str) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&steps.to_le_bytes());
        stream.write(self.path.as_bytes());
        stream.write(buffer.as_bytes());
        RandomBits::new(seed, stream.value())
    }
}

/// How every parameter of a model is updated.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(HashMap<ParamId, Member>);

impl Members {
    /// The parameters of `model`, as `groups` decide them.
    pub(super) fn resolve<M: Module>(
        groups: &ParameterGroups,
        model: &M,
    ) -> Result<Self, ParameterGroupsError> {
        let parameters = parameters(model);
        let mut decided: Vec<Option<usize>> = vec![None; parameters.len()];
        for (index, group) in groups.groups.iter().enumerate() {
            check_settings(index + 1, group)?;
            let glob = group.glob().map_err(|fault| ParameterGroupsError::Glob {
                group: index + 1,
                parameters: group.parameters.clone(),
                fault: fault.kind().to_string(),
            })?;
            let matched =
                || (0..parameters.len()).filter(|&at| glob.is_match(&parameters[at].path));
            let open: Vec<usize> = matched().filter(|&at| decided[at].is_none()).collect();
            if open.is_empty() {
                let remedy = match matched().find_map(|at| decided[at]) {
                    Some(earlier) => format!(
                        "group {} decides all that it matches; put it first",
                        earlier + 1
                    ),
                    None => {
                        let paths = parameters.iter().map(|parameter| parameter.path.as_str());
                        UnknownName::new("parameter", &group.parameters, paths).remedy
                    }
                };
                return Err(ParameterGroupsError::MatchesNothing {
                    group: index + 1,
                    parameters: group.parameters.clone(),
                    remedy,
                });
            }
            for at in open {
                decided[at] = Some(index);
            }
        }
        let members = parameters
            .into_iter()
            .zip(decided)
            .map(|(parameter, group)| {
                let group = group.map(|index| &groups.groups[index]);
                let usual = if parameter.elements() < groups.exempt_below {
                    StateFormats::default()
                } else {
                    groups.states
                };
                let member = Member {
                    path: parameter.path,
                    states: group.and_then(|group| group.states).unwrap_or(usual),
                    learning_rate_factor: group.map_or(1.0, |group| group.learning_rate_factor),
                    weight_decay: group.and_then(|group| group.weight_decay),
                };
                (parameter.id, member)
            });
        Ok(Self(members.collect()))
    }

    pub(super) fn get(&self, id: ParamId) -> &Member {
        self.0.get(&id).unwrap_or(Member::PLAIN)
    }
}

fn check_settings(group: usize, settings: &ParameterGroup) -> Result<(), ParameterGroupsError> {
    let weight_decay = settings.weight_decay.map_or(0.0, f64::from);
    for (setting, value) in [
        ("learning_rate_factor", settings.learning_rate_factor),
        ("weight_decay", weight_decay),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(ParameterGroupsError::Setting {
                group,
                setting,
                value,
            });
        }
    }
    Ok(())
}
