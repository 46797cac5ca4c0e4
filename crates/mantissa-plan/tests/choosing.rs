//! The choice on operands of known distributions.

use std::time::Instant;

use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::{
    Candidates, LossScaling, OperandStatistics, Pass, PassNumerics, PassSample, Plan, Policy,
    Profile, Site, SiteKind, Source, choose, explain,
};
use mantissa_quant::{Granularity, Numerics};

const GAUSS: f64 = f64::INFINITY;
const ROWS: usize = 256;
const DEPTH: usize = 512;

fn numerics(text: &str) -> Numerics {
    text.parse().unwrap()
}

fn amax(values: &[f32]) -> f32 {
    values
        .iter()
        .filter(|x| x.is_finite())
        .fold(0.0, |top: f32, x| top.max(x.abs()))
}

fn sample(step: u64, [left, right]: [Vec<f32>; 2], rows: usize, depth: usize) -> PassSample {
    let (left_amax, right_amax) = (amax(&left), amax(&right));
    PassSample {
        step,
        batch: 1,
        outer_left: rows,
        outer_right: rows,
        depth,
        left,
        right,
        left_amax,
        right_amax,
    }
}

fn record(profile: &mut Profile, site: &str, pass: Pass, sample: PassSample) {
    let statistics = |outer, amax, rows: &[f32]| {
        OperandStatistics::of(sample.step, [1, outer, sample.depth], amax, rows)
    };
    let left = statistics(sample.outer_left, sample.left_amax, &sample.left);
    let right = statistics(sample.outer_right, sample.right_amax, &sample.right);
    profile.record(site, pass, sample, left, right).unwrap();
}

/// A profile of one site with operands that are Student-t with these degrees of freedom, times `scale`.
fn measured(pass: Pass, nu: f64, scale: f32) -> Profile {
    let mut profile = Profile::new(&[Site::new("query", SiteKind::Linear)]);
    for step in 0..2 {
        let draw = |stream| {
            student_t(nu, RandomBits::new(step, stream), ROWS * DEPTH)
                .iter()
                .map(|x| x * scale)
                .collect()
        };
        record(
            &mut profile,
            "query",
            pass,
            sample(step, [draw(0), draw(1)], ROWS, DEPTH),
        );
    }
    profile
}

fn chosen(profile: &Profile, pass: Pass, policy: &Policy) -> PassNumerics {
    *choose(profile, policy)
        .unwrap()
        .site("query")
        .unwrap()
        .numerics
        .pass(pass)
}

fn only(candidates: &[&str]) -> Policy {
    let all: Vec<Numerics> = candidates.iter().map(|text| numerics(text)).collect();
    let candidates = Candidates {
        lhs: all.clone(),
        rhs: all.clone(),
        grad: all,
    };
    Policy {
        candidates,
        ..Policy::default()
    }
}

#[test]
fn gaussian_operands_take_int8_with_one_scale() {
    let plan = choose(&measured(Pass::Forward, GAUSS, 1.0), &Policy::default()).unwrap();
    let site = plan.site("query").unwrap();
    assert_eq!(
        site.numerics.forward,
        PassNumerics::both(numerics("int8/tensor"))
    );
    let evidence = &site.evidence[&Pass::Forward];
    // 0.000721 for 512 x 512 Gaussian matrices with one scale each; the amax of half as many rows is a little smaller.
    assert!(
        (6.4e-4..7.6e-4).contains(&evidence.backward_error),
        "{evidence:?}"
    );
    assert!(evidence.backward_error_high >= evidence.backward_error);
    assert_eq!(
        (evidence.samples, evidence.first_step, evidence.last_step),
        (2, 0, 1)
    );
    assert!(evidence.outputs >= 4000 && evidence.margin > 0.5);
    let runner_up = evidence.runner_up.as_ref().unwrap();
    assert_eq!(runner_up.cost, evidence.cost);
    assert!(runner_up.backward_error > evidence.backward_error);
    assert!(evidence.rejected.is_none());
    assert_eq!(plan.loss_scaling, LossScaling::None);
    assert_eq!(
        plan.source,
        Source::Profile {
            target: "emulate".to_string(),
            steps: vec![0, 1]
        }
    );
}

#[test]
fn heavier_tails_take_e4m3_and_never_int8_with_one_scale() {
    for nu in [2.0, 3.0, 4.0] {
        let pair = chosen(
            &measured(Pass::Forward, nu, 1.0),
            Pass::Forward,
            &Policy::default(),
        );
        for side in [pair.left, pair.right] {
            assert_ne!(side, numerics("int8/tensor"), "nu = {nu}");
            assert_eq!(side.format.bits(), 8, "nu = {nu}: {side}");
        }
    }
    let policy = only(&["int8/tensor", "bf16", "fp32"]);
    let plan = choose(&measured(Pass::Forward, 2.0, 1.0), &policy).unwrap();
    let site = plan.site("query").unwrap();
    assert_eq!(site.numerics.forward, PassNumerics::both(Numerics::BF16));
    let rejected = site.evidence[&Pass::Forward].rejected.as_ref().unwrap();
    assert!(
        rejected
            .numerics
            .values()
            .any(|&side| side == numerics("int8/tensor")),
        "{rejected:?}"
    );
    assert!(rejected.cost < site.evidence[&Pass::Forward].cost);
}

#[test]
fn the_scale_is_that_of_the_whole_operand() {
    // The rows sampled are Gaussian, but elsewhere in the left operand there is an element a thousand times larger.
    let mut profile = Profile::new(&[Site::new("query", SiteKind::Linear)]);
    for step in 0..2 {
        let draw = |stream| student_t(GAUSS, RandomBits::new(step, stream), ROWS * DEPTH);
        let mut outlier = sample(step, [draw(0), draw(1)], ROWS, DEPTH);
        outlier.left_amax = 4000.0;
        record(&mut profile, "query", Pass::Forward, outlier);
    }
    let pair = chosen(&profile, Pass::Forward, &Policy::default());
    assert_ne!(pair.left, numerics("int8/tensor"));
    assert_eq!(pair.left.format.bits(), 8);
    // A scale for each row does not see it.
    let pair = chosen(
        &profile,
        Pass::Forward,
        &only(&["int8/tensor", "int8/channel"]),
    );
    assert_eq!(
        (pair.left, pair.right),
        (numerics("int8/channel"), numerics("int8/tensor"))
    );
}

#[test]
fn tiny_gradients_without_a_scale_are_rejected() {
    let policy = only(&[
        "e5m2/unscaled",
        "e5m2/unscaled/stochastic",
        "fp16",
        "bf16",
        "fp32",
    ]);
    let plan = choose(&measured(Pass::GradLhs, GAUSS, 1e-7), &policy).unwrap();
    let site = plan.site("query").unwrap();
    assert_eq!(site.numerics.grad_lhs.left, Numerics::BF16);
    let policy = only(&["e5m2/unscaled", "e5m2", "fp32"]);
    assert_eq!(
        chosen(
            &measured(Pass::GradLhs, GAUSS, 1e-7),
            Pass::GradLhs,
            &policy
        ),
        PassNumerics::both(numerics("e5m2"))
    );

    // Where only the gradient is tiny, it is the gradient's underflow that is named.
    let mut profile = Profile::new(&[Site::new("query", SiteKind::Linear)]);
    let draw = |stream, scale: f32| {
        student_t(GAUSS, RandomBits::new(9, stream), ROWS * DEPTH)
            .iter()
            .map(|x| x * scale)
            .collect()
    };
    record(
        &mut profile,
        "query",
        Pass::GradLhs,
        sample(3, [draw(0, 2e-5), draw(1, 1.0)], ROWS, DEPTH),
    );
    let plan = choose(&profile, &only(&["e5m2/unscaled", "fp32"])).unwrap();
    let text = explain(&plan, "query").unwrap();
    assert!(
        text.contains("grad in e5m2/unscaled") && text.contains("underflow of grad may be"),
        "{text}"
    );
}

#[test]
fn gradients_to_nearest_need_a_bound_on_bias() {
    // All gradients lie 0.45 of a step above a code, so rounding to nearest loses the same from every one of them.
    let mut profile = Profile::new(&[Site::new("query", SiteKind::Linear)]);
    let gradient: Vec<f32> = (0..ROWS * DEPTH)
        .map(|i| {
            if i % DEPTH == 0 {
                127.0
            } else {
                (60 + i % 9) as f32 + 0.45
            }
        })
        .collect();
    let right = student_t(GAUSS, RandomBits::new(1, 1), ROWS * DEPTH);
    record(
        &mut profile,
        "query",
        Pass::GradLhs,
        sample(0, [gradient, right], ROWS, DEPTH),
    );
    let gradients = |candidates: &[&str]| {
        let mut policy = only(&["int8/tensor"]);
        policy.candidates.grad = candidates.iter().map(|text| numerics(text)).collect();
        chosen(&profile, Pass::GradLhs, &policy).left
    };
    assert_eq!(
        gradients(&["int8", "int8/stochastic"]),
        numerics("int8/stochastic")
    );
    assert_eq!(gradients(&["int8"]), Numerics::FP32);
}

#[test]
fn typical_gradients_take_eight_bits() {
    for (pass, nu) in [
        (Pass::GradLhs, 5.0),
        (Pass::GradRhs, 4.0),
        (Pass::GradRhs, 3.0),
    ] {
        let pair = chosen(&measured(pass, nu, 1e-6), pass, &Policy::default());
        assert_eq!(
            (pair.left.format.bits(), pair.right.format.bits()),
            (8, 8),
            "{pass} {nu}: {pair:?}"
        );
        let pair = chosen(
            &measured(pass, nu, 1e-6),
            pass,
            &only(&["e4m3/tensor/stochastic", "e5m2/tensor/stochastic", "bf16"]),
        );
        assert_eq!(
            pair,
            PassNumerics::both(numerics("e4m3/stochastic")),
            "{pass} {nu}"
        );
    }
}

#[test]
fn the_bound_follows_the_depth() {
    // E4M3 has the same relative accuracy at any depth, though its backward error at depth 64 is beyond the bound at 512.
    let mut profile = Profile::new(&[Site::new("query", SiteKind::Linear)]);
    let draw = |stream| student_t(GAUSS, RandomBits::new(4, stream), ROWS * 64);
    record(
        &mut profile,
        "query",
        Pass::Forward,
        sample(0, [draw(0), draw(1)], ROWS, 64),
    );
    let plan = choose(&profile, &only(&["e4m3", "bf16"])).unwrap();
    let evidence = &plan.site("query").unwrap().evidence[&Pass::Forward];
    assert_eq!(
        plan.site("query").unwrap().numerics.forward,
        PassNumerics::both(numerics("e4m3"))
    );
    assert!(
        evidence.backward_error > 4e-3 && evidence.backward_error_bound > 1.1e-2,
        "{evidence:?}"
    );
}

#[test]
fn targets_disagree_where_their_hardware_does() {
    let gaussian = measured(Pass::Forward, GAUSS, 1.0);
    let heavy = measured(Pass::Forward, 3.0, 1.0);
    let on = |profile, target| chosen(profile, Pass::Forward, &Policy::for_target(target).unwrap());
    assert_eq!(
        on(&gaussian, "cpu-vnni"),
        PassNumerics::both(numerics("int8/tensor"))
    );
    assert_eq!(
        on(&heavy, "cpu-vnni"),
        PassNumerics::both(numerics("int8/channel"))
    );
    assert_eq!(
        on(&heavy, "h100"),
        PassNumerics::both(numerics("e4m3/tensor"))
    );
    // cuBLAS has no product of two E5M2 operands, and neither has the target.
    let policy = Policy {
        target: Policy::for_target("h100").unwrap().target,
        ..only(&["e5m2/tensor", "bf16"])
    };
    assert_eq!(
        chosen(&gaussian, Pass::Forward, &policy),
        PassNumerics::both(Numerics::BF16)
    );
    let message = Policy::for_target("h10").unwrap_err().to_string();
    assert!(message.contains("did you mean `h100`?"), "{message}");
}

#[test]
fn what_says_nothing_stays_in_f32() {
    let sites = [
        Site::new("query", SiteKind::Linear),
        Site::new("token", SiteKind::Embedding),
    ];
    let message = choose(&Profile::new(&sites), &Policy::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("no measurement"), "{message}");

    let zeros = || vec![0.0; 32 * 16];
    let nan = || vec![f32::NAN; 32 * 16];
    let ones = || vec![1.0; 32 * 16];
    for (rows, operands) in [
        (32, [zeros(), ones()]),
        (32, [nan(), ones()]),
        (2, [vec![1.0; 32], vec![1.5; 32]]),
    ] {
        let mut profile = Profile::new(&sites);
        record(
            &mut profile,
            "query",
            Pass::Forward,
            sample(0, operands, rows, 16),
        );
        let plan = choose(&profile, &Policy::default()).unwrap();
        assert!(plan.sites.iter().all(|site| site.numerics.is_fp32()));
        let evidence = &plan.site("query").unwrap().evidence[&Pass::Forward];
        assert!(
            evidence
                .rejected
                .as_ref()
                .unwrap()
                .reason
                .starts_with("the samples"),
            "{evidence:?}"
        );
        assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan);
        assert!(
            explain(&plan, "token")
                .unwrap()
                .contains("multiplies nothing")
        );
        assert!(explain(&plan, "query").unwrap().contains("not measured"));
    }
}

#[test]
fn a_gradient_without_a_scale_asks_for_loss_scaling() {
    let plan = choose(
        &measured(Pass::GradRhs, GAUSS, 1.0),
        &only(&["fp16", "fp32"]),
    )
    .unwrap();
    assert_eq!(plan.loss_scaling, LossScaling::dynamic());
    let plan = choose(
        &measured(Pass::GradRhs, GAUSS, 1.0),
        &only(&["bf16", "fp32"]),
    )
    .unwrap();
    assert_eq!(plan.loss_scaling, LossScaling::None);
}

#[test]
fn the_plan_is_the_same_for_any_number_of_threads_and_survives_its_file() {
    let mut profile = Profile::new(&[
        Site::new("a", SiteKind::Linear),
        Site::new("query", SiteKind::Matmul),
    ]);
    for (site, nu) in [("a", 3.0), ("query", 6.0)] {
        for pass in Pass::ALL {
            let draw = |stream| student_t(nu, RandomBits::new(pass as u64, stream), 64 * 128);
            let mut batched = sample(7, [draw(0), draw(1)], 16, 128);
            batched.batch = 4;
            record(&mut profile, site, pass, batched);
        }
    }
    let texts: Vec<String> = [1, 2, 3]
        .iter()
        .map(|&threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                choose(&profile, &Policy::default())
                    .unwrap()
                    .to_toml()
                    .unwrap()
            })
        })
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]));
    let plan = Plan::from_toml(&texts[0]).unwrap();
    assert_eq!(plan.to_toml().unwrap(), texts[0]);
    assert_eq!(plan.sites[0].evidence.len(), 3);
}

#[test]
fn explaining_names_the_metrics_and_the_runner_up() {
    let plan = choose(&measured(Pass::GradRhs, 3.0, 1.0), &Policy::default()).unwrap();
    let text = explain(&plan, "query").unwrap();
    for part in [
        "query (linear)",
        "grad_rhs, dR = Lᵀ G",
        "Backward error: median",
        "underflow",
        "bias",
        "Runner-up:",
        "margin",
        "confidence",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        explain(&plan, "querry")
            .unwrap_err()
            .to_string()
            .contains("did you mean `query`?")
    );
}

#[test]
fn no_candidate_covers_more_than_its_operand() {
    let candidates = Candidates::default();
    for role in [&candidates.lhs, &candidates.rhs, &candidates.grad] {
        assert!(role.contains(&Numerics::FP32) && role.contains(&Numerics::BF16));
        assert!(
            role.iter()
                .all(|numerics| !matches!(numerics.granularity, Granularity::Tile(..)))
        );
    }
    let none = Candidates {
        lhs: vec![],
        rhs: vec![],
        grad: vec![],
    };
    assert_eq!(none.pairs(Pass::GradLhs), [PassNumerics::FP32]);
}

/// A profile of the size bert-tiny's gives: every decision in a few seconds.
#[test]
fn sixteen_sites_are_decided_in_seconds() {
    let names: Vec<Site> = (0..16)
        .map(|site| Site::new(format!("site.{site}"), SiteKind::Linear))
        .collect();
    let mut profile = Profile::new(&names);
    for (index, site) in names.iter().enumerate() {
        for pass in Pass::ALL {
            for step in 0..4 {
                let draw =
                    |stream| student_t(3.0 + index as f64, RandomBits::new(step, stream), 32 * 512);
                record(
                    &mut profile,
                    &site.name,
                    pass,
                    sample(step, [draw(0), draw(1)], 32, 512),
                );
            }
        }
    }
    let started = Instant::now();
    choose(&profile, &Policy::default()).unwrap();
    let spent = started.elapsed();
    println!("{spent:?}");
    assert!(spent.as_secs() < 60, "{spent:?}");
}
