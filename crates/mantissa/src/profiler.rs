//! Measuring the operands of every product while training.
//!
//! On the steps that are due, a bounded and deterministic subsample of whole rows of both operands of all three
//! passes of every site goes into a [`Profile`], with the magnitude of the whole operand. Measuring looks at
//! tensors that exist anyway and changes none of them.

use std::time::{Duration, Instant};

use mantissa_plan::{Pass, Profile, ProfileError, Role, Sampling, Site, sampling};
use mantissa_quant::Operand;
use rayon::prelude::*;

/// What a [`Profiler`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfilerConfig {
    /// Measure the steps that are multiples of this. At least 1.
    pub every: u64,
    /// How much of each operand is looked at.
    pub sampling: Sampling,
}

impl Default for ProfilerConfig {
    /// Every 20th step, and what [`Sampling`] says.
    fn default() -> Self {
        Self {
            every: 20,
            sampling: Sampling::default(),
        }
    }
}

/// A [`Profile`] in the making.
#[derive(Clone, Debug)]
pub struct Profiler {
    config: ProfilerConfig,
    sites: Vec<Site>,
    profile: Profile,
    /// Steps up to this one were measured before.
    measured: Option<u64>,
    /// The step that was measured last, and how many were.
    current: Option<u64>,
    steps: u64,
    seed: u64,
    spent: Duration,
}

/// The two operands of one pass.
pub(crate) struct Operands<'a> {
    pub(crate) left: Operand<'a>,
    pub(crate) right: Operand<'a>,
}

/// The largest finite magnitude of each of a site's three tensors.
#[derive(Clone, Copy)]
pub(crate) struct Amax {
    pub(crate) lhs: f32,
    pub(crate) rhs: f32,
    pub(crate) grad: f32,
}

impl Amax {
    pub(crate) fn of(&self, role: Role) -> f32 {
        match role {
            Role::Lhs => self.lhs,
            Role::Rhs => self.rhs,
            Role::Grad => self.grad,
        }
    }
}

impl Profiler {
    pub(crate) fn new(config: ProfilerConfig, sites: Vec<Site>, seed: u64) -> Self {
        Self {
            config,
            profile: Profile::new(&sites),
            sites,
            measured: None,
            current: None,
            steps: 0,
            seed,
            spent: Duration::ZERO,
        }
    }

    /// Goes on with `earlier`, and measures no step up to `measured` again.
    pub(crate) fn resume(
        &mut self,
        earlier: &Profile,
        measured: Option<u64>,
    ) -> Result<(), ProfileError> {
        self.measured = measured;
        self.profile.merge(earlier)
    }

    /// Of a run that goes on from an earlier step: what was measured is not measured again.
    pub(crate) fn taken_back(mut self) -> Self {
        self.measured = self.measured.max(self.current);
        self
    }

    pub(crate) fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.every.max(1))
            && self.measured.is_none_or(|last| step > last)
    }

    /// What was measured so far.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What was measured.
    pub fn into_profile(self) -> Profile {
        self.profile
    }

    /// How many steps it has measured, without those before it went on.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The time that measuring has taken.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Measures a site's passes. `gradient_factor` makes of its gradients those of the loss itself.
    pub(crate) fn sample(
        &mut self,
        site: usize,
        step: u64,
        passes: &[(Pass, Operands<'_>); 3],
        amax: &Amax,
        gradient_factor: f32,
    ) {
        let started = Instant::now();
        let measure = |(pass, operands): &(Pass, Operands<'_>)| {
            let Operands { left, right } = operands;
            let amax = pass.operands().map(|role| amax.of(role));
            let factors = pass.operands().map(|role| match role {
                Role::Lhs | Role::Rhs => 1.0,
                Role::Grad => gradient_factor,
            });
            let random = sampling::draws(self.seed, step, site, *pass);
            let sampling = &self.config.sampling;
            sampling.measure(step, [left, right], amax, factors, random)
        };
        let measured: Vec<_> = passes.par_iter().map(measure).collect();
        let name = &self.sites[site].name;
        for (measured, (pass, _)) in measured.into_iter().zip(passes) {
            let Some(measured) = measured else { continue };
            let recorded =
                self.profile
                    .record(name, *pass, measured.sample, measured.left, measured.right);
            recorded.expect("a sample of a site of this session");
            self.steps += u64::from(self.current != Some(step));
            self.current = Some(step);
        }
        self.spent += started.elapsed();
    }

    pub(crate) fn count_time(&mut self, spent: Duration) {
        self.spent += spent;
    }
}
