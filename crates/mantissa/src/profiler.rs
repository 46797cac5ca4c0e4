//! Measuring the operands of every product while training.
//!
//! On the steps that are due, a bounded and deterministic subsample of whole rows of both operands of all three
//! passes of every site goes into a [`Profile`], with the magnitude of the whole operand. Measuring looks at
//! tensors that exist anyway and changes none of them.

use std::time::{Duration, Instant};

use mantissa_formats::RandomBits;
use mantissa_plan::{OperandStatistics, Pass, PassSample, Profile, Role, Site};
use mantissa_quant::{Operand, amax};

/// What a [`Profiler`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfilerConfig {
    /// Measure the steps that are multiples of this. At least 1.
    pub every: u64,
    /// Rows of each operand in a sample, over all matrices of its batch; at least one of each is taken.
    pub rows: usize,
    /// Matrices of a batch that a sample covers; at least one is taken.
    pub matrices: usize,
    /// Elements of each operand in a sample; fewer rows are taken where they are long.
    pub elements: usize,
}

impl Default for ProfilerConfig {
    /// Every 20th step, 32 rows, 4 matrices, 65,536 elements.
    fn default() -> Self {
        Self {
            every: 20,
            rows: 32,
            matrices: 4,
            elements: 1 << 16,
        }
    }
}

/// A [`Profile`] in the making.
#[derive(Clone, Debug)]
pub struct Profiler {
    config: ProfilerConfig,
    sites: Vec<Site>,
    profile: Profile,
    seed: u64,
    spent: Duration,
}

/// The two operands of one pass.
pub(crate) struct Operands<'a> {
    pub(crate) left: Operand<'a>,
    pub(crate) right: Operand<'a>,
}

/// The largest finite magnitude of each of a site's three tensors.
pub(crate) struct Amax {
    pub(crate) lhs: f32,
    pub(crate) rhs: f32,
    pub(crate) grad: f32,
}

impl Amax {
    fn of(&self, role: Role) -> f32 {
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
            seed,
            spent: Duration::ZERO,
        }
    }

    pub(crate) fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.every.max(1))
    }

    /// What was measured so far.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What was measured.
    pub fn into_profile(self) -> Profile {
        self.profile
    }

    /// The time that measuring has taken.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    pub(crate) fn sample(
        &mut self,
        site: usize,
        step: u64,
        pass: Pass,
        operands: &Operands<'_>,
        amax: &Amax,
    ) {
        let started = Instant::now();
        let Operands { left, right } = operands;
        if left.count() > 0 && right.count() > 0 {
            // One stream a site and pass: rows differ between them, but are the same in every run of a seed.
            let random = RandomBits::new(self.seed, step << 24 | (site as u64) << 2 | pass as u64);
            let matrices = spread(self.config.matrices.max(1), left.batch(), random, 0);
            let rows = (self.config.rows / matrices.len())
                .min(self.config.elements / (left.depth * matrices.len()))
                .max(1);
            let left_rows = spread(rows, left.outer, random, 1 << 16);
            let right_rows = spread(rows, right.outer, random, 2 << 16);
            let [left_role, right_role] = pass.operands();
            let sample = PassSample {
                step,
                batch: matrices.len(),
                outer_left: left_rows.len(),
                outer_right: right_rows.len(),
                depth: left.depth,
                left: gather(left, &matrices, &left_rows),
                right: gather(right, &matrices, &right_rows),
                left_amax: amax.of(left_role),
                right_amax: amax.of(right_role),
            };
            let left_statistics =
                OperandStatistics::of(shape(left), sample.left_amax, &sample.left);
            let right_statistics =
                OperandStatistics::of(shape(right), sample.right_amax, &sample.right);
            let recorded = self.profile.record(
                &self.sites[site].name,
                pass,
                sample,
                left_statistics,
                right_statistics,
            );
            recorded.expect("a sample of a site of this session");
        }
        self.spent += started.elapsed();
    }

    pub(crate) fn count_time(&mut self, spent: Duration) {
        self.spent += spent;
    }
}

/// `count` indices below `len`, one drawn from each of `count` equal stretches; all of them if there are not more.
fn spread(count: usize, len: usize, random: RandomBits, stream: u64) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    (0..count)
        .map(|i| {
            let (start, end) = (i * len / count, (i + 1) * len / count);
            let drawn = u64::from(random.at(stream + i as u64)) * (end - start) as u64;
            start + (drawn >> 32) as usize
        })
        .collect()
}

fn shape(operand: &Operand<'_>) -> [usize; 3] {
    [operand.batch(), operand.outer, operand.depth]
}

fn gather(operand: &Operand<'_>, matrices: &[usize], rows: &[usize]) -> Vec<f32> {
    let mut gathered = Vec::with_capacity(matrices.len() * rows.len() * operand.depth);
    for &matrix in matrices {
        for &row in rows {
            gathered.extend((0..operand.depth).map(|k| operand.at(matrix, row, k)));
        }
    }
    gathered
}

/// The largest finite magnitude in `operand`.
pub(crate) fn finite_amax(operand: &Operand<'_>) -> f32 {
    let largest = amax(operand);
    if largest.is_finite() {
        return largest;
    }
    let rows = operand.offsets.iter().flat_map(|&offset| {
        (0..operand.outer).flat_map(move |row| {
            (0..operand.depth)
                .map(move |k| offset + row * operand.outer_stride + k * operand.depth_stride)
        })
    });
    rows.map(|i| operand.data[i].abs())
        .filter(|x| x.is_finite())
        .fold(0.0, f32::max)
}
