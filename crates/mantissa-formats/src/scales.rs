//! The scales of runs of elements, laid out beside the elements, and the division by them.

use pulp::Simd;

use crate::random::BLOCK;

/// Elements of a part of a block whose scale is looked up together: as many as the widest vectors hold.
const QUARTER: usize = BLOCK / 4;

/// A number beside each element of a block, in whole cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Beside([f32; BLOCK]);

/// A scale for each run of so many elements, brought beside one block of elements after another.
pub(crate) struct Scales<'a> {
    scales: &'a [f32],
    run: usize,
    /// The run of the next element, and how many elements of it came before.
    group: usize,
    used: usize,
    /// The scale of each element of the current block.
    block: Beside,
    /// Their reciprocals, if these are `exact`: then a product with one is the quotient, and takes a tenth of the time.
    reciprocals: Beside,
    exact: bool,
    /// The run that all of the block belongs to, if it is one.
    uniform: usize,
}

impl<'a> Scales<'a> {
    /// # Panics
    /// If the runs do not reach over `len` elements.
    pub(crate) fn new(scales: &'a [f32], run: usize, len: usize) -> Self {
        assert!(
            len <= run.saturating_mul(scales.len()),
            "{} scales for runs of {run} do not reach over {len} elements",
            scales.len()
        );
        Self {
            scales,
            run,
            uniform: usize::MAX,
            ..Self::none()
        }
    }

    /// The scale 1 for every element.
    pub(crate) const fn none() -> Self {
        Self {
            scales: &[1.0],
            run: usize::MAX,
            group: 0,
            used: 0,
            block: Beside([1.0; BLOCK]),
            reciprocals: Beside([1.0; BLOCK]),
            exact: true,
            uniform: 0,
        }
    }

    /// The scales of the elements of the current block.
    #[inline(always)]
    pub(crate) fn block(&self) -> &[f32; BLOCK] {
        &self.block.0
    }

    /// The elements of the current block divided by their scales.
    #[inline(always)]
    pub(crate) fn divide(&self, elements: &[f32; BLOCK]) -> [f32; BLOCK] {
        let mut quotients = [0.0; BLOCK];
        if self.exact {
            for i in 0..BLOCK {
                quotients[i] = elements[i] * self.reciprocals.0[i];
            }
        } else {
            for i in 0..BLOCK {
                quotients[i] = elements[i] / self.block.0[i];
            }
        }
        quotients
    }

    /// Goes on to the next `count` elements, at most a block.
    #[inline(always)]
    pub(crate) fn advance<S: Simd>(&mut self, simd: S, count: usize) {
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
        if count == BLOCK && self.run.is_multiple_of(QUARTER) && self.used.is_multiple_of(QUARTER) {
            self.advance_quarters(simd);
            return;
        }
        self.exact = false;
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

    /// Goes on by a block that begins, as every run does, at a quarter of one.
    #[inline(always)]
    fn advance_quarters<S: Simd>(&mut self, simd: S) {
        let (run, used) = (self.run / QUARTER, self.used / QUARTER);
        // How many runs have ended before each quarter, and in the end.
        let [second, third, fourth, ended] = match (run, used) {
            (1, _) => [1, 2, 3, 4],
            (2, 0) => [0, 1, 1, 2],
            _ => {
                [1, 2, 3, 4].map(|quarters| {
                    // Nothing ends a third time: runs of one quarter are dealt with above.
                    let quarters = used + quarters;
                    (1..=2).filter(|ends| quarters >= ends * run).count()
                })
            }
        };
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
        self.exact = scales.into_iter().all(has_exact_reciprocal);
        if self.exact {
            splat(simd, scales.map(f32::recip), &mut self.reciprocals.0);
        }
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
                let mut beside = Scales::new(&scales, run, len);
                let mut at = 0;
                while at < len {
                    let count = step.min(len - at);
                    beside.advance(pulp::Scalar::new(), count);
                    let quotients = beside.divide(&[0.7; BLOCK]);
                    for i in 0..count {
                        let scale = scales[(at + i) / run];
                        assert_eq!(beside.block()[i], scale, "{run} {step}");
                        assert_eq!(quotients[i], 0.7 / scale, "{run} {step}");
                    }
                    at += count;
                }
            }
        }
    }
}
