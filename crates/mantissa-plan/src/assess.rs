//! A pair of numerics in one pass: what it costs, what it does to the product, and what that is predicted to lose.

use crate::cost::ProductShape;
use crate::evaluate::{Evaluator, Excerpt, PairError, stream};
use crate::noise::Examples;
use crate::policy::{Check, Policy, tightest};
use crate::profile::{PassProfile, Profile};
use crate::quality::{QualityError, QualityLoss, QualityModel};
use crate::site::{Pass, PassNumerics, Role};

/// The measured products of a training step, weighed under a policy.
pub(crate) struct Step<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) policy: &'a Policy,
    pub(crate) quality: Result<QualityModel, QualityError>,
    /// What gradients are multiplied with; it only tells where they have no scale of their own.
    loss_scale: f64,
    /// What all products cost in f32.
    full_precision: f64,
}

impl<'a> Step<'a> {
    pub(crate) fn new(profile: &'a Profile, policy: &'a Policy, loss_scale: f64) -> Self {
        let passes = profile.sites.iter().flat_map(|site| site.passes.values());
        let costs = passes.map(|pass| full_precision(policy, &ProductShape::of(pass)));
        Step {
            profile,
            policy,
            quality: QualityModel::of(profile),
            loss_scale,
            full_precision: costs.sum(),
        }
    }

    /// Every measured pass, in forward order.
    pub(crate) fn passes(&self) -> Vec<MeasuredPass<'_>> {
        let sites = self.profile.sites.iter().enumerate();
        let passes = sites.flat_map(|(site, measured)| {
            measured
                .passes
                .iter()
                .map(move |(&pass, measured)| MeasuredPass {
                    step: self,
                    site,
                    pass,
                    measured,
                    shape: ProductShape::of(measured),
                })
        });
        passes.collect()
    }
}

fn full_precision(policy: &Policy, shape: &ProductShape) -> f64 {
    shape.multiplications() * policy.target.cost_of(&PassNumerics::FP32, shape)
}

/// One measured pass of a site.
pub(crate) struct MeasuredPass<'a> {
    step: &'a Step<'a>,
    /// The site's place in the profile.
    pub(crate) site: usize,
    pub(crate) pass: Pass,
    pub(crate) measured: &'a PassProfile,
    pub(crate) shape: ProductShape,
}

/// A pair of numerics in a pass.
#[derive(Clone, Debug)]
pub(crate) struct Assessed {
    /// In units of the f32 product without its traffic.
    pub(crate) cost: f64,
    /// In units of all products of a step in f32.
    pub(crate) step_cost: f64,
    pub(crate) error: PairError,
    /// `None` where the site's gradients were not measured.
    pub(crate) loss: Option<QualityLoss>,
    /// The rule of the policy that uses up most of its bound.
    pub(crate) tightest: Check,
    /// Whether the estimate of some metric is beyond its bound.
    pub(crate) is_beyond: bool,
}

impl Assessed {
    pub(crate) fn numerics(&self) -> PassNumerics {
        self.error.numerics
    }

    pub(crate) fn clears(&self) -> bool {
        self.numerics().is_fp32() || self.tightest.used() <= 1.0
    }

    pub(crate) fn median(&self) -> f64 {
        self.error
            .product
            .map_or(f64::INFINITY, |product| product.median)
    }

    pub(crate) fn loss_estimate(&self) -> f64 {
        self.loss.map_or(f64::INFINITY, |loss| loss.estimate())
    }

    pub(crate) fn loss_high(&self) -> f64 {
        self.loss.map_or(f64::INFINITY, |loss| loss.high())
    }
}

impl<'a> MeasuredPass<'a> {
    pub(crate) fn site_name(&self) -> &'a str {
        &self.step.profile.sites[self.site].site.name
    }

    /// The product's share of what all products of a step cost in f32.
    pub(crate) fn cost_share(&self) -> f64 {
        full_precision(self.step.policy, &self.shape) / self.step.full_precision
    }

    /// Runs `f` with the excerpts that the policy asks for, once multiplied.
    pub(crate) fn assess_with<T>(&self, f: impl FnOnce(&mut Assessor<'_, '_>) -> T) -> T {
        let excerpts = self.excerpts();
        f(&mut Assessor {
            pass: self,
            evaluator: self
                .evaluator(&excerpts)
                .with_noise(Examples::of(self.pass)),
        })
    }

    /// What a pair does to the product in each sampled step by itself.
    pub(crate) fn step_by_step(&self, pair: PassNumerics) -> Vec<PairError> {
        let excerpts = self.excerpts();
        let steps = excerpts.chunks(1);
        steps.map(|step| self.evaluator(step).pair(pair)).collect()
    }

    fn excerpts(&self) -> Vec<Excerpt> {
        let Step {
            policy, loss_scale, ..
        } = *self.step;
        let samples = &self.measured.samples;
        let outputs = policy.outputs.div_ceil(samples.len().max(1));
        let gradient = self
            .pass
            .operands()
            .iter()
            .position(|&role| role == Role::Grad);
        let excerpt = |sample| {
            let mut excerpt = Excerpt::new(sample, outputs);
            if let (Some(side), true) = (gradient, loss_scale != 1.0) {
                excerpt.multiply_side(side, loss_scale as f32);
            }
            excerpt
        };
        samples.iter().map(excerpt).collect()
    }

    fn evaluator<'e>(&self, excerpts: &'e [Excerpt]) -> Evaluator<'e> {
        let stream = stream(self.site_name(), self.pass);
        Evaluator::new(excerpts, self.step.policy.seed, stream)
    }

    /// One pair.
    pub(crate) fn assess(&self, pair: PassNumerics) -> Assessed {
        self.assess_with(|assessor| assessor.assess(pair))
    }
}

/// Assesses pairs for one pass.
pub(crate) struct Assessor<'p, 'e> {
    pass: &'p MeasuredPass<'p>,
    evaluator: Evaluator<'e>,
}

impl Assessor<'_, '_> {
    pub(crate) fn assess(&mut self, pair: PassNumerics) -> Assessed {
        let MeasuredPass {
            step,
            site,
            pass,
            shape,
            ..
        } = *self.pass;
        let error = self.evaluator.pair(pair);
        let checks = step.policy.checks(pass, shape.depth, &error);
        let cost = step.policy.target.cost_of(&pair, &shape);
        let quality = step.quality.as_ref().ok();
        Assessed {
            cost,
            step_cost: cost * shape.multiplications() / step.full_precision,
            loss: if pair.is_fp32() {
                Some(QualityLoss::ZERO)
            } else {
                let noise = error.noise.as_ref();
                noise.and_then(|noise| quality?.loss(site, pass, noise))
            },
            error,
            is_beyond: checks.iter().any(Check::is_exceeded),
            tightest: tightest(checks),
        }
    }
}
