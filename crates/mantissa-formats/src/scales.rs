//! The scales of runs of elements, laid out beside the elements, and the division by them.

use pulp::Simd;

use crate::random::BLOCK;

/// Elements of a part of a block whose scale is looked up together: as many as the widest vectors hold.
const QUARTER: usize = BLOCK / 4;

/// A scale for each run of so many elements, brought beside one block of elements after another.
pub(crate) struct Scales<'a> {
    scales: &'a [f32],
    run: usize,
    /// The run of the next element, and how many elements of it came before.
    group: usize,
    used: usize,
    /// The scale of each element of the current block.
    block: [f32; BLOCK],
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
            block: [1.0; BLOCK],
            uniform: 0,
        }
    }

    /// The scales of the elements of the current block.
    #[inline(always)]
    pub(crate) fn block(&self) -> &[f32; BLOCK] {
        &self.block
    }

    /// Goes on to the next `count` elements, at most a block.
    #[inline(always)]
    pub(crate) fn advance<S: Simd>(&mut self, simd: S, count: usize) {
        if self.run - self.used >= count {
            if self.uniform != self.group {
                splat(simd, [self.scales[self.group]; 4], &mut self.block);
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
        if self.run == 1 {
            let scales = &self.scales[self.group..self.group + count];
            self.block[..count].copy_from_slice(scales);
            self.group += count;
            return;
        }
        for scale in &mut self.block[..count] {
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
        // How many runs have ended so many quarters from here, without a division: runs of three quarters end twice at most.
        let ended = |quarters: usize| match run {
            1 => quarters,
            2 => (used + quarters) / 2,
            _ => usize::from(used + quarters >= run) + usize::from(used + quarters >= 2 * run),
        };
        let scales = &self.scales[self.group..self.group + ended(3) + 1];
        let scales = [
            scales[0],
            scales[ended(1)],
            scales[ended(2)],
            scales[ended(3)],
        ];
        splat(simd, scales, &mut self.block);
        self.group += ended(4);
        self.used += BLOCK;
        self.used -= ended(4) * self.run;
    }
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
                    for i in 0..count {
                        assert_eq!(beside.block()[i], scales[(at + i) / run], "{run} {step}");
                    }
                    at += count;
                }
            }
        }
    }
}
