use mantissa_kernels::loss::{cross_entropy, cross_entropy_backward};

use crate::comparison::{assert_close, gradient, sample, sample_ids, wide};

fn reference(logits: &[f64], classes: usize, targets: &[i32]) -> f64 {
    let rows = logits.chunks(classes).zip(targets);
    let losses = rows.map(|(row, target)| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - row[*target as usize]
    });
    losses.sum::<f64>() / targets.len() as f64
}

#[test]
fn forward_and_backward() {
    for (rows, classes) in [(1, 1), (3, 2), (5, 16), (4, 33), (3, 131), (40, 1000)] {
        let what = format!("{rows}x{classes}");
        let logits = sample(1, rows * classes, 6.0);
        let targets = sample_ids(2, rows, classes);
        let mut log_sum_exp = vec![0.0; rows];
        let loss = cross_entropy(&logits, classes, &targets, &mut log_sum_exp);
        assert_close(
            &what,
            &[loss],
            &[reference(&wide(&logits), classes, &targets)],
            5e-7,
        );
        if rows * classes > 1000 {
            continue;
        }
        let mut grad = logits.clone();
        cross_entropy_backward(&mut grad, classes, &targets, &log_sum_exp, 8.0);
        let expected = gradient(&logits, |x| 8.0 * reference(x, classes, &targets));
        assert_close(&what, &grad, &expected, 2e-6);
    }
}

#[test]
fn extreme_and_missing_numbers() {
    let logits = [1e4, -1e4, 0.0, -1e4, 0.0, 1e4];
    let mut log_sum_exp = [0.0; 2];
    let loss = cross_entropy(&logits, 3, &[0, 0], &mut log_sum_exp);
    assert_eq!(loss, 1e4);
    let mut grad = logits;
    cross_entropy_backward(&mut grad, 3, &[0, 0], &log_sum_exp, 1.0);
    assert_eq!(grad, [0.0, 0.0, 0.0, -0.5, 0.0, 0.5]);

    for bad in [f32::NAN, f32::INFINITY] {
        let logits = [0.0, bad, 1.0, 2.0];
        assert!(cross_entropy(&logits, 2, &[0, 1], &mut log_sum_exp).is_nan());
        let mut grad = logits;
        cross_entropy_backward(&mut grad, 2, &[0, 1], &log_sum_exp, 1.0);
        assert!(grad[..2].iter().all(|x| x.is_nan()), "{grad:?}");
        assert!(grad[2..].iter().all(|x| x.is_finite()), "{grad:?}");
    }
    assert!(cross_entropy(&[], 3, &[], &mut []).is_nan());
}

#[test]
#[should_panic(expected = "target 3 is not one of 3 classes")]
fn a_target_out_of_range() {
    cross_entropy(&[0.0; 6], 3, &[0, 3], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "target -1 is not one of 3 classes")]
fn a_negative_target() {
    cross_entropy_backward(&mut [0.0; 6], 3, &[-1, 0], &[0.0; 2], 1.0);
}
