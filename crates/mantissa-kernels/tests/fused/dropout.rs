use mantissa_formats::RandomBits;
use mantissa_kernels::dropout::{dropout, dropout_add};

use crate::comparison::sample;

const RANDOM: RandomBits = RandomBits::new(11, 12);

#[test]
fn each_element_follows_its_own_bits() {
    for len in [0, 1, 15, 17, 1023, 1025, 40_001] {
        for probability in [0.1, 0.5, 0.9] {
            let x = sample(1, len, 2.0);
            let scale = (1.0 / (1.0 - probability)) as f32;
            let expected: Vec<f32> = (0..len)
                .map(|i| {
                    let uniform = f64::from(RANDOM.at(i as u64)) / (1u64 << 32) as f64;
                    x[i] * if uniform < probability { 0.0 } else { scale }
                })
                .collect();
            let mut dropped = x.clone();
            dropout(&mut dropped, probability, RANDOM);
            assert_eq!(dropped, expected);

            let residual = sample(2, len, 1.0);
            let mut sum = residual.clone();
            dropout_add(&x, &mut sum, probability, RANDOM);
            let expected: Vec<f32> = residual.iter().zip(&dropped).map(|(a, b)| a + b).collect();
            assert_eq!(sum, expected);
        }
    }
}

/// The backward of `y = m x` is `g m`: the same mask and factor, which ones show.
#[test]
fn the_gradient_meets_the_same_mask() {
    let x = sample(1, 5000, 2.0);
    let (mut forward, mut backward) = (x.clone(), vec![1.0; 5000]);
    dropout(&mut forward, 0.3, RANDOM);
    dropout(&mut backward, 0.3, RANDOM);
    for i in 0..5000 {
        assert_eq!(forward[i], x[i] * backward[i]);
    }
    let kept = backward.iter().filter(|x| **x != 0.0).count();
    // 5 standard deviations of a binomial count.
    assert!(kept.abs_diff(3500) < 163, "{kept}");
}

#[test]
fn certain_probabilities() {
    let x = sample(1, 100, 2.0);
    let mut kept = x.clone();
    dropout(&mut kept, 0.0, RANDOM);
    assert_eq!(kept, x);
    let mut sum = x.clone();
    dropout_add(&x, &mut sum, 0.0, RANDOM);
    assert!(sum.iter().zip(&x).all(|(sum, x)| *sum == 2.0 * x));
    let mut dropped = x.clone();
    dropout(&mut dropped, 1.0, RANDOM);
    assert!(dropped.iter().all(|x| *x == 0.0));
}

#[test]
fn nan_is_not_dropped() {
    let mut x = vec![f32::NAN; 100];
    dropout(&mut x, 0.5, RANDOM);
    assert!(x.iter().all(|x| x.is_nan()));
}

#[test]
#[should_panic(expected = "a dropout probability of 1.5 is not in 0..=1")]
fn an_impossible_probability() {
    dropout(&mut [1.0], 1.5, RANDOM);
}
