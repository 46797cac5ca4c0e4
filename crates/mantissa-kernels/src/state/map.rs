//! The maps of 256 and of 16 values, and the place of a number in them.
//!
//! The dynamic map ([Dettmers 2015](https://arxiv.org/abs/1511.04561), as in bitsandbytes) has a decade for each power of ten and
//! twice as many values in each as in the one below; a decade's values are the means of equal parts of its interval from 0.1 to 1
//! times the power. Zero and one are values of their own.

use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

use super::Moment;
use super::format::Codes;
use crate::vector::dispatch;

/// Decades of the map of 256 values, and of the signed map of 16.
const DECADES_8: usize = 7;
const DECADES_4: usize = 3;
/// 1.5 · 2²³: a number below 2²² plus this is rounded to an integer in its lowest bits, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// A map from codes to values from -1 or 0 to 1. Codes are in the order of their values.
pub(super) struct Map {
    /// The values, in as many codes as there are.
    values: Vec<f32>,
    decades: Vec<Decade>,
    /// The code of zero, or of the smallest value where there is no zero.
    zero: u32,
    /// Magnitudes below are zero, or the smallest value where there is no zero.
    zero_below: f32,
    /// Magnitudes from here on are one.
    one_from: f32,
    /// The rank of one: how many values lie between it and zero, and itself.
    one: u32,
    /// The least rank of what is not zero.
    least: u32,
    is_signed: bool,
}

/// Equally distant values.
#[derive(Clone, Copy)]
struct Decade {
    /// The magnitude from which on the nearest value is one of these.
    from: f32,
    /// The rank of the value nearest to a magnitude is `magnitude * slope + intercept`, rounded, and `last` at most. (It is the first
    /// at least by itself: the middle between decades is no farther from it than a third of the distance of its values.)
    slope: f32,
    intercept: f32,
    last: f32,
}

impl Map {
    /// The map for the codes of a moment.
    ///
    /// # Panics
    /// If they are no map's.
    pub(super) fn of(codes: Codes, moment: Moment) -> &'static Self {
        static MAPS: [LazyLock<Map>; 4] = [
            LazyLock::new(|| Map::dynamic(DECADES_8, true)),
            LazyLock::new(|| Map::dynamic(DECADES_8, false)),
            LazyLock::new(|| Map::dynamic(DECADES_4, true)),
            LazyLock::new(|| Map::linear(16)),
        ];
        match (codes, moment) {
            (Codes::Dynamic8, Moment::First) => &MAPS[0],
            (Codes::Dynamic8, Moment::Second) => &MAPS[1],
            (Codes::Dynamic4, Moment::First) => &MAPS[2],
            (Codes::Dynamic4, Moment::Second) => &MAPS[3],
            (Codes::Number { .. }, _) => panic!("numbers need no map"),
        }
    }

    /// The smallest decade of a signed map has one value of each sign, that of an unsigned one two values.
    fn dynamic(decades: usize, is_signed: bool) -> Self {
        let mut magnitudes = vec![0.0];
        let mut table: Vec<Decade> = Vec::new();
        for decade in 0..decades {
            let power = 10f64.powi(decade as i32 + 1 - decades as i32);
            let count = if is_signed { 1 << decade } else { 2 << decade };
            let parts = f64::from(count);
            let mean = |part: i32| power * (0.1 + 0.9 * (f64::from(part) + 0.5) / parts);
            let below = magnitudes.last().copied().unwrap_or_default();
            let first = magnitudes.len() as f64;
            table.push(Decade {
                from: (0.5 * (below + mean(0))) as f32,
                slope: (parts / 0.9 / power) as f32,
                intercept: (first - parts / 9.0 - 0.5) as f32,
                last: (first + parts - 1.0) as f32,
            });
            magnitudes.extend((0..count).map(mean));
        }
        let one_from = 0.5 * (1.0 + magnitudes[magnitudes.len() - 1]);
        magnitudes.push(1.0);
        let negatives = if is_signed { magnitudes.len() - 2 } else { 0 };
        let negative = magnitudes[1..=negatives].iter().rev().map(|x| -x);
        Self {
            zero: negatives as u32,
            zero_below: table[0].from,
            one_from: one_from as f32,
            one: magnitudes.len() as u32 - 1,
            least: u32::from(!is_signed),
            values: negative
                .chain(magnitudes.iter().copied())
                .map(|x| x as f32)
                .collect(),
            decades: table,
            is_signed,
        }
    }

    /// 1/n, 2/n … 1.
    fn linear(count: u32) -> Self {
        let parts = count as f32;
        Self {
            values: (1..=count).map(|i| i as f32 / parts).collect(),
            decades: vec![Decade {
                from: 0.0,
                slope: parts,
                intercept: -1.0,
                last: parts - 1.0,
            }],
            zero: 0,
            // What is nearer to zero is the smallest value, too.
            zero_below: 1.0 / parts,
            one_from: f32::INFINITY,
            one: count - 1,
            least: 0,
            is_signed: false,
        }
    }

    /// The code of zero.
    pub(super) fn zero(&self) -> u8 {
        self.zero as u8
    }

    /// The values of `codes`.
    pub(super) fn decode(&self, codes: &[u8], out: &mut [f32]) {
        // As many as there are codes, so that no look-up is checked.
        let mut values = [0.0; 256];
        values[..self.values.len()].copy_from_slice(&self.values);
        dispatch(Decode {
            values: &values,
            codes,
            out,
        });
    }

    /// The codes of the values nearest to `x`; beyond one is one, NaN is zero. In a map without a sign, what is positive does not
    /// become zero.
    pub(super) fn encode(&self, x: &[f32], codes: &mut [u8]) {
        match self.decades.len() {
            1 => dispatch(Encode::<1>(self, x, codes)),
            DECADES_4 => dispatch(Encode::<DECADES_4>(self, x, codes)),
            _ => dispatch(Encode::<DECADES_8>(self, x, codes)),
        }
    }
}

struct Decode<'a> {
    values: &'a [f32; 256],
    codes: &'a [u8],
    out: &'a mut [f32],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (code, out) in self.codes.iter().zip(self.out) {
            *out = self.values[usize::from(*code)];
        }
    }
}

/// Elements coded together.
const RUN: usize = 64;

struct Encode<'a, const D: usize>(&'a Map, &'a [f32], &'a mut [u8]);

impl<const D: usize> WithSimd for Encode<'_, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self(map, x, codes) = self;
        let places = Places::<D>::of(map);
        let (runs, rest) = x.as_chunks::<RUN>();
        let (code_runs, code_rest) = codes.as_chunks_mut::<RUN>();
        for (x, codes) in runs.iter().zip(code_runs) {
            places.codes(x, codes);
        }
        let (mut padded, mut padded_codes) = ([0.0; RUN], [0; RUN]);
        padded[..rest.len()].copy_from_slice(rest);
        places.codes(&padded, &mut padded_codes);
        code_rest.copy_from_slice(&padded_codes[..rest.len()]);
    }
}

/// A map as its codes are computed, each number by itself: a choice between two numbers is one instruction of a vector unit, one
/// between two decades in memory a look-up for each of their numbers.
#[derive(Clone, Copy)]
struct Places<const D: usize> {
    from: [f32; D],
    slope: [f32; D],
    intercept: [f32; D],
    last: [f32; D],
    zero_below: f32,
    one_from: f32,
    zero: u32,
    one: u32,
    least: u32,
    is_signed: bool,
}

impl<const D: usize> Places<D> {
    fn of(map: &Map) -> Self {
        let each = |number: fn(&Decade) -> f32| std::array::from_fn(|d| number(&map.decades[d]));
        Self {
            from: each(|decade| decade.from),
            slope: each(|decade| decade.slope),
            intercept: each(|decade| decade.intercept),
            last: each(|decade| decade.last),
            zero_below: map.zero_below,
            one_from: map.one_from,
            zero: map.zero,
            one: map.one,
            least: map.least,
            is_signed: map.is_signed,
        }
    }

    #[inline(always)]
    fn codes(&self, x: &[f32; RUN], codes: &mut [u8; RUN]) {
        // All codes before the first is narrowed, as the compiler vectorises either loop by itself.
        let mut wide = [0; RUN];
        for (wide, x) in wide.iter_mut().zip(x) {
            *wide = self.code(*x);
        }
        for (code, wide) in codes.iter_mut().zip(wide) {
            *code = wide as u8;
        }
    }

    #[inline(always)]
    fn code(&self, x: f32) -> u32 {
        let magnitude = x.abs();
        let [mut slope, mut intercept, mut last] = [self.slope[0], self.intercept[0], self.last[0]];
        for d in 1..D {
            let reached = magnitude >= self.from[d];
            slope = if reached { self.slope[d] } else { slope };
            intercept = if reached {
                self.intercept[d]
            } else {
                intercept
            };
            last = if reached { self.last[d] } else { last };
        }
        let rank = magnitude * slope + intercept;
        let rank = if rank < last { rank } else { last };
        let rank = (rank + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits());
        let rank = if magnitude >= self.one_from {
            self.one
        } else {
            rank
        };
        let least = if magnitude > 0.0 { self.least } else { 0 };
        let rank = if magnitude >= self.zero_below {
            rank
        } else {
            least
        };
        if self.is_signed && x < 0.0 {
            // One has no negative.
            self.zero - rank.min(self.one - 1)
        } else {
            self.zero + rank
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [(&'static Map, usize); 4] {
        [
            (Map::of(Codes::Dynamic8, Moment::First), 256),
            (Map::of(Codes::Dynamic8, Moment::Second), 256),
            (Map::of(Codes::Dynamic4, Moment::First), 16),
            (Map::of(Codes::Dynamic4, Moment::Second), 16),
        ]
    }

    fn encode(map: &Map, x: f32) -> u8 {
        let mut codes = [0];
        map.encode(&[x], &mut codes);
        codes[0]
    }

    #[test]
    fn maps_are_the_published_ones() {
        for (map, len) in all() {
            assert_eq!(map.values.len(), len);
            assert!(map.values.is_sorted());
            assert_eq!(map.values[len - 1], 1.0);
        }
        let [signed, unsigned, signed_4, unsigned_4] = all().map(|(map, _)| &map.values);
        // Oracle: bitsandbytes' `create_dynamic_map`, its ends and the values beside zero.
        assert_eq!(signed[127], 0.0);
        assert_eq!(signed[128], 5.5e-7);
        assert_eq!((signed[0], signed[254]), (-0.992_968_74, 0.992_968_74));
        assert_eq!(unsigned[0], 0.0);
        assert_eq!((unsigned[1], unsigned[2]), (3.25e-7, 7.75e-7));
        assert_eq!(unsigned[254], 0.996_484_4);
        assert_eq!(
            signed_4[7..],
            [
                0.0, 0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875, 1.0
            ]
        );
        assert_eq!(unsigned_4[..3], [0.0625, 0.125, 0.1875]);
    }

    #[test]
    fn every_value_is_its_own_code() {
        for (map, _) in all() {
            let mut codes = vec![0; map.values.len()];
            map.encode(&map.values, &mut codes);
            assert!(
                codes
                    .iter()
                    .enumerate()
                    .all(|(i, code)| i == usize::from(*code))
            );
            let mut values = vec![0.0; codes.len()];
            map.decode(&codes, &mut values);
            assert_eq!(values, map.values);
        }
    }

    #[test]
    fn the_nearest_value_is_taken() {
        for (map, len) in all() {
            for code in 1..len {
                let (below, above) = (map.values[code - 1], map.values[code]);
                let middle = 0.5 * (f64::from(below) + f64::from(above));
                let away = 1e-5 * middle.abs().max(1e-9);
                if map.least == 1 && code == 1 {
                    continue;
                }
                assert_eq!(usize::from(encode(map, (middle - away) as f32)), code - 1);
                assert_eq!(usize::from(encode(map, (middle + away) as f32)), code);
            }
        }
    }

    #[test]
    fn what_is_positive_stays_positive_without_a_sign_and_beyond_one_saturates() {
        for (map, len) in all() {
            let tiny = encode(map, 1e-30);
            assert_eq!(map.values[usize::from(tiny)] > 0.0, !map.is_signed);
            assert_eq!(usize::from(encode(map, f32::INFINITY)), len - 1);
            assert_eq!(encode(map, f32::NAN), map.zero());
            assert_eq!(encode(map, 0.0), map.zero());
            assert_eq!(encode(map, -0.0), map.zero());
        }
        assert_eq!(encode(Map::of(Codes::Dynamic8, Moment::First), -9.0), 0);
    }
}
