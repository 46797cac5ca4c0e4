//! Digits of seven strokes, slanted, moved and noisy, in images of the size of MNIST's.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::training::Draws;

const SIZE: usize = 28;

/// The corners of a digit, two squares on top of each other, and the strokes between them.
const STROKES: [[[f32; 2]; 2]; 7] = [
    [[0.0, 0.0], [1.0, 0.0]],
    [[1.0, 0.0], [1.0, 1.0]],
    [[1.0, 1.0], [1.0, 2.0]],
    [[0.0, 2.0], [1.0, 2.0]],
    [[0.0, 1.0], [0.0, 2.0]],
    [[0.0, 0.0], [0.0, 1.0]],
    [[0.0, 1.0], [1.0, 1.0]],
];

/// The strokes of each digit.
const DIGITS: [&[usize]; 10] = [
    &[0, 1, 2, 3, 4, 5],
    &[1, 2],
    &[0, 1, 6, 4, 3],
    &[0, 1, 6, 2, 3],
    &[5, 6, 1, 2],
    &[0, 5, 6, 2, 3],
    &[0, 5, 6, 4, 3, 2],
    &[0, 1, 2],
    &[0, 1, 2, 3, 4, 5, 6],
    &[6, 5, 0, 1, 2, 3],
];

/// Samples `first..first + count`: images `[count, 28, 28]` and their digits.
pub fn batch(first: u64, count: usize, device: &Device) -> (Tensor<3>, Tensor<1, Int>) {
    let (mut pixels, mut digits) = (Vec::new(), Vec::new());
    for sample in first..first + count as u64 {
        let mut draws = Draws::of(sample);
        let digit = draws.below(10);
        digits.push(digit as i64);
        draw(digit, &mut draws, &mut pixels);
    }
    (
        Tensor::from_data(TensorData::new(pixels, [count, SIZE, SIZE]), device),
        Tensor::from_data(TensorData::new(digits, [count]), device),
    )
}

fn draw(digit: usize, draws: &mut Draws, pixels: &mut Vec<f32>) {
    let height = draws.uniform(7.0, 10.0);
    let width = draws.uniform(6.0, 11.0);
    let slant = draws.uniform(-0.3, 0.3);
    let thickness = draws.uniform(1.0, 2.2);
    let middle = [draws.uniform(11.5, 15.5), draws.uniform(12.5, 14.5)];
    let place = |[x, y]: [f32; 2]| {
        let y = (y - 1.0) * height;
        [middle[0] + (x - 0.5) * width - slant * y, middle[1] + y]
    };
    for row in 0..SIZE {
        for column in 0..SIZE {
            let at = [column as f32, row as f32];
            let strokes = DIGITS[digit]
                .iter()
                .map(|&stroke| STROKES[stroke].map(place));
            let nearest = strokes
                .map(|ends| distance(at, ends))
                .fold(f32::MAX, f32::min);
            let ink = (thickness + 0.5 - nearest).clamp(0.0, 1.0);
            pixels.push(ink + draws.uniform(-0.3, 0.3));
        }
    }
}

/// From a point to the line between two others.
fn distance([x, y]: [f32; 2], [[ax, ay], [bx, by]]: [[f32; 2]; 2]) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy);
    let along = along.clamp(0.0, 1.0);
    (x - ax - along * dx).hypot(y - ay - along * dy)
}
