//! Every kernel that this machine has gives the portable one's bits, which are the definition's.

use mantissa_formats::RandomBits;

use super::kernel::Kernel;
use super::tile::STEPS;
use crate::product::multiply_on;
use crate::{Factor, Numerics, Operand};

fn sample(len: usize, seed: u64) -> Vec<f32> {
    let random = RandomBits::new(seed, 3);
    let value = |i: u64| f64::from(random.at(i)) / f64::from(u32::MAX) * 4.0 - 2.0;
    (0..len as u64).map(|i| value(i) as f32).collect()
}

/// Bits of a product, with the result at some distance from a line of cache.
fn bits(kernel: &Kernel, [lhs, rhs]: [Factor; 2], bias: Option<&[f32]>, shift: usize) -> Vec<u32> {
    let len = lhs.batch().max(rhs.batch()) * lhs.outer() * rhs.outer();
    let mut out = vec![f32::NAN; len + shift + 1];
    multiply_on(kernel, lhs, rhs, bias, &mut out[shift..shift + len]);
    assert!(out[..shift].iter().all(|x| x.is_nan()) && out[shift + len].is_nan());
    out[shift..shift + len]
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

/// Rows, columns, depth: whole tiles, ragged ones, several blocks of the depth, wide results.
const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [14, 32, 16],
    [15, 33, 5],
    [3, 70, 259],
    [29, 17, 1027],
    [28, 64, 256],
    [1, 290, 130],
    [230, 9, 66],
    [40, 272, 600],
];

/// A sum as it is defined: chains of fused multiply-adds, added in order.
fn chain(lhs: &[f32], rhs: &[f32]) -> f32 {
    let blocks = lhs
        .chunks(STEPS)
        .zip(rhs.chunks(STEPS))
        .map(|(l, r)| l.iter().zip(r).fold(0f32, |sum, (x, y)| x.mul_add(*y, sum)));
    blocks.reduce(|sum, block| sum + block).unwrap_or(0.0)
}

#[test]
fn float_kernels_give_the_bits_of_the_definition() {
    for [m, n, k] in SHAPES {
        let (left, right, bias) = (sample(m * k, 1), sample(n * k, 2), sample(n, 3));
        let rows = Operand::matrix(&left, m, k).unwrap();
        let columns = Operand::matrix(&right, n, k).unwrap();
        let expected: Vec<u32> = (0..m * n)
            .map(|i| {
                let (l, r) = (&left[i / n * k..][..k], &right[i % n * k..][..k]);
                (chain(l, r) + bias[i % n]).to_bits()
            })
            .collect();
        for kernel in Kernel::all(false) {
            for shift in [0, 3] {
                let sides = [Factor::fp32(rows), Factor::fp32(columns)];
                let found = bits(kernel, sides, Some(&bias), shift);
                assert_eq!(found, expected, "{} on {m}x{n}x{k}", kernel.name);
            }
        }
    }
}

#[test]
fn kernels_agree_on_every_layout_and_representation() {
    for [m, n, k] in SHAPES {
        let (left, right) = (sample(2 * m * k, 4), sample(2 * n * k, 5));
        let (lefts, rights) = ([0, m * k], [0, n * k]);
        let layouts = |data, offsets, outer: usize| {
            [[k, 1], [1, outer]].map(|strides| {
                Operand::new(data, offsets, [outer, k], strides).expect("within its data")
            })
        };
        for lhs in layouts(&left, &lefts, m) {
            for rhs in layouts(&right, &rights, n) {
                for (l, r) in [
                    ("int8", "int8/channel"),
                    ("int8/channel/stochastic", "int4"),
                    ("e4m3", "mxfp8"),
                    ("int8/block32", "bf16"),
                ] {
                    let numerics = |name: &str| name.parse::<Numerics>().expect("numerics");
                    let sides = [
                        Factor::new(lhs, numerics(l), RandomBits::new(1, 1)),
                        Factor::new(rhs, numerics(r), RandomBits::new(1, 2)),
                    ];
                    let codes = sides.iter().all(Factor::has_codes);
                    assert_eq!(codes, l.starts_with("int8") && r.starts_with("int"));
                    let all: Vec<&Kernel> = Kernel::all(codes).collect();
                    let (portable, others) = all.split_last().expect("a portable kernel");
                    assert_eq!(portable.name, "portable");
                    let expected = bits(portable, sides, None, 0);
                    for kernel in others {
                        let found = bits(kernel, sides, None, 0);
                        assert_eq!(found, expected, "{}, {l} x {r}, {m}x{n}x{k}", kernel.name);
                    }
                }
            }
        }
    }
}
