use std::f64::consts::PI;

use mantissa_kernels::activation::Activation;

use crate::comparison::{assert_close, sample, wide};

pub const ALL: [Activation; 6] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// The error function by its Maclaurin series (Abramowitz and Stegun 7.1.6), which has only positive terms.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

fn reference(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

#[test]
fn forward_on_a_dense_sweep() {
    let x: Vec<f32> = (-200_000..=200_000).map(|i| i as f32 * 6.3e-5).collect();
    for function in ALL {
        let mut out = vec![0.0; x.len()];
        function.forward(&x, &mut out);
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(&out) {
            let exact = reference(function, f64::from(*x));
            worst = worst.max((f64::from(*y) - exact).abs() / exact.abs().max(1.0));
        }
        println!("{function:?}: {worst:.1e}");
        assert!(worst <= 1.5e-7, "{function:?}: {worst:e}");
    }
}

#[test]
fn backward_is_the_slope() {
    // No multiple of the spacing is 0, where ReLU has no slope.
    let x: Vec<f32> = (-20_000..20_000)
        .map(|i| (i as f32 + 0.5) * 6.3e-4)
        .collect();
    for function in ALL {
        let mut grad = vec![1.0; x.len()];
        function.backward(&x, &mut grad);
        let slopes: Vec<f64> = wide(&x)
            .iter()
            .map(|x| (reference(function, x + 1e-5) - reference(function, x - 1e-5)) / 2e-5)
            .collect();
        assert_close(&format!("{function:?}"), &grad, &slopes, 6e-7);
    }
}

#[test]
fn the_bias_is_added_and_its_gradient_is_the_column_sum() {
    for (rows, width) in [(1, 1), (3, 5), (7, 16), (2, 33), (300, 67)] {
        let x = sample(1, rows * width, 3.0);
        let bias = sample(2, width, 1.0);
        let weights = sample(3, rows * width, 1.0);
        for function in ALL {
            let output = |x: &[f64], bias: &[f64]| -> Vec<f64> {
                let biases = bias.iter().cycle();
                let sums = x.iter().zip(biases).map(|(x, b)| x + b);
                sums.map(|x| reference(function, x)).collect()
            };
            let what = format!("{function:?} {rows}x{width}");

            let (mut sum, mut out) = (x.clone(), vec![0.0; x.len()]);
            function.bias_forward(&mut sum, &bias, &mut out);
            assert_close(&what, &out, &output(&wide(&x), &wide(&bias)), 1e-6);
            let mut unfused = vec![0.0; x.len()];
            function.forward(&sum, &mut unfused);
            assert_eq!(out, unfused, "{what}");

            let (mut grad, mut grad_bias) = (weights.clone(), vec![f32::NAN; width]);
            function.bias_backward(&sum, &mut grad, &mut grad_bias);
            let mut unfused = weights.clone();
            function.backward(&sum, &mut unfused);
            assert_eq!(grad, unfused, "{what}");
            let mut expected = vec![0.0; width];
            for row in unfused.chunks(width) {
                for (sum, x) in expected.iter_mut().zip(row) {
                    *sum += f64::from(*x);
                }
            }
            assert_close(&what, &grad_bias, &expected, 1e-5);
        }
    }
}

#[test]
fn ends_of_the_number_line() {
    for function in ALL {
        let x = [f32::NAN, f32::INFINITY, f32::MAX, 1e4, -1e4, 0.0];
        let mut out = [0.0; 6];
        function.forward(&x, &mut out);
        assert!(out[0].is_nan(), "{function:?}");
        let bounded = matches!(function, Activation::Tanh | Activation::Sigmoid);
        let large = if bounded {
            [1.0; 3]
        } else {
            [x[1], x[2], x[3]]
        };
        assert_eq!(out[1..4], large, "{function:?}");
        let low = if function == Activation::Tanh {
            -1.0
        } else {
            0.0
        };
        assert_eq!(out[4], low, "{function:?}");

        let mut grad = [1.0; 6];
        function.backward(&x, &mut grad);
        assert!(grad[0].is_nan(), "{function:?}");
        let slope = if bounded { 0.0 } else { 1.0 };
        assert!(
            grad[1..4].iter().all(|x| (x - slope).abs() < 1e-30),
            "{function:?}: {grad:?}"
        );
        assert!(grad[4].abs() < 1e-30, "{function:?}: {grad:?}");
        assert!(grad[5].is_finite(), "{function:?}");

        let mut grad = [f32::NAN, f32::INFINITY];
        function.backward(&[0.5, 0.5], &mut grad);
        assert!(grad[0].is_nan() && grad[1] == f32::INFINITY, "{function:?}");
    }
}

#[test]
#[should_panic(expected = "not whole rows of 4")]
fn rows_that_are_not_whole() {
    Activation::Gelu.bias_forward(&mut [0.0; 6], &[0.0; 4], &mut [0.0; 6]);
}
