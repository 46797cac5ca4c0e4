use mantissa_kernels::norm::{RowMoments, layer_norm, layer_norm_backward};

use crate::comparison::{assert_close, gradient, sample, weigh, wide};

const EPSILON: f32 = 1e-5;

fn reference(x: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let width = gamma.len();
    let mut out = Vec::new();
    for row in x.chunks(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let deviation = (variance + f64::from(EPSILON)).sqrt();
        let row = row.iter().zip(gamma).zip(beta);
        out.extend(row.map(|((x, gamma), beta)| (x - mean) / deviation * gamma + beta));
    }
    out
}

#[test]
fn forward_and_backward() {
    for (rows, width) in [(1, 2), (3, 5), (2, 16), (5, 33), (3, 67), (2, 130)] {
        let what = format!("{rows}x{width}");
        let x: Vec<f32> = sample(1, rows * width, 2.0)
            .iter()
            .map(|x| x + 0.7)
            .collect();
        let gamma = sample(2, width, 1.5);
        let beta = sample(3, width, 1.0);
        let weights = sample(4, rows * width, 1.0);
        let (wide_x, wide_gamma, wide_beta) = (wide(&x), wide(&gamma), wide(&beta));

        let mut out = vec![0.0; x.len()];
        let mut moments = vec![RowMoments::default(); rows];
        layer_norm(&x, &gamma, Some(&beta), EPSILON, &mut out, &mut moments);
        assert_close(
            &what,
            &out,
            &reference(&wide_x, &wide_gamma, &wide_beta),
            3e-6,
        );

        let mut grad = weights.clone();
        let (mut grad_gamma, mut grad_beta) = (vec![f32::NAN; width], vec![f32::NAN; width]);
        layer_norm_backward(
            &x,
            &moments,
            &gamma,
            &mut grad,
            &mut grad_gamma,
            Some(&mut grad_beta),
        );
        let by_x = gradient(&x, |x| {
            weigh(&reference(x, &wide_gamma, &wide_beta), &weights)
        });
        let by_gamma = gradient(&gamma, |gamma| {
            weigh(&reference(&wide_x, gamma, &wide_beta), &weights)
        });
        let by_beta = gradient(&beta, |beta| {
            weigh(&reference(&wide_x, &wide_gamma, beta), &weights)
        });
        // Two elements that nearly agree make the deviation small and its inverse inexact.
        assert_close(&what, &grad, &by_x, if width == 2 { 1e-4 } else { 5e-6 });
        assert_close(&what, &grad_gamma, &by_gamma, 5e-6);
        assert_close(&what, &grad_beta, &by_beta, 5e-6);

        let (mut plain, zeros) = (vec![0.0; x.len()], vec![0.0; width]);
        layer_norm(&x, &gamma, None, EPSILON, &mut plain, &mut moments);
        assert_close(
            &what,
            &plain,
            &reference(&wide_x, &wide_gamma, &wide(&zeros)),
            3e-6,
        );
        let mut again = weights.clone();
        layer_norm_backward(&x, &moments, &gamma, &mut again, &mut grad_gamma, None);
        assert_eq!(again, grad);
    }
}

#[test]
fn a_large_mean_does_not_drown_the_variance() {
    let x: Vec<f32> = (0..256).map(|i| 4096.0 + (i % 2) as f32).collect();
    let mut out = vec![0.0; 256];
    let mut moments = [RowMoments::default()];
    layer_norm(&x, &[1.0; 256], None, 0.0, &mut out, &mut moments);
    assert_eq!(
        moments[0],
        RowMoments {
            mean: 4096.5,
            inverse_deviation: 2.0
        }
    );
    assert_eq!(out[..2], [-1.0, 1.0]);
}

#[test]
fn a_nan_stays_in_its_row() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = sample(1, 3 * 37, 1.0);
        x[40] = bad;
        let mut out = vec![0.0; x.len()];
        let mut moments = vec![RowMoments::default(); 3];
        layer_norm(&x, &[1.0; 37], None, EPSILON, &mut out, &mut moments);
        let finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
        assert!(finite(&out[..37]) && finite(&out[74..]));
        assert!(out[37..74].iter().all(|x| x.is_nan()));

        let mut grad = vec![1.0; x.len()];
        grad[0] = f32::NAN;
        let mut grad_gamma = vec![0.0; 37];
        layer_norm_backward(&x, &moments, &[1.0; 37], &mut grad, &mut grad_gamma, None);
        assert!(grad[..37].iter().all(|x| x.is_nan()) && finite(&grad[74..]));
        assert!(grad_gamma[0].is_nan() && grad_gamma[3].is_nan());
    }
}

#[test]
#[should_panic(expected = "moments are one for each row")]
fn moments_that_do_not_fit() {
    layer_norm(
        &[0.0; 8],
        &[1.0; 4],
        None,
        EPSILON,
        &mut [0.0; 8],
        &mut [RowMoments::default()],
    );
}
