//! Every operation gives the same bits on every vector unit that the processor has.

use mantissa_formats::RandomBits;

use crate::activation::Activation;
use crate::dropout::{dropout, dropout_add};
use crate::loss::{cross_entropy, cross_entropy_backward};
use crate::norm::{RowMoments, layer_norm, layer_norm_backward};
use crate::optimizer::{
    Adafactor, AdafactorMoments, AdafactorSettings, Adam, Lamb, Momentum, Sgd, WeightDecay,
};
use crate::reduce::{column_sums, scan};
use crate::softmax::{Mask, masked_softmax_backward, softmax};
use crate::state::{Moment, StateBuffer, StateFormat};
use crate::vector::tests::{Unit, on_every_unit};

fn sample(stream: u64, len: usize) -> Vec<f32> {
    let mut bits = vec![0; len];
    RandomBits::new(5, stream).fill(0, &mut bits);
    let signed = bits.into_iter().map(|bits| bits as i32 as f32);
    signed.map(|x| x / (1u64 << 29) as f32).collect()
}

/// Everything, as bits; rows that fill no unit's lanes evenly.
fn run_all(rows: usize, width: usize) -> Vec<u32> {
    let mut results = Vec::new();
    let mut keep = |x: &[f32]| results.extend(x.iter().map(|x| x.to_bits()));
    let x = sample(1, rows * width);
    let grad = sample(2, rows * width);
    let row = sample(3, width);
    let random = RandomBits::new(1, 2);
    let masked: Vec<u8> = sample(4, rows * width)
        .iter()
        .map(|x| u8::from(*x < -2.0))
        .collect();
    let mut out = vec![0.0; x.len()];
    let [mut sums, mut more_sums] = [vec![0.0; width], vec![0.0; width]];

    let mut moments = vec![RowMoments::default(); rows];
    layer_norm(&x, &row, Some(&row), 1e-5, &mut out, &mut moments);
    keep(&out);
    let mut work = grad.clone();
    layer_norm_backward(
        &x,
        &moments,
        &row,
        &mut work,
        &mut sums,
        Some(&mut more_sums),
    );
    keep(&work);
    keep(&sums);
    keep(&more_sums);

    for function in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
    ] {
        let mut work = x.clone();
        function.bias_forward(&mut work, &row, &mut out);
        keep(&out);
        let mut work = grad.clone();
        function.bias_backward(&x, &mut work, &mut sums);
        keep(&work);
        keep(&sums);
    }

    let mask = Mask::of_pairs(&masked, 1, rows, width, -1e4);
    let mut p = x.clone();
    softmax(&mut p, width, 0.5, Some(mask));
    keep(&p);
    let mut work = grad.clone();
    masked_softmax_backward(&p, &mut work, width, 0.5, mask);
    keep(&work);

    let targets: Vec<i32> = (0..rows).map(|row| (row * row % width) as i32).collect();
    let mut log_sum_exp = vec![0.0; rows];
    keep(&[cross_entropy(&x, width, &targets, &mut log_sum_exp)]);
    let mut work = x.clone();
    cross_entropy_backward(&mut work, width, &targets, &log_sum_exp, 1.0);
    keep(&log_sum_exp);
    keep(&work);

    let mut work = x.clone();
    dropout(&mut work, 0.3, random);
    dropout_add(&grad, &mut work, 0.3, random);
    dropout_add(&grad, &mut work, 0.0, random);
    keep(&work);

    column_sums(&x, width, &mut sums);
    keep(&sums);
    let found = scan(&x);
    let square_sum = found.square_sum.to_bits();
    keep(&[
        found.amax,
        f32::from_bits(square_sum as u32),
        f32::from_bits((square_sum >> 32) as u32),
    ]);
    results.extend(update_all(&x, &grad, width));
    results
}

/// Parameters and moments after two steps of each rule, with moments in formats of every kind.
fn update_all(parameters: &[f32], gradients: &[f32], columns: usize) -> Vec<u32> {
    let len = parameters.len();
    let mut results = Vec::new();
    let mut keep = |x: &[f32]| results.extend(x.iter().map(|x| x.to_bits()));
    for format in StateFormat::PUBLISHED {
        let format: StateFormat = format.0.parse().expect("a published format");
        let [mut adam, mut sgd, mut lamb] = [0; 3].map(|_| parameters.to_vec());
        let buffer = |moment| StateBuffer::zeros(format, moment, len);
        let mut moments = [buffer(Moment::First), buffer(Moment::Second)];
        let mut velocity = buffer(Moment::First);
        for step in 1..=2 {
            let decay = WeightDecay::Decoupled(0.1);
            let views = moments
                .each_mut()
                .map(|moment| moment.view(RandomBits::NONE));
            Adam::new([0.9, 0.999], 1e-8, decay, 1e-2, step)
                .update(0.3, gradients, &mut adam, views);
            let momentum = Momentum {
                momentum: 0.9,
                dampening: 0.1,
                nesterov: true,
            };
            let view = velocity.view(RandomBits::NONE);
            Sgd::new(0.01, Some(momentum), 1e-2, step).update(0.3, gradients, &mut sgd, view);
            let views = moments
                .each_mut()
                .map(|moment| moment.view(RandomBits::NONE));
            let mut work = gradients.to_vec();
            Lamb::new([0.9, 0.999], 1e-6, 0.1, true, 1e-2, step + 2)
                .update(0.3, &mut work, &mut lamb, views);
        }
        for tensor in [&adam, &sgd, &lamb, &velocity.to_f32()] {
            keep(tensor);
        }
        for moment in &moments {
            keep(&moment.to_f32());
        }
    }
    let settings = AdafactorSettings {
        epsilon_1: 1e-30,
        epsilon_2: 1e-3,
        clip_threshold: 1.0,
        decay_rate: -0.8,
        relative_step: true,
        scale_parameter: true,
        weight_decay: 0.1,
    };
    let mut work = gradients.to_vec();
    let mut factored = parameters.to_vec();
    let [mut row_moments, mut column_moments] = [vec![0.0; len / columns], vec![0.0; columns]];
    let moments = AdafactorMoments::Factored {
        columns,
        row_moments: &mut row_moments,
        column_moments: &mut column_moments,
    };
    Adafactor::new(settings, 1e-2, 1).update(0.3, &mut work, &mut factored, moments);
    for tensor in [&factored, &row_moments, &column_moments] {
        keep(tensor);
    }
    results
}

/// Attention is not here: its products are those of the `gemm` crate, which chooses its unit by itself.
#[test]
fn units_agree() {
    for (rows, width) in [(1, 1), (5, 7), (40, 16), (9, 131), (70, 517)] {
        let mut expected: Option<Vec<u32>> = None;
        let mut units = Vec::new();
        on_every_unit(|unit| {
            units.push(unit);
            let results = run_all(rows, width);
            let expected = expected.get_or_insert_with(|| results.clone());
            let different = results.iter().zip(expected).position(|(a, b)| a != b);
            assert_eq!(
                different, None,
                "{unit:?} on {rows}x{width}, first difference"
            );
        });
        assert!(matches!(units[0], Unit::Scalar));
    }
}
