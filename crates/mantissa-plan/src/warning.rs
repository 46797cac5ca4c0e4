//! Parts of a recipe or plan that can be used together but contradict each other.

use std::fmt;

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{Granularity, Numerics};

use crate::loss_scaling::LossScaling;
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::site::SiteNumerics;
use crate::storage::{Storage, StorageTable};

/// Two parts that contradict each other: allowed, since a comparison may want just that, but said.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Gradients without a scale in a narrow format, and a loss that is not scaled.
    Unscaled {
        /// Where, the first of them.
        site: String,
        /// The format.
        format: Format,
    },
    /// A loss that is scaled for gradients that do not need it.
    NeedlessScaling {
        /// The loss scaling.
        scaling: LossScaling,
    },
    /// A scaler that watches for underflow in a format that no gradient is in.
    OtherFormat {
        /// What it watches for.
        watched: Format,
        /// Where, the first of them.
        site: String,
        /// The format there.
        format: Format,
    },
    /// Weights without a wider copy, rounded to nearest in few bits: small updates are lost.
    StallingUpdates {
        /// How they are stored.
        storage: Storage,
    },
    /// A scaler that lets gradients grow beyond the format they are in.
    LogMaxTooHigh {
        /// log2 of the magnitude it aims at.
        log_max: f64,
        /// Where, the first of them.
        site: String,
        /// The format there.
        format: Format,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Unscaled { site, format } => write!(
                f,
                "the gradients of {site} are {format} without a scale, and the loss is not scaled either: those of at \
                 most {:e} become zero; write loss_scaling = \"dynamic\", or give them a granularity such as {format}/tensor",
                format.min_subnormal() / 2.0
            ),
            Warning::NeedlessScaling { scaling } => write!(
                f,
                "every gradient has a scale of its own or the range of f32, so that the loss scaling `{scaling}` gains \
                 nothing and can only make steps skip; write loss_scaling = \"none\""
            ),
            Warning::OtherFormat {
                watched,
                site,
                format,
            } => write!(
                f,
                "the loss scaling watches for underflow in {watched}, but the gradients of {site} are {format}; write \
                 loss_scaling = {{ preset = \"underflow-aware\", format = \"{format}\" }}"
            ),
            Warning::StallingUpdates { storage } => write!(
                f,
                "weights are stored as {storage} with no wider copy and rounded to nearest, so that an update of less than \
                 half a unit in the last place changes nothing, however often it comes; write {storage}/stochastic, or \
                 bf16+16 for exact f32"
            ),
            Warning::LogMaxTooHigh {
                log_max,
                site,
                format,
            } => write!(
                f,
                "the loss scaling lets gradients grow to 2^{log_max}, but those of {site} are {format}, whose largest is \
                 {}; lower log_max",
                format.max_finite()
            ),
        }
    }
}

impl Recipe {
    /// What contradicts each other in the recipe, whatever the model.
    pub fn warnings(&self) -> Vec<Warning> {
        let rules = self.rules.iter().enumerate();
        warnings(
            &self.loss_scaling,
            &self.storage,
            rules.map(|(index, rule)| {
                let place = format!("rule {} (`{}`)", index + 1, rule.sites);
                (place, rule.numerics())
            }),
        )
    }
}

impl Plan {
    /// What contradicts each other in the plan.
    pub fn warnings(&self) -> Vec<Warning> {
        let products = self.sites.iter().filter(|site| site.kind.is_product());
        warnings(
            &self.loss_scaling,
            &self.storage,
            products.map(|site| (format!("`{}`", site.name), site.numerics)),
        )
    }
}

fn warnings(
    scaling: &LossScaling,
    storage: &StorageTable,
    sites: impl Iterator<Item = (String, SiteNumerics)>,
) -> Vec<Warning> {
    let computed = sites.filter_map(|(site, numerics)| Some((site, unscaled_gradient(&numerics)?)));
    let stored = storage
        .gradient_storages()
        .filter_map(|gradients| match gradients {
            Storage::Rounded(numerics) if narrow(&numerics) => {
                Some(("weights, as they are stored,".to_string(), numerics.format))
            }
            _ => None,
        });
    let unscaled: Vec<(String, Format)> = computed.chain(stored).collect();
    let first = |wanted: &dyn Fn(Format) -> bool| {
        let mut found = unscaled.iter().filter(|(_, format)| wanted(*format));
        found.next().cloned()
    };
    let warning = match scaling {
        LossScaling::None => {
            first(&|_| true).map(|(site, format)| Warning::Unscaled { site, format })
        }
        _ if unscaled.is_empty() => Some(Warning::NeedlessScaling {
            scaling: scaling.clone(),
        }),
        LossScaling::UnderflowAware(settings) => {
            let watched = settings.format;
            let same = unscaled.iter().any(|(_, format)| *format == watched);
            let other = first(&|_| !same);
            other.map(|(site, format)| Warning::OtherFormat {
                watched,
                site,
                format,
            })
        }
        LossScaling::LogMax(settings) => {
            let log_max = settings.log_max;
            let too_high =
                first(&|format| f64::from(format.overflow_threshold()).log2() < log_max - 0.1);
            too_high.map(|(site, format)| Warning::LogMaxTooHigh {
                log_max,
                site,
                format,
            })
        }
        LossScaling::Constant(_) | LossScaling::Dynamic(_) | LossScaling::Enhanced(_) => None,
    };
    let stalling = storage.parameter_storages().find(stalls);
    let stalling = stalling.map(|storage| Warning::StallingUpdates { storage });
    warning.into_iter().chain(stalling).collect()
}

/// The format of a gradient that is kept, without a scale of its own, in a format with fewer exponents than f32.
pub(crate) fn unscaled_gradient(numerics: &SiteNumerics) -> Option<Format> {
    let gradients = [numerics.grad_lhs.left, numerics.grad_rhs.right];
    let found = gradients.iter().find(|grad| narrow(grad));
    found.map(|grad| grad.format)
}

/// Whether there is neither a scale nor the range of f32.
fn narrow(numerics: &Numerics) -> bool {
    numerics.granularity == Granularity::Unscaled
        && numerics.format.min_normal() > Format::BF16.min_normal()
}

/// Whether updates of a thousandth of a weight are lost. Those of FP8-LM, whose master weights are FP16 to nearest, are not.
fn stalls(storage: &Storage) -> bool {
    let Storage::Rounded(numerics) = storage else {
        return false;
    };
    numerics.rounding != Rounding::Stochastic && numerics.format.epsilon() > Format::FP16.epsilon()
}
