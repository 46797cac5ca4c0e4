//! What pairs of numerics do to measured products: against slow references, and on operands of known distributions.

mod advice;
mod odd_samples;
mod reference;
mod selection;

use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::whatif::{Pairs, PassOutcome, SiteOutcome, WhatIf};
use mantissa_plan::{OperandStatistics, Pass, PassNumerics, PassSample, Profile, Site, SiteKind};
use mantissa_quant::Numerics;

const GAUSS: f64 = f64::INFINITY;

fn numerics(token: &str) -> Numerics {
    token.parse().unwrap()
}

fn both(tokens: &[&str]) -> Pairs {
    Pairs::Same(tokens.iter().map(|token| numerics(token)).collect())
}

fn amax(values: &[f32]) -> f32 {
    let finite = values.iter().filter(|x| x.is_finite());
    finite.fold(0.0, |top, x| top.max(x.abs()))
}

/// A sample of `[batch, outer, depth]` rows whose operands hold nothing larger.
fn sample([left, right]: [Vec<f32>; 2], batch: usize, depth: usize) -> PassSample {
    PassSample {
        step: 0,
        batch,
        outer_left: left.len() / batch / depth,
        outer_right: right.len() / batch / depth,
        depth,
        left_amax: amax(&left),
        right_amax: amax(&right),
        left,
        right,
    }
}

/// Rows of a Student-t distribution on either side.
fn draw(nu: f64, seed: u64, rows: usize, depth: usize) -> PassSample {
    let side = |stream| student_t(nu, RandomBits::new(seed, stream), rows * depth);
    sample([side(0), side(1)], 1, depth)
}

/// A profile of one linear site that was measured in one pass.
fn profile(pass: Pass, samples: Vec<PassSample>) -> Profile {
    let mut profile = Profile::new(&[Site::new("encoder.query", SiteKind::Linear)]);
    for (step, mut sample) in samples.into_iter().enumerate() {
        sample.step = step as u64;
        let statistics = |outer, amax, rows: &[f32]| {
            OperandStatistics::of(sample.step, [sample.batch, outer, sample.depth], amax, rows)
        };
        let left = statistics(sample.outer_left, sample.left_amax, &sample.left);
        let right = statistics(sample.outer_right, sample.right_amax, &sample.right);
        profile
            .record("encoder.query", pass, sample, left, right)
            .unwrap();
    }
    profile
}

fn site_outcome(pass: Pass, samples: Vec<PassSample>, pairs: Pairs) -> SiteOutcome {
    let whatif = WhatIf {
        pairs,
        outputs: usize::MAX,
        seed: 7,
    };
    whatif.site(profile(pass, samples).site("encoder.query").unwrap())
}

fn outcome(samples: Vec<PassSample>, pairs: Pairs) -> PassOutcome {
    site_outcome(Pass::GradRhs, samples, pairs).passes.remove(0)
}

#[test]
fn the_diagonal_of_all_pairs_is_the_same_pairs() {
    let tokens = ["int8/tensor", "e4m3/block32/stochastic", "nvfp4"];
    let samples = || vec![draw(4.0, 1, 8, 64), draw(4.0, 2, 8, 64)];
    let all: Vec<Numerics> = tokens.iter().map(|token| numerics(token)).collect();
    let square = outcome(samples(), Pairs::All(all.clone()));
    let same = outcome(samples(), Pairs::Same(all.clone()));
    assert_eq!((square.pairs.len(), same.pairs.len()), (9, 3));
    for error in &same.pairs {
        assert_eq!(square.same(error.numerics.left), Some(error));
    }
    let asked = PassNumerics {
        left: all[2],
        right: all[0],
    };
    let one = outcome(samples(), Pairs::Asked(vec![asked]));
    let found = square.pairs.iter().find(|error| error.numerics == asked);
    assert_eq!(one.pairs.first(), found);
}

#[test]
fn threads_do_not_change_a_bit() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let samples = (0..3).map(|seed| draw(3.0, seed, 24, 300)).collect();
            let settings = WhatIf {
                seed: 5,
                ..WhatIf::default()
            };
            settings.site(
                profile(Pass::Forward, samples)
                    .site("encoder.query")
                    .unwrap(),
            )
        })
    };
    let alone = with(1);
    assert_eq!(
        alone.passes[0].pairs.len(),
        mantissa_plan::whatif::grid().len()
    );
    assert_eq!(with(3), alone);
}
