//! Adafactor.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::lamb::descend;
use crate::reduce::scan;
use crate::rows::{rows_per_piece, rows_per_sum, sum_over_blocks};
use crate::scratch::with_scratch;
use crate::state::{self, StateView};
use crate::vector::{dispatch, sum};

/// The settings of [`Adafactor`], with the names of Burn's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSettings {
    /// What is added to squared gradients, so that none is zero.
    pub epsilon_1: f32,
    /// The least root mean square that a parameter counts with.
    pub epsilon_2: f32,
    /// The largest root mean square of an update, before the learning rate.
    pub clip_threshold: f32,
    /// A new squared gradient weighs `step^decay_rate`; negative.
    pub decay_rate: f64,
    /// Whether a step is `1 / sqrt(step)` at most.
    pub relative_step: bool,
    /// Whether a step is relative to the root mean square of the parameter.
    pub scale_parameter: bool,
    /// What share of itself a parameter loses in a step, times the learning rate.
    pub weight_decay: f32,
}

/// One step of Adafactor without momentum ([Shazeer and Stern 2018](https://arxiv.org/abs/1804.04235), algorithms 4 and 5), for
/// parameters that take their `step`-th step, as in Burn:
///
/// ```text
/// g  = gradient_factor * gradient
/// b  = step^decay_rate
/// r  = (1 - b) * r + b * mean of (g² + epsilon_1) over each row
/// c  = (1 - b) * c + b * mean of (g² + epsilon_1) over each column
/// u  = g / sqrt(r / mean(r)) / sqrt(c)
/// u  = u / max(1, rms(u) / clip_threshold)
/// p  = (1 - learning_rate * weight_decay) * p
///        - min(learning_rate, 1 / sqrt(step)) * max(epsilon_2, rms(p)) * u
/// ```
///
/// So a matrix has moments of a row and a column instead of its own size. A tensor of more axes is many matrices, one of a single
/// axis has its whole second moment.
#[derive(Clone, Copy, Debug)]
pub struct Adafactor {
    settings: AdafactorSettings,
    old_weight: f32,
    new_weight: f32,
    step_size: f64,
    keep: f32,
}

/// What [`Adafactor`] remembers of a tensor, all zero before the first step.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call, which allocates nothing"
)]
pub enum AdafactorMoments<'a> {
    /// Of a tensor of one axis, or none.
    Whole(StateView<'a>),
    /// Of the matrices in the last two axes.
    Factored {
        /// The width of the last axis.
        columns: usize,
        /// A moment for each row of each matrix.
        row_moments: &'a mut [f32],
        /// A moment for each column of each matrix.
        column_moments: &'a mut [f32],
    },
}

impl Adafactor {
    /// `step` counts from 1.
    ///
    /// # Panics
    /// If an epsilon or the clip threshold is not positive, if the decay rate is not negative, or if `step` is 0.
    pub fn new(settings: AdafactorSettings, learning_rate: f64, step: u64) -> Self {
        for (name, value) in [
            ("epsilon_1", settings.epsilon_1),
            ("epsilon_2", settings.epsilon_2),
            ("clip_threshold", settings.clip_threshold),
        ] {
            assert!(
                value > 0.0,
                "the {name} of Adafactor is positive, not {value}"
            );
        }
        let decay_rate = settings.decay_rate;
        assert!(
            decay_rate < 0.0,
            "the decay rate of Adafactor is negative, not {decay_rate}"
        );
        assert!(step > 0, "steps count from 1");
        let new_weight = (step as f64).powf(decay_rate);
        let step_size = if settings.relative_step {
            learning_rate.min((step as f64).sqrt().recip())
        } else {
            learning_rate
        };
        Self {
            settings,
            old_weight: (1.0 - new_weight) as f32,
            new_weight: new_weight as f32,
            step_size,
            keep: (1.0 - learning_rate * f64::from(settings.weight_decay)) as f32,
        }
    }

    /// Updates a tensor's `parameters` and `moments` from its `gradients`, which become the direction `u` before it is clipped.
    /// Large tensors are shared among the threads of the current rayon pool.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &mut [f32],
        parameters: &mut [f32],
        moments: AdafactorMoments<'_>,
    ) {
        assert_eq!(
            gradients.len(),
            parameters.len(),
            "gradients and parameters"
        );
        match moments {
            AdafactorMoments::Whole(second) => {
                assert_eq!(
                    second.len(),
                    parameters.len(),
                    "second moments and parameters"
                );
                let apply = |_: &[f32], directions: &mut [f32], [second]: [&mut [f32]; 1]| {
                    dispatch(Whole {
                        rule: self,
                        gradient_factor,
                        directions,
                        second,
                    });
                };
                state::update(parameters, gradients, [second], &apply);
            }
            AdafactorMoments::Factored {
                columns,
                row_moments,
                column_moments,
            } => self.factored(
                gradient_factor,
                gradients,
                columns,
                row_moments,
                column_moments,
            ),
        }
        let rms = |x: &[f32]| (scan(x).square_sum / x.len().max(1) as f64).sqrt();
        let clip = (rms(gradients) / f64::from(self.settings.clip_threshold)).max(1.0);
        let scale = if self.settings.scale_parameter {
            rms(parameters).max(f64::from(self.settings.epsilon_2))
        } else {
            1.0
        };
        let step = self.step_size * scale / clip;
        descend(parameters, self.keep, gradients, step as f32);
    }

    fn factored(
        &self,
        gradient_factor: f32,
        gradients: &mut [f32],
        columns: usize,
        row_moments: &mut [f32],
        column_moments: &mut [f32],
    ) {
        let count = column_moments.len().checked_div(columns).unwrap_or(0);
        let rows = row_moments.len().checked_div(count).unwrap_or(0);
        assert_eq!(
            (count * rows * columns, count * columns, count * rows),
            (gradients.len(), column_moments.len(), row_moments.len()),
            "gradients, moments of columns and of rows do not make matrices of {columns} columns"
        );
        if gradients.is_empty() {
            return;
        }
        let matrices = gradients
            .chunks_mut(rows * columns)
            .zip(row_moments.chunks_mut(rows))
            .zip(column_moments.chunks_mut(columns));
        for ((gradients, row_moments), column_moments) in matrices {
            self.remember(gradient_factor, gradients, row_moments, column_moments);
            let mean = row_moments.iter().map(|x| f64::from(*x)).sum::<f64>() / rows as f64;
            let per_piece = rows_per_piece(columns);
            let pieces = gradients
                .par_chunks_mut(per_piece * columns)
                .zip(row_moments.par_chunks(per_piece));
            pieces.for_each(|(gradients, row_moments)| {
                for (row, moment) in gradients.chunks_mut(columns).zip(row_moments) {
                    dispatch(Row {
                        factor: gradient_factor / (f64::from(*moment) / mean).sqrt() as f32,
                        directions: row,
                        column_moments,
                    });
                }
            });
        }
    }

    /// Averages the squares of a matrix into the moments of its rows and columns.
    fn remember(
        &self,
        gradient_factor: f32,
        gradients: &[f32],
        row_moments: &mut [f32],
        column_moments: &mut [f32],
    ) {
        let (rows, columns) = (row_moments.len(), column_moments.len());
        let per_block = rows_per_sum(rows, columns);
        let blocks = gradients
            .par_chunks(per_block * columns)
            .zip(row_moments.par_chunks_mut(per_block));
        with_scratch(columns, |sums| {
            sum_over_blocks(blocks, sums, |_, (gradients, row_moments), sums| {
                for (row, moment) in gradients.chunks(columns).zip(row_moments) {
                    let row_sum = dispatch(Squares {
                        row,
                        factor: gradient_factor,
                        epsilon: self.settings.epsilon_1,
                        sums,
                    });
                    *moment =
                        self.old_weight * *moment + self.new_weight * (row_sum / columns as f32);
                }
            });
            for (moment, sum) in column_moments.iter_mut().zip(sums) {
                *moment = self.old_weight * *moment + self.new_weight * (*sum / rows as f32);
            }
        });
    }
}

/// Adds the squares of a row to `sums`, and gives their own sum.
struct Squares<'a> {
    row: &'a [f32],
    factor: f32,
    epsilon: f32,
    sums: &'a mut [f32],
}

impl WithSimd for Squares<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let square = |x: f32| {
            let x = self.factor * x;
            x * x + self.epsilon
        };
        for (sum, x) in self.sums.iter_mut().zip(self.row) {
            *sum += square(*x);
        }
        sum(simd, self.row, square)
    }
}

/// Divides a row by the roots of its columns' moments, and multiplies it.
struct Row<'a> {
    factor: f32,
    directions: &'a mut [f32],
    column_moments: &'a [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, moment) in self.directions.iter_mut().zip(self.column_moments) {
            *x = self.factor * *x / moment.sqrt();
        }
    }
}

struct Whole<'a> {
    rule: &'a Adafactor,
    gradient_factor: f32,
    /// Gradients at first.
    directions: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for Whole<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rule = *self.rule;
        for (x, second) in self.directions.iter_mut().zip(self.second) {
            let gradient = self.gradient_factor * *x;
            let square = gradient * gradient + rule.settings.epsilon_1;
            *second = rule.old_weight * *second + rule.new_weight * square;
            *x = gradient / second.sqrt();
        }
    }
}
