//! Waves of some frequency, phase and one of three heights, a little noisy, and how they go on.

use burn::tensor::{Device, Tensor, TensorData};

use super::training::Draws;

/// Steps of a wave that are seen.
const LENGTH: usize = 20;

/// Waves `first..first + count`, `[count, 20, 1]`, and the next step of each, `[count, 1]`.
pub fn batch(first: u64, count: usize, device: &Device) -> (Tensor<3>, Tensor<2>) {
    let (mut seen, mut next) = (Vec::new(), Vec::new());
    for sample in first..first + count as u64 {
        let mut draws = Draws::of(sample);
        let frequency = draws.uniform(0.2, 1.2);
        let phase = draws.uniform(0.0, std::f32::consts::TAU);
        let height = [0.4, 0.7, 1.0][draws.below(3)];
        let wave = |time: usize| height * (phase + frequency * time as f32).sin();
        seen.extend((0..LENGTH).map(|time| wave(time) + draws.uniform(-0.02, 0.02)));
        next.push(wave(LENGTH));
    }
    (
        Tensor::from_data(TensorData::new(seen, [count, LENGTH, 1]), device),
        Tensor::from_data(TensorData::new(next, [count, 1]), device),
    )
}
