//! The predicted quality loss: what the noise of a pair of numerics takes from a training step.
//!
//! Its unit is a share of a step's progress: noise of predicted quality loss 0.01 makes a step about as good as 1 % fewer
//! examples would, so that training needs about 1 % more of them. It adds up over sites and passes, and it is computed from a
//! profile alone. `docs/choosing.md` derives it; in short, with y an output of a product in f32 and q the same one
//! quantized, powers being sums of squares over all outputs:
//!
//! | pass | predicted quality loss |
//! |---|---|
//! | `forward` | ‖G‖² · mean (q − y)² / ‖G_last‖² |
//! | `grad_rhs` of a weight | (tan² ∠(y, q) + (H − 1) b²) / P |
//! | `grad_lhs`, and both of a product of activations | (tan² ∠(y, q) + (H − 1) b²) · U / P · f |
//!
//! G is the gradient of the site's result and G_last that of the last product's, b the mean of q − y in units of the root
//! mean square of y, P the number of weight tensors of the model, U that of those before the site, and f the share of the
//! gradient that takes this way back. [`PERSISTENCE`] is H.

use std::collections::BTreeMap;

use crate::noise::{Noise, STANDARD_ERRORS, Uncertain};
use crate::profile::{PassProfile, PassSample, Profile, SiteProfile};
use crate::site::{Pass, SiteKind};

/// How many times as much as noise of the same power a bias weighs: over steps noise averages out, while bias adds up until the
/// loss pulls back what it has moved. Adam alone averages over 1 / (1 − β₁) = 10 steps; the study in `docs/choosing.md` found
/// about 100.
pub const PERSISTENCE: f64 = 100.0;

/// A predicted quality loss, in shares of a step's progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityLoss(Uncertain);

impl QualityLoss {
    /// Nothing is lost.
    pub const ZERO: QualityLoss = QualityLoss(Uncertain::ZERO);

    /// The estimate; infinite where the product becomes useless: not finite, or without anything left of its signal.
    pub fn estimate(&self) -> f64 {
        self.0.value
    }

    /// The lower end of the 95 % confidence interval (normal approximation), 0 where the samples are too few for one.
    pub fn low(&self) -> f64 {
        self.0.variance.map_or(0.0, |variance| {
            (self.0.value - STANDARD_ERRORS * variance.sqrt()).max(0.0)
        })
    }

    /// The upper end, infinite where the samples are too few for one.
    pub fn high(&self) -> f64 {
        self.0.variance.map_or(f64::INFINITY, |variance| {
            self.0.value + STANDARD_ERRORS * variance.sqrt()
        })
    }

    /// The loss of both, whose samples are independent.
    pub fn plus(&self, other: &QualityLoss) -> QualityLoss {
        QualityLoss(self.0.plus(&other.0, 1.0))
    }
}

/// Why the quality loss of numerics cannot be predicted from a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QualityError {
    /// There are no gradients to weigh noise with.
    #[error(
        "the profile holds no gradient that is finite and not zero, and noise weighs as much as the gradient it meets; \
         measure training steps, with their backward passes"
    )]
    NoGradients,
}

/// How much the noise of each pass of each site weighs.
#[derive(Clone, Debug)]
pub struct QualityModel {
    /// By site, in the profile's order, and pass.
    weights: Vec<BTreeMap<Pass, Weight>>,
}

#[derive(Clone, Copy, Debug)]
struct Weight {
    factor: f64,
    /// Of the factor, as a share of its square.
    relative_variance: f64,
}

impl QualityModel {
    /// Weighs the passes of a profile.
    ///
    /// # Errors
    /// If there is no gradient to weigh noise with.
    pub fn of(profile: &Profile) -> Result<QualityModel, QualityError> {
        let gradients: Vec<GradientPower> = profile.sites.iter().map(GradientPower::of).collect();
        let last = gradients
            .iter()
            .rev()
            .find(|gradient| !gradient.by_step.is_empty())
            .ok_or(QualityError::NoGradients)?;
        let tensors = profile
            .sites
            .iter()
            .filter(|measured| holds_weight(measured))
            .count()
            .max(1) as f64;
        let mut weights = Vec::with_capacity(profile.sites.len());
        for (index, (measured, gradient)) in profile.sites.iter().zip(&gradients).enumerate() {
            let readers = readers_of_same(profile, index);
            let first_reader = readers.first().copied().unwrap_or(index);
            let upstream = profile.sites[..first_reader]
                .iter()
                .filter(|site| holds_weight(site))
                .count();
            let certain = |factor| Weight {
                factor,
                relative_variance: 0.0,
            };
            let flow = |ways: usize| certain(upstream as f64 / tensors / ways.max(1) as f64);
            let mut of_site = BTreeMap::new();
            for &pass in measured.passes.keys() {
                let weight = match (pass, measured.site.kind) {
                    (Pass::Forward, _) => gradient.relative_to(last),
                    (Pass::GradRhs, SiteKind::Linear) => Some(certain(1.0 / tensors)),
                    (Pass::GradLhs, SiteKind::Linear) => Some(flow(readers.len())),
                    // The gradient goes back to both factors.
                    (Pass::GradLhs | Pass::GradRhs, _) => Some(flow(2)),
                };
                if let Some(weight) = weight {
                    of_site.insert(pass, weight);
                }
            }
            weights.push(of_site);
        }
        Ok(QualityModel { weights })
    }

    /// The quality loss that this noise in a pass of the profile's site of this index is predicted to cause; `None` where the
    /// pass was not measured, or its site's gradients were not.
    pub fn loss(&self, site: usize, pass: Pass, noise: &Noise) -> Option<QualityLoss> {
        let weight = self.weights.get(site)?.get(&pass)?;
        let noise = match pass {
            Pass::Forward => noise.power,
            Pass::GradLhs | Pass::GradRhs => noise.angle.plus(&noise.bias, PERSISTENCE - 1.0),
        };
        if weight.factor == 0.0 {
            return Some(QualityLoss::ZERO);
        }
        let square = |x: f64| x * x;
        Some(QualityLoss(Uncertain {
            value: weight.factor * noise.value,
            variance: noise.variance.map(|variance| {
                square(weight.factor) * (variance + square(noise.value) * weight.relative_variance)
            }),
        }))
    }
}

/// Whether the site has a weight, or a table, that training updates.
fn holds_weight(measured: &SiteProfile) -> bool {
    matches!(measured.site.kind, SiteKind::Linear | SiteKind::Embedding)
}

/// The linear sites whose `lhs` is the very tensor that this one's is, in forward order: their gradients add up there, so
/// that each is one of as many ways. Told by shape and amaxes, which are equal for nothing else.
fn readers_of_same(profile: &Profile, index: usize) -> Vec<usize> {
    /// Shape, and amax by step.
    type Key = ([usize; 3], Vec<(u64, u32)>);
    let key = |site: &SiteProfile| -> Option<Key> {
        let forward = (site.site.kind == SiteKind::Linear)
            .then(|| site.passes.get(&Pass::Forward))
            .flatten()?;
        let amaxes = forward.samples.iter();
        let amaxes = amaxes.map(|sample| (sample.step, sample.left_amax.to_bits()));
        (forward.left.amax > 0.0).then(|| (forward.left.shape, amaxes.collect()))
    };
    let Some(wanted) = key(&profile.sites[index]) else {
        return vec![index];
    };
    let sites = profile.sites.iter().enumerate();
    sites
        .filter(|(_, site)| key(site).as_ref() == Some(&wanted))
        .map(|(found, _)| found)
        .collect()
}

/// ‖G‖² of a site, step by step.
struct GradientPower {
    by_step: BTreeMap<u64, f64>,
    relative_variance: f64,
}

impl GradientPower {
    /// From the sampled rows of the gradient in both passes that read it: those of one run along its rows, those of the
    /// other along its columns.
    fn of(measured: &SiteProfile) -> GradientPower {
        let sides = [(Pass::GradLhs, 0), (Pass::GradRhs, 1)];
        let mut rows: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        let mut elements = 0.0;
        for (pass, side) in sides {
            let Some(pass) = measured.passes.get(&pass) else {
                continue;
            };
            elements = gradient_elements(pass, side);
            for sample in &pass.samples {
                rows.entry(sample.step)
                    .or_default()
                    .extend(row_mean_squares(sample, side));
            }
        }
        let mut by_step = BTreeMap::new();
        let (mut squares, mut count) = (0.0, 0.0);
        for (step, rows) in rows {
            let mean = rows.iter().sum::<f64>() / rows.len() as f64;
            if mean > 0.0 && mean.is_finite() {
                by_step.insert(step, mean * elements);
                squares += rows
                    .iter()
                    .map(|row| (row / mean - 1.0).powi(2))
                    .sum::<f64>();
                count += rows.len() as f64;
            }
        }
        GradientPower {
            by_step,
            relative_variance: squares / (count * count).max(1.0),
        }
    }

    /// The mean over steps of this power as a share of another's; steps that only one has are left out.
    fn relative_to(&self, last: &GradientPower) -> Option<Weight> {
        let shares: Vec<f64> = self
            .by_step
            .iter()
            .filter_map(|(step, power)| Some(power / last.by_step.get(step)?))
            .collect();
        (!shares.is_empty()).then(|| Weight {
            factor: shares.iter().sum::<f64>() / shares.len() as f64,
            relative_variance: self.relative_variance + last.relative_variance,
        })
    }
}

/// Elements of the whole gradient.
fn gradient_elements(pass: &PassProfile, side: usize) -> f64 {
    let shape = if side == 0 {
        pass.left.shape
    } else {
        pass.right.shape
    };
    shape.iter().map(|&length| length as f64).product()
}

fn row_mean_squares(sample: &PassSample, side: usize) -> impl Iterator<Item = f64> + '_ {
    let (_, rows, _) = sample.side(side);
    rows.chunks_exact(sample.depth.max(1)).map(|row| {
        let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        squares / row.len() as f64
    })
}
