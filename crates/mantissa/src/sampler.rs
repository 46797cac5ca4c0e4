//! Rows of the operands of every product of one step, from which a guard judges the numerics in force.

use std::time::{Duration, Instant};

use mantissa_plan::{Pass, PassSample, Sampling, sampling};

use crate::profiler::{Amax, Operands};

/// Takes samples of the step that it was armed for.
#[derive(Debug)]
pub(crate) struct Sampler {
    armed: Option<(u64, Sampling)>,
    is_active: bool,
    seed: u64,
    samples: Vec<(usize, Pass, PassSample)>,
    spent: Duration,
}

impl Sampler {
    /// One that waits to be armed. `seed` decides which rows it takes.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            armed: None,
            is_active: false,
            seed,
            samples: Vec::new(),
            spent: Duration::ZERO,
        }
    }

    pub(crate) fn arm(&mut self, step: u64, sampling: Sampling) {
        self.armed = Some((step, sampling));
    }

    /// Whether `step`, which begins, is to be sampled.
    pub(crate) fn begin_step(&mut self, step: u64) -> bool {
        self.samples.clear();
        self.is_active = self.armed.is_some_and(|(armed, _)| armed == step);
        self.is_active
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    pub(crate) fn sample(
        &mut self,
        site: usize,
        step: u64,
        passes: &[(Pass, Operands<'_>); 3],
        amax: &Amax,
    ) {
        let Some((armed, sampling)) = self.armed.filter(|_| self.is_active) else {
            return;
        };
        let started = Instant::now();
        if armed == step {
            for (pass, Operands { left, right }) in passes {
                let amax = pass.operands().map(|role| amax.of(role));
                let random = sampling::draws(self.seed, step, site, *pass);
                let sample = sampling.rows(step, [left, right], amax, random);
                self.samples
                    .extend(sample.map(|sample| (site, *pass, sample)));
            }
        }
        self.spent += started.elapsed();
    }

    /// What was sampled, by site and pass; of a site that is used several times, what came first.
    pub(crate) fn take(&mut self) -> Vec<(usize, Pass, PassSample)> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.sort_by_key(|&(site, pass, _)| (site, pass));
        samples.dedup_by_key(|&mut (site, pass, _)| (site, pass));
        self.armed = None;
        samples
    }

    pub(crate) fn spent(&self) -> Duration {
        self.spent
    }

    pub(crate) fn count_time(&mut self, spent: Duration) {
        self.spent += spent;
    }
}
