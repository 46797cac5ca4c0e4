//! The slow reference: groups and elements quantized one at a time with the scalar codec, products in f64.

use mantissa::plan::PassNumerics;
use mantissa_formats::{RandomBits, codec};
use mantissa_quant::{Granularity, Numerics, ScaleKind};

/// Values over several powers of two, deterministic.
pub fn values(count: usize, stream: u64) -> Vec<f32> {
    let random = RandomBits::new(11, stream);
    (0..count as u64)
        .map(|i| {
            let bits = random.at(i);
            let mantissa = (bits >> 9) as f32 / (1 << 23) as f32 - 0.5;
            mantissa * f32::powi(2.0, (bits & 7) as i32 - 4)
        })
        .collect()
}

/// A batch of matrices `[outer, depth]`.
#[derive(Clone)]
pub struct Matrices {
    pub values: Vec<f32>,
    pub outer: usize,
    pub depth: usize,
}

impl Matrices {
    /// `[depth, outer]`.
    pub fn transposed(&self) -> Self {
        let size = self.outer * self.depth;
        let values = (0..self.values.len())
            .map(|i| {
                let (matrix, within) = (i / size, i % size);
                let (depth, outer) = (within / self.outer, within % self.outer);
                self.values[matrix * size + outer * self.depth + depth]
            })
            .collect();
        Self {
            values,
            outer: self.depth,
            depth: self.outer,
        }
    }

    /// Values after quantization: one group at a time, one element at a time.
    pub fn quantized(&self, numerics: &Numerics) -> Vec<f64> {
        let group_of = |i: usize| match numerics.granularity {
            Granularity::Unscaled | Granularity::Tensor => 0,
            Granularity::Channel => i / self.depth,
            Granularity::Block(n) => {
                let blocks = self.depth.div_ceil(n as usize);
                i / self.depth * blocks + i % self.depth / n as usize
            }
            Granularity::Tile(..) => unimplemented!("not under test"),
        };
        let groups = 1 + group_of(self.values.len() - 1);
        let mut amax = vec![0.0_f32; groups];
        for (i, x) in self.values.iter().enumerate() {
            amax[group_of(i)] = amax[group_of(i)].max(x.abs());
        }
        let scale = |group: usize| match (numerics.granularity, numerics.scale) {
            (Granularity::Unscaled, _) => 1.0,
            _ if amax[group] == 0.0 => 1.0,
            (_, ScaleKind::F32) => amax[group] / numerics.format.max_finite(),
            (_, ScaleKind::E8M0) => {
                let largest = numerics.format.max_finite().log2().floor();
                f32::powi(2.0, (amax[group].log2().floor() - largest) as i32)
            }
            _ => unimplemented!("not under test"),
        };
        self.values
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let scale = scale(group_of(i));
                let rounded = codec::round(
                    numerics.format,
                    x / scale,
                    numerics.rounding,
                    numerics.overflow,
                    0,
                );
                f64::from(rounded) * f64::from(scale)
            })
            .collect()
    }
}

/// `left rightᵀ` of every matrix over the depth, and the sum of magnitudes that its rounding error is relative to.
pub fn product(left: &Matrices, right: &Matrices, numerics: &PassNumerics) -> Vec<(f64, f64)> {
    let depth = left.depth;
    let (l, r) = (
        left.quantized(&numerics.left),
        right.quantized(&numerics.right),
    );
    let mut output = Vec::new();
    for matrix in 0..left.values.len() / (left.outer * depth) {
        let l = &l[matrix * left.outer * depth..][..left.outer * depth];
        let r = &r[matrix * right.outer * depth..][..right.outer * depth];
        for row in l.chunks(depth) {
            for column in r.chunks(depth) {
                let terms = || row.iter().zip(column).map(|(a, b)| a * b);
                output.push((terms().sum(), terms().map(f64::abs).sum()));
            }
        }
    }
    output
}
