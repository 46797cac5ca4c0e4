//! Each distribution's own sample is best fitted by itself, and nu's interval holds what it promises.

use mantissa_formats::RandomBits;
use mantissa_metrics::{Distribution, Fits, StudentT, fit_distributions, fit_student_t, sample};

fn fits(values: &[f32]) -> Fits {
    fit_distributions(values, 0.95).unwrap()
}

#[test]
fn every_distribution_knows_its_own_sample() {
    const COUNT: usize = 8192;
    for seed in 0..10 {
        let random = |stream| RandomBits::new(seed, stream);
        let samples = [
            ("normal", sample::student_t(f64::INFINITY, random(0), COUNT)),
            ("laplace", sample::laplace(random(1), COUNT)),
            ("student-t", sample::student_t(1.5, random(2), COUNT)),
            ("student-t", sample::student_t(4.0, random(3), COUNT)),
            ("student-t", sample::student_t(8.0, random(4), COUNT)),
            ("log-normal", sample::log_normal(0.5, random(5), COUNT)),
            ("log-normal", sample::log_normal(3.0, random(6), COUNT)),
        ];
        for (name, values) in samples {
            let moved: Vec<f32> = values.iter().map(|x| 1e-20 * x).collect();
            for values in [&values, &moved] {
                let fits = fits(values);
                let best = fits.best();
                assert_eq!(best.distribution.name(), name, "seed {seed}: {fits:?}");
                // Twice the 95 % point of the distance of a sample from its own distribution, 1.36 / sqrt(n).
                let near = 2.0 * 1.36 / (COUNT as f64).sqrt();
                assert!(best.distance < near, "seed {seed}: {best:?}");
                assert_eq!((fits.count, fits.ranked.len()), (COUNT, 4));
            }
        }
    }
}

#[test]
fn the_interval_of_nu_covers_it_as_often_as_it_says() {
    // Of 400 independent trials at 95 %, the number that miss is binomial: 20 expected, outside 8 to 35 with probability 0.002.
    for nu in [2.0, 5.0] {
        let trials = 400;
        let missed = (0..trials).filter(|&seed| {
            let values = sample::student_t(nu, RandomBits::new(seed, 9), 1000);
            let interval = fits(&values).nu;
            !(interval.low..=interval.high).contains(&nu)
        });
        let missed = missed.count();
        assert!((8..=35).contains(&missed), "t({nu}): {missed} of {trials}");
    }
}

#[test]
fn a_normal_has_no_upper_end_of_nu_and_a_heavy_tail_no_lower_one() {
    let normal = sample::student_t(f64::INFINITY, RandomBits::new(3, 0), 16_384);
    let told = fits(&normal).nu;
    assert!(told.low > 20.0 && told.high == f64::INFINITY, "{told:?}");
    let heavy = sample::student_t(0.3, RandomBits::new(3, 1), 2000);
    let told = fits(&heavy).nu;
    assert!(told.low == 0.0 && told.high < 0.6, "{told:?}");
    // The fit itself is inside.
    let values = sample::student_t(3.0, RandomBits::new(3, 2), 5000);
    let fit = fit_student_t(&values).unwrap();
    let told = fits(&values).nu;
    assert!(told.low < fit.nu && fit.nu < told.high);
}

#[test]
fn distribution_functions_match_known_values() {
    // R: pnorm(2, 1, 2), pt(2, 3), pcauchy(1), plnorm(2, 0.5, 1.5); the Laplace's is elementary.
    let student = |nu| {
        Distribution::StudentT(StudentT {
            nu,
            location: 0.0,
            scale: 1.0,
        })
    };
    let log_normal = Distribution::LogNormal {
        log_mean: 0.5,
        log_deviation: 1.5,
        positive: 1.0,
    };
    let normal = Distribution::Normal {
        mean: 1.0,
        deviation: 2.0,
    };
    let laplace = Distribution::Laplace {
        location: 1.0,
        scale: 2.0,
    };
    for (distribution, x, expected) in [
        (normal, 2.0, 0.691_462_461_274_013),
        (student(3.0), 2.0, 0.930_337_015_720_578_5),
        (student(1.0), 1.0, 0.75),
        (log_normal, 2.0, 0.551_228_115_306_394),
        (log_normal, -1.0, 0.0),
        (laplace, 1.0, 0.5),
        (laplace, -1.0, 0.5 * (-1f64).exp()),
    ] {
        let told = distribution.cdf(x);
        assert!((told - expected).abs() < 1e-9, "{distribution} {x}: {told}");
    }
}

#[test]
fn densities_are_the_derivatives_of_the_distribution_functions() {
    let distributions = fits(&sample::student_t(3.0, RandomBits::new(8, 0), 1000)).ranked;
    for fit in distributions {
        for x in [-3.0, -0.7, 0.3, 1.0, 5.0] {
            let h = 1e-5;
            let slope = (fit.distribution.cdf(x + h) - fit.distribution.cdf(x - h)) / (2.0 * h);
            let density = fit.distribution.log_likelihood(&[x]).exp();
            let name = fit.distribution.name();
            assert!(
                (slope / density - 1.0).abs() < 1e-4,
                "{name} at {x}: {slope} {density}"
            );
        }
    }
}

#[test]
fn zeros_are_left_out_and_what_has_no_fit_is_none() {
    let values = sample::student_t(5.0, RandomBits::new(2, 0), 4000);
    let with_zeros: Vec<f32> = values
        .iter()
        .flat_map(|&x| [x, 0.0, 0.0, f32::NAN])
        .collect();
    assert_eq!(
        fit_distributions(&with_zeros, 0.95),
        fit_distributions(&values, 0.95)
    );
    // What a rectifier lets through is positive, and log-normal rather than symmetric.
    let rectified: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
    let best = *fits(&rectified).best();
    let Distribution::LogNormal { positive, .. } = best.distribution else {
        panic!("{best:?}")
    };
    assert_eq!(positive, 1.0);
    assert!(best.log_likelihood.is_finite());

    for none in [
        &[][..],
        &[1.0, 2.0],
        &[0.0; 1000],
        &[3.0; 1000],
        &[f32::NAN; 1000],
    ] {
        assert_eq!(fit_distributions(none, 0.95), None);
    }
    let signs: Vec<f32> = (0..1000)
        .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    assert_eq!(fit_distributions(&signs, 0.95), None);
    for confidence in [0.0, 1.0, f64::NAN] {
        assert_eq!(fit_distributions(&values, confidence), None);
    }
}

#[test]
fn fits_survive_their_file() {
    let told = fits(&sample::student_t(
        f64::INFINITY,
        RandomBits::new(2, 0),
        4000,
    ));
    let text = serde_json::to_string(&told).unwrap();
    assert!(text.contains("\"distribution\":\"student-t\""), "{text}");
    let read: Fits = serde_json::from_str(&text).unwrap();
    assert_eq!(read.nu, told.nu);
    assert_eq!(read.best().distribution.name(), "normal");
}
