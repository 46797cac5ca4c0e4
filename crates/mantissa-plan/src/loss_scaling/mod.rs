//! How the loss is scaled: which scaler, with which settings.
//!
//! Settings are plain data, written into recipes, plans and configurations; the `mantissa` crate moves the scale by them.

mod dynamic;
mod enhanced;
mod log_max;
mod text;
mod underflow;

use std::fmt;

use crate::names;

pub use dynamic::DynamicScaling;
pub use enhanced::{EnhancedScaling, Floor, FloorStep, Stall};
pub use log_max::LogMaxScaling;
pub use underflow::UnderflowScaling;

/// How the loss is scaled before the backward pass, so that small gradients survive in narrow formats.
///
/// In TOML it is the name of a preset, a constant, or a preset with settings of its own:
///
/// ```
/// use mantissa_plan::LossScaling;
///
/// #[derive(serde::Deserialize)]
/// struct File { loss_scaling: LossScaling }
///
/// let read = |text: &str| toml::from_str::<File>(text).map(|file| file.loss_scaling);
/// assert_eq!(read(r#"loss_scaling = "megatron""#)?, LossScaling::preset("megatron")?);
/// assert_eq!(read("loss_scaling = { constant = 1024.0 }")?, LossScaling::Constant(1024.0));
/// let LossScaling::Dynamic(settings) = read(
///     r#"loss_scaling = { preset = "torch-amp", growth_interval = 500, min_scale = 1.0 }"#,
/// )? else { panic!() };
/// assert_eq!((settings.growth_interval, settings.init_scale), (500, 65536.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LossScaling {
    /// The loss is not scaled.
    #[default]
    None,
    /// The loss is multiplied by this number, always: finite and positive.
    Constant(f32),
    /// The scale backs off at overflows and grows after clean steps.
    Dynamic(DynamicScaling),
    /// Dynamic, with a smallest scale that rises.
    Enhanced(EnhancedScaling),
    /// The scale follows mean and deviation of the largest gradient.
    LogMax(LogMaxScaling),
    /// The scale weighs underflow against overflow.
    UnderflowAware(UnderflowScaling),
}

/// Why a loss scaling cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LossScalingError {
    /// No preset has this name.
    #[error("there is no loss scaling `{name}`{hint} The loss scalings are {known}")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
        /// All presets.
        known: String,
    },
    /// The preset has no such setting.
    #[error(
        "the loss scaling `{preset}` has no setting `{setting}`{hint} Its settings are {known}"
    )]
    UnknownSetting {
        /// The preset.
        preset: String,
        /// The setting asked for.
        setting: String,
        /// The nearest name, in words.
        hint: String,
        /// All its settings.
        known: String,
    },
    /// The constant is not a positive number.
    #[error("a constant loss scale must be finite and positive, not {0}")]
    Constant(f32),
    /// Settings that contradict each other or mean nothing.
    #[error("loss scaling `{scaling}`: {problem}")]
    Settings {
        /// The kind of scaling.
        scaling: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// A named loss scaling.
struct Preset {
    name: &'static str,
    description: &'static str,
    scaling: fn() -> LossScaling,
}

const PRESETS: [Preset; 11] = [
    Preset {
        name: "none",
        description: "The loss is not scaled; non-finite gradients still skip their step.",
        scaling: || LossScaling::None,
    },
    Preset {
        name: "dynamic",
        description: "torch.amp's constants, within 1 to 2^24.",
        scaling: || LossScaling::Dynamic(DynamicScaling::DEFAULT),
    },
    Preset {
        name: "torch-amp",
        description: "torch.amp.GradScaler: from 2^16, doubled after 2000 clean steps, halved at overflows.",
        scaling: || LossScaling::Dynamic(DynamicScaling::TORCH_AMP),
    },
    Preset {
        name: "apex",
        description: "NVIDIA apex: as torch.amp, at most 2^24.",
        scaling: || LossScaling::Dynamic(DynamicScaling::APEX),
    },
    Preset {
        name: "deepspeed",
        description: "DeepSpeed: window 1000, hysteresis 2, stops at the smallest scale, 1.",
        scaling: || LossScaling::Dynamic(DynamicScaling::DEEPSPEED),
    },
    Preset {
        name: "deepspeed-consecutive",
        description: "DeepSpeed with consecutive_hysteresis: a clean step fills the hysteresis up.",
        scaling: || {
            LossScaling::Dynamic(DynamicScaling {
                consecutive_hysteresis: true,
                ..DynamicScaling::DEEPSPEED
            })
        },
    },
    Preset {
        name: "megatron",
        description: "Megatron-LM: from 2^32, window 1000, hysteresis 2, at least 1.",
        scaling: || LossScaling::Dynamic(DynamicScaling::MEGATRON),
    },
    Preset {
        name: "enhanced",
        description: "Mellempudi et al. 2019: dynamic, at least 8192 from step 40000 on and 32768 from 150000 on.",
        scaling: || LossScaling::Enhanced(EnhancedScaling::gnmt()),
    },
    Preset {
        name: "enhanced-on-stall",
        description: "Dynamic, with a smallest scale that doubles when the loss has stalled for 1000 steps.",
        scaling: || LossScaling::Enhanced(EnhancedScaling::on_stall()),
    },
    Preset {
        name: "log-max",
        description: "OpenSeq2Seq's LogMax: mean plus 3.09 deviations of the largest gradient's log2 stay below 2^16.",
        scaling: || LossScaling::LogMax(LogMaxScaling::DEFAULT),
    },
    Preset {
        name: "underflow-aware",
        description: "Doubled while more than 1 % of the gradients would underflow, halved before they overflow.",
        scaling: || LossScaling::UnderflowAware(UnderflowScaling::DEFAULT),
    },
];

impl LossScaling {
    /// The names of the presets and what they do.
    pub fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
        PRESETS
            .iter()
            .map(|preset| (preset.name, preset.description))
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// If there is none; the error suggests the nearest.
    pub fn preset(name: &str) -> Result<Self, LossScalingError> {
        let known = || PRESETS.iter().map(|preset| preset.name);
        match PRESETS.iter().find(|preset| preset.name == name) {
            Some(preset) => Ok((preset.scaling)()),
            None => Err(LossScalingError::UnknownPreset {
                name: name.to_string(),
                hint: names::did_you_mean(name, known()),
                known: names::listed(&known().collect::<Vec<_>>(), usize::MAX),
            }),
        }
    }

    /// The `dynamic` preset.
    pub const fn dynamic() -> Self {
        Self::Dynamic(DynamicScaling::DEFAULT)
    }

    /// The preset that these settings are, if they are one's.
    pub fn preset_name(&self) -> Option<&'static str> {
        PRESETS
            .iter()
            .find(|preset| (preset.scaling)() == *self)
            .map(|preset| preset.name)
    }

    /// Checks that the settings mean something together.
    ///
    /// # Errors
    /// If they do not; the error says which and why.
    pub fn check(&self) -> Result<(), LossScalingError> {
        let problem = match self {
            Self::None => None,
            &Self::Constant(scale) if scale.is_finite() && scale > 0.0 => None,
            &Self::Constant(scale) => return Err(LossScalingError::Constant(scale)),
            Self::Dynamic(settings) => settings.problem(),
            Self::Enhanced(settings) => settings.problem(),
            Self::LogMax(settings) => settings.problem(),
            Self::UnderflowAware(settings) => settings.problem(),
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(LossScalingError::Settings {
                scaling: self.kind(),
                problem,
            }),
        }
    }

    /// The preset with the default settings of this kind.
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Constant(_) => "constant",
            Self::Dynamic(_) => "dynamic",
            Self::Enhanced(_) => "enhanced",
            Self::LogMax(_) => "log-max",
            Self::UnderflowAware(_) => "underflow-aware",
        }
    }
}

/// The preset's name, `constant` with its scale, or the kind and that its settings are its own.
impl fmt::Display for LossScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.preset_name()) {
            (_, Some(name)) => f.write_str(name),
            (Self::Constant(scale), _) => write!(f, "constant {scale}"),
            _ => write!(f, "{} with its own settings", self.kind()),
        }
    }
}

/// What is wrong with a first, a smallest and a largest scale.
fn bounds_problem(init: f32, min: f32, max: f32) -> Option<String> {
    let named = [("init_scale", init), ("min_scale", min), ("max_scale", max)];
    if let Some((name, scale)) = named
        .into_iter()
        .find(|(_, scale)| !(scale.is_finite() && *scale > 0.0))
    {
        Some(format!("{name} must be finite and positive, not {scale}"))
    } else if min > max {
        Some(format!("min_scale {min} is above max_scale {max}"))
    } else if !(min..=max).contains(&init) {
        Some(format!(
            "init_scale {init} lies outside min_scale {min} to max_scale {max}"
        ))
    } else {
        None
    }
}
