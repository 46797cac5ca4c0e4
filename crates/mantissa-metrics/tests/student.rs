//! The Student-t fit recovers the distribution its sample came from.

use mantissa_formats::RandomBits;
use mantissa_metrics::{StudentT, estimate_nu, fit_student_t, sample};

fn draws(nu: f64, seed: u64, count: usize) -> Vec<f32> {
    sample::student_t(nu, RandomBits::new(seed, 0), count)
}

#[test]
fn nu_is_recovered() {
    // Relative standard error of nu in percent at 16384 draws, about sqrt(nu) to nu in this range;
    // the bounds are four of them.
    for (nu, bound) in [
        (1.0, 0.05),
        (2.0, 0.07),
        (3.0, 0.09),
        (5.0, 0.13),
        (10.0, 0.30),
    ] {
        for seed in 0..4 {
            let fit = fit_student_t(&draws(nu, seed, 16_384)).unwrap();
            assert!(
                (fit.nu / nu - 1.0).abs() < bound,
                "t({nu}) seed {seed}: {fit:?}"
            );
            assert!(
                fit.location.abs() < 0.06 && (fit.scale - 1.0).abs() < 0.06,
                "t({nu}) seed {seed}: {fit:?}"
            );
        }
    }
}

#[test]
fn an_estimate_of_nu_is_near_the_fit_to_the_same_sample() {
    // The likelihood is flat where tails are light.
    for (nu, bound) in [
        (0.7, 0.02),
        (1.0, 0.02),
        (2.0, 0.02),
        (5.0, 0.02),
        (20.0, 0.2),
    ] {
        for seed in 0..10 {
            let values = draws(nu, seed, 1024);
            let (fit, estimate) = (fit_student_t(&values), estimate_nu(&values, 1024));
            let ratio = estimate.unwrap() / fit.unwrap().nu;
            assert!((ratio - 1.0).abs() < bound, "t({nu}) seed {seed}: {ratio}");
        }
    }
    assert_eq!(estimate_nu(&[1.0; 100], 1024), None);
}

#[test]
fn a_normal_has_a_large_nu() {
    for seed in 0..8 {
        let fit = fit_student_t(&draws(f64::INFINITY, seed, 16_384)).unwrap();
        assert!(fit.nu > 60.0, "seed {seed}: {fit:?}");
        assert!((fit.scale - 1.0).abs() < 0.03, "seed {seed}: {fit:?}");
    }
}

#[test]
fn lighter_tails_than_a_normal_reach_the_cap() {
    let uniform: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let fit = fit_student_t(&uniform).unwrap();
    assert_eq!(fit.nu, StudentT::MAX_NU);
    assert!((fit.location - 499.5).abs() < 1e-6 * 499.5);
    // A normal's maximum-likelihood scale, the standard deviation, within the hair that nu = 1000
    // is away from one.
    assert!((fit.scale - (1e6f64 / 12.0).sqrt()).abs() < 1.0, "{fit:?}");
}

#[test]
fn tails_beyond_the_floor_are_reported_as_the_floor() {
    let fit = fit_student_t(&draws(0.2, 1, 16_384)).unwrap();
    assert!((fit.nu - StudentT::MIN_NU).abs() < 1e-3, "{fit:?}");
}

#[test]
fn the_fit_follows_shift_and_scale() {
    let plain = draws(4.0, 9, 8192);
    let reference = fit_student_t(&plain).unwrap();
    for (shift, scale) in [(0.0f32, 1e-30f32), (0.0, 1e30), (100.0, 8.0)] {
        let moved: Vec<f32> = plain.iter().map(|x| x * scale + shift).collect();
        let fit = fit_student_t(&moved).unwrap();
        assert!(
            (fit.nu / reference.nu - 1.0).abs() < 1e-3,
            "{fit:?} {reference:?}"
        );
        assert!(
            (fit.scale / f64::from(scale) / reference.scale - 1.0).abs() < 1e-3,
            "{fit:?} {reference:?}"
        );
    }
}

#[test]
fn the_fit_is_a_maximum_of_the_likelihood() {
    let values = draws(3.0, 21, 4096);
    let fit = fit_student_t(&values).unwrap();
    // For odd nu the gamma functions are elementary, but differences of the likelihood in location
    // and scale need none.
    let likelihood = |location: f64, scale: f64| {
        let density = |x: &f32| {
            let d = (f64::from(*x) - location) / scale;
            -scale.ln() - 0.5 * (fit.nu + 1.0) * (d * d / fit.nu).ln_1p()
        };
        values.iter().map(density).sum::<f64>()
    };
    let best = likelihood(fit.location, fit.scale);
    for step in [-1e-3, 1e-3] {
        assert!(likelihood(fit.location + step, fit.scale) < best);
        assert!(likelihood(fit.location, fit.scale * (1.0 + step)) < best);
    }
}

#[test]
fn a_long_tensor_is_sampled_the_same_way_every_time() {
    let values = draws(5.0, 2, 600_000);
    let fit = fit_student_t(&values).unwrap();
    assert!((fit.nu - 5.0).abs() < 0.7, "{fit:?}");
    assert_eq!(fit_student_t(&values), Some(fit));
}

#[test]
fn non_finite_values_are_left_out() {
    let mut values = draws(5.0, 3, 4096);
    let reference = fit_student_t(&values);
    values.splice(100..100, [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(fit_student_t(&values), reference);
}

#[test]
fn what_has_no_maximum_is_none() {
    assert_eq!(fit_student_t(&[]), None);
    assert_eq!(fit_student_t(&[1.0, 2.0, 3.0]), None);
    assert_eq!(fit_student_t(&[0.0; 1000]), None);
    assert_eq!(fit_student_t(&[f32::NAN; 1000]), None);
    let rectified: Vec<f32> = draws(5.0, 4, 1000).iter().map(|x| x.max(0.0)).collect();
    assert_eq!(fit_student_t(&rectified), None);
}
