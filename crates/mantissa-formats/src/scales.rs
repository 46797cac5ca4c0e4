//! The scales of runs of elements, laid out beside the elements, and the division by them.
//!
//! A division takes ten times as long as a product. With the reciprocal at hand a product and two fused multiply-adds give the same
//! quotient bit for bit (Markstein 1990, IBM Journal of Research and Development 34; Brisebarre, Muller and Raina 2004, IEEE
//! Transactions on Computers 53), as long as nothing under- or overflows on the way.

use pulp::Simd;

use crate::Format;
use crate::random::BLOCK;

/// Elements of a part of a block whose scale is looked up together: as many as the widest vectors hold.
const QUARTER: usize = BLOCK / 4;

/// A number beside each element of a block, in whole cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Beside([f32; BLOCK]);

/// Short runs whose reciprocals are found together: divisions of one number each would take as long as all the rest.
const WINDOW: usize = 64;

/// The scales of some runs, one after another, and how quotients by any of them are found.
#[derive(Clone, Copy)]
struct Window {
    /// The first of its runs, and the first after it.
    from: usize,
    to: usize,
    scales: [f32; WINDOW],
    reciprocals: [f32; WINDOW],
    way: Way,
}

impl Window {
    const EMPTY: Self = Self {
        from: 0,
        to: 0,
        scales: [1.0; WINDOW],
        reciprocals: [1.0; WINDOW],
        way: Way::Multiply,
    };

    /// The scales from one run on.
    #[inline(always)]
    fn move_to(&mut self, from: usize, scales: &[f32]) {
        let count = WINDOW.min(scales.len() - from);
        (self.from, self.to) = (from, from + count);
        self.scales = [1.0; WINDOW];
        self.scales[..count].copy_from_slice(&scales[from..from + count]);
        let (mut exact, mut normal) = (true, true);
        for (scale, reciprocal) in self.scales.iter().zip(&mut self.reciprocals) {
            *reciprocal = 1.0 / *scale;
            exact &= has_exact_reciprocal(*scale);
            normal &= (LEAST_CORRECTED..=1.0 / LEAST_CORRECTED).contains(scale);
        }
        self.way = match (exact, normal) {
            (true, _) => Way::Multiply,
            (_, true) => Way::Correct,
            _ => Way::Divide,
        };
    }
}

/// How quotients by the scales of a block are found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Reciprocals are exact, and so a product with one is the quotient.
    Multiply,
    /// A product with the reciprocal is put right.
    Correct,
    Divide,
}

impl Way {
    #[inline(always)]
    fn of(scale: f32) -> Self {
        if has_exact_reciprocal(scale) {
            Self::Multiply
        } else if (LEAST_CORRECTED..=1.0 / LEAST_CORRECTED).contains(&scale) {
            Self::Correct
        } else {
            Self::Divide
        }
    }

    /// This way, unless it takes a coarse format and this is none.
    #[inline(always)]
    fn or_division(self, coarse: bool) -> Self {
        match self {
            Self::Correct if !coarse => Self::Divide,
            way => way,
        }
    }
}

/// Whether quotients below [`LEAST_CORRECTED`] are as good as each other to a format, and those above its reciprocal: stochastic
/// rounding tells parts of 2^-17 of the smallest value from nothing.
fn is_coarse(format: Format) -> bool {
    format.min_subnormal() >= LEAST_CORRECTED * 131_072.0
        && format.max_finite() <= 1.0 / LEAST_CORRECTED
}

/// 2^-60: by scales from this to its reciprocal, quotients from this to its reciprocal are found without underflow of what is left
/// over, which is a multiple of 2^-46 of the product of their powers of two.
const LEAST_CORRECTED: f32 = f32::from_bits((127 - 60) << 23);

/// What the elements of one block after another are divided by before they are rounded.
pub(crate) trait Divisor {
    /// Whether it is 1.
    const NONE: bool = false;

    /// Goes on to the next `count` elements, at most a block.
    fn advance<S: Simd>(&mut self, simd: S, count: usize);

    /// The elements of the current block divided by their scales, or something that the format rounds to the same.
    fn divide<S: Simd>(&self, elements: &[f32; BLOCK]) -> [f32; BLOCK];

    /// The scale of an element of the current block.
    fn scale(&self, i: usize) -> f32;
}

/// Nothing.
pub(crate) struct Unscaled;

impl Divisor for Unscaled {
    const NONE: bool = true;

    #[inline(always)]
    fn advance<S: Simd>(&mut self, _: S, _: usize) {}

    #[inline(always)]
    fn divide<S: Simd>(&self, elements: &[f32; BLOCK]) -> [f32; BLOCK] {
        *elements
    }

    #[inline(always)]
    fn scale(&self, _: usize) -> f32 {
        1.0
    }
}

/// One scale for all elements.
pub(crate) struct One {
    scale: f32,
    reciprocal: f32,
    way: Way,
}

impl One {
    pub(crate) fn new(format: Format, scale: f32) -> Self {
        Self {
            scale,
            reciprocal: 1.0 / scale,
            way: Way::of(scale).or_division(is_coarse(format)),
        }
    }
}

impl Divisor for One {
    #[inline(always)]
    fn advance<S: Simd>(&mut self, _: S, _: usize) {}

    #[inline(always)]
    fn divide<S: Simd>(&self, elements: &[f32; BLOCK]) -> [f32; BLOCK] {
        quotients::<S>(self.way, elements, |_| self.scale, |_| self.reciprocal)
    }

    #[inline(always)]
    fn scale(&self, _: usize) -> f32 {
        self.scale
    }
}

/// A scale for each run of so many elements, brought beside one block of elements after another.
pub(crate) struct Scales<'a> {
    scales: &'a [f32],
    run: usize,
    /// The run of the next element, and how many elements of it came before.
    group: usize,
    used: usize,
    /// The scale of each element of the current block.
    block: Beside,
    /// Their reciprocals, unless `way` is to divide.
    reciprocals: Beside,
    way: Way,
    coarse: bool,
    /// The run that all of the block belongs to, if it is one.
    uniform: usize,
    window: Window,
}

impl<'a> Scales<'a> {
    /// For elements that are rounded to a format after the division.
    ///
    /// # Panics
    /// If the runs do not reach over `len` elements.
    pub(crate) fn new(format: Format, scales: &'a [f32], run: usize, len: usize) -> Self {
        assert!(
            len <= run.saturating_mul(scales.len()),
            "{} scales for runs of {run} do not reach over {len} elements",
            scales.len()
        );
        Self {
            scales,
            run,
            group: 0,
            used: 0,
            block: Beside([1.0; BLOCK]),
            reciprocals: Beside([1.0; BLOCK]),
            way: Way::Multiply,
            coarse: is_coarse(format),
            uniform: usize::MAX,
            window: Window::EMPTY,
        }
    }

    #[inline(always)]
    fn go_on<S: Simd>(&mut self, simd: S, count: usize) {
        if self.run - self.used >= count {
            if self.uniform != self.group {
                self.lay_out(simd, [self.scales[self.group]; 4]);
                self.uniform = self.group;
            }
            self.used += count;
            if self.used == self.run {
                self.group += 1;
                self.used = 0;
            }
            return;
        }
        self.uniform = usize::MAX;
        if count == BLOCK && self.used == 0 && [QUARTER, 2 * QUARTER].contains(&self.run) {
            self.advance_short_runs(simd);
            return;
        }
        if count == BLOCK && self.run.is_multiple_of(QUARTER) && self.used.is_multiple_of(QUARTER) {
            self.advance_quarters(simd);
            return;
        }
        self.way = Way::Divide;
        if self.run == 1 {
            let scales = &self.scales[self.group..self.group + count];
            self.block.0[..count].copy_from_slice(scales);
            self.group += count;
            return;
        }
        for scale in &mut self.block.0[..count] {
            *scale = self.scales[self.group];
            self.used += 1;
            if self.used == self.run {
                self.group += 1;
                self.used = 0;
            }
        }
    }

    /// Goes on by a block of whole runs, of a quarter or of half of a block each.
    #[inline(always)]
    fn advance_short_runs<S: Simd>(&mut self, simd: S) {
        let runs = if self.run == QUARTER { 4 } else { 2 };
        if self.group + runs > self.window.to || self.group < self.window.from {
            self.window.move_to(self.group, self.scales);
        }
        let at = self.group - self.window.from;
        let places = [0, 1, 2, 3].map(|quarter| at + quarter * runs / 4);
        let window = &self.window;
        splat(simd, places.map(|i| window.scales[i]), &mut self.block.0);
        self.way = window.way.or_division(self.coarse);
        if self.way != Way::Divide {
            let reciprocals = places.map(|i| window.reciprocals[i]);
            splat(simd, reciprocals, &mut self.reciprocals.0);
        }
        self.group += runs;
    }

    /// Goes on by a block that begins, as every run does, at a quarter of one.
    #[inline(always)]
    fn advance_quarters<S: Simd>(&mut self, simd: S) {
        let (run, used) = (self.run / QUARTER, self.used / QUARTER);
        // How many runs have ended before each quarter, and in the end.
        let [second, third, fourth, ended] = [1, 2, 3, 4].map(|quarters| {
            let quarters = used + quarters;
            (1..=4).filter(|ends| quarters >= ends * run).count()
        });
        let scales = &self.scales[self.group..=self.group + fourth];
        self.lay_out(
            simd,
            [scales[0], scales[second], scales[third], scales[fourth]],
        );
        self.group += ended;
        self.used += BLOCK;
        self.used -= ended * self.run;
    }

    /// Lays out a scale for each quarter of the block.
    #[inline(always)]
    fn lay_out<S: Simd>(&mut self, simd: S, scales: [f32; 4]) {
        splat(simd, scales, &mut self.block.0);
        self.way = scales
            .into_iter()
            .map(Way::of)
            .fold(Way::Multiply, Way::max)
            .or_division(self.coarse);
        if self.way != Way::Divide {
            splat(simd, scales.map(f32::recip), &mut self.reciprocals.0);
        }
    }
}

#[inline(always)]
fn quotients<S: Simd>(
    way: Way,
    elements: &[f32; BLOCK],
    scale: impl Fn(usize) -> f32,
    reciprocal: impl Fn(usize) -> f32,
) -> [f32; BLOCK] {
    let mut quotients = [0.0; BLOCK];
    // Vector units have fused multiply-add; elsewhere it is a function that takes longer than a division.
    let corrects = S::F32_LANES > 1;
    match way {
        Way::Multiply => {
            for i in 0..BLOCK {
                quotients[i] = elements[i] * reciprocal(i);
            }
        }
        Way::Correct if corrects => {
            for i in 0..BLOCK {
                quotients[i] = corrected_quotient(elements[i], scale(i), reciprocal(i));
            }
        }
        _ => {
            for i in 0..BLOCK {
                quotients[i] = elements[i] / scale(i);
            }
        }
    }
    quotients
}

/// `x / scale`, or for quotients that are out of range, not numbers or zero, the product with the reciprocal.
#[inline(always)]
fn corrected_quotient(x: f32, scale: f32, reciprocal: f32) -> f32 {
    const LEAST: u32 = LEAST_CORRECTED.to_bits();
    const MOST: u32 = (1.0 / LEAST_CORRECTED).to_bits();
    let product = x * reciprocal;
    let left_over = (-product).mul_add(scale, x);
    let corrected = left_over.mul_add(reciprocal, product);
    let in_range = product.abs().to_bits().wrapping_sub(LEAST) <= MOST - LEAST;
    if in_range { corrected } else { product }
}

impl Divisor for Scales<'_> {
    #[inline(always)]
    fn advance<S: Simd>(&mut self, simd: S, count: usize) {
        self.go_on(simd, count);
    }

    #[inline(always)]
    fn divide<S: Simd>(&self, elements: &[f32; BLOCK]) -> [f32; BLOCK] {
        let (scales, reciprocals) = (&self.block.0, &self.reciprocals.0);
        quotients::<S>(self.way, elements, |i| scales[i], |i| reciprocals[i])
    }

    #[inline(always)]
    fn scale(&self, i: usize) -> f32 {
        self.block.0[i]
    }
}

/// Whether a number is a power of two, and neither it nor its reciprocal is subnormal.
#[inline(always)]
fn has_exact_reciprocal(x: f32) -> bool {
    let (sign_and_exponent, mantissa) = (x.to_bits() >> 23, x.to_bits() & 0x007f_ffff);
    mantissa == 0 && sign_and_exponent.wrapping_sub(1) < 253
}

/// Fills each quarter of a block with a number, by whole vectors: what is stored in smaller pieces cannot be loaded as a vector
/// before it has left the processor.
#[inline(always)]
fn splat<S: Simd>(simd: S, numbers: [f32; 4], block: &mut [f32; BLOCK]) {
    let (quarters, _) = block.as_chunks_mut::<QUARTER>();
    for (number, quarter) in numbers.into_iter().zip(quarters) {
        let number = simd.splat_f32s(number);
        for vector in S::as_mut_simd_f32s(quarter).0 {
            *vector = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_meets_the_scale_of_its_run() {
        let scales: Vec<f32> = (1..=1000u16).map(f32::from).collect();
        for run in [
            1,
            2,
            3,
            15,
            16,
            17,
            32,
            48,
            63,
            64,
            65,
            96,
            128,
            200,
            usize::MAX,
        ] {
            let len = run.saturating_mul(scales.len()).min(1000);
            for step in [BLOCK, 1, 7, 16, 63] {
                let mut beside = Scales::new(Format::INT8, &scales, run, len);
                let mut at = 0;
                while at < len {
                    let count = step.min(len - at);
                    beside.advance(pulp::Scalar::new(), count);
                    let quotients = beside.divide::<pulp::Scalar>(&[0.7; BLOCK]);
                    for i in 0..count {
                        let scale = scales[(at + i) / run];
                        assert_eq!(beside.scale(i), scale, "{run} {step}");
                        assert_eq!(quotients[i], 0.7 / scale, "{run} {step}");
                    }
                    at += count;
                }
            }
        }
    }

    /// All significands over some scales, the hardest among them: just above and below powers of two.
    #[test]
    fn corrected_quotients_are_quotients() {
        let significand = |bits: u32| f32::from_bits(127 << 23 | bits & 0x007f_ffff);
        let scales = [1, 2, 0x7f_ffff, 0x7f_fffe, 0x2a_aaab, 0x55_5555, 0x12_3456];
        let scales = scales.map(significand).into_iter().chain([1.0 / 127.0]);
        let powers = [0, 59, -59].map(|power| f32::from_bits(((127 + power) as u32) << 23));
        for (scale, power) in scales.flat_map(|s| powers.map(|power| (s, power))) {
            let scale = scale * power;
            for bits in (0..1 << 23).step_by(if power == 1.0 { 1 } else { 257 }) {
                let x = significand(bits) * power;
                let quotient = corrected_quotient(x, scale, 1.0 / scale);
                assert_eq!(quotient, x / scale, "{x:e} / {scale:e}");
            }
        }
    }

    #[test]
    fn quotients_at_the_ends_keep_their_kind() {
        let scale = 3e-18;
        let quotient = |x: f32| corrected_quotient(x, scale, 1.0 / scale);
        assert!(quotient(f32::NAN).is_nan());
        assert_eq!(quotient(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(quotient(f32::MAX), f32::INFINITY);
        assert_eq!(quotient(-0.0).to_bits(), (-0.0f32).to_bits());
        for x in [f32::from_bits(1), 1e-40, 1e-37] {
            assert!(quotient(x) > 0.0 && quotient(x) < LEAST_CORRECTED * 2.0);
            assert_eq!(quotient(-x), -quotient(x));
        }
    }
}
