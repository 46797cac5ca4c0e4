//! The scales of runs of elements, laid out beside the elements.

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
            group: 0,
            used: 0,
            block: [1.0; BLOCK],
            uniform: usize::MAX,
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
    pub(crate) fn advance(&mut self, count: usize) {
        if self.run - self.used > count {
            if self.uniform != self.group {
                self.block = [self.scales[self.group]; BLOCK];
                self.uniform = self.group;
            }
            self.used += count;
            return;
        }
        self.uniform = usize::MAX;
        if count == BLOCK && self.run.is_multiple_of(QUARTER) && self.used.is_multiple_of(QUARTER) {
            for first in (0..BLOCK).step_by(QUARTER) {
                self.block[first..first + QUARTER].fill(self.scales[self.group]);
                self.step(QUARTER);
            }
        } else if self.run == 1 {
            let scales = &self.scales[self.group..self.group + count];
            self.block[..count].copy_from_slice(scales);
            self.group += count;
        } else {
            for i in 0..count {
                self.block[i] = self.scales[self.group];
                self.step(1);
            }
        }
    }

    #[inline(always)]
    fn step(&mut self, count: usize) {
        self.used += count;
        if self.used == self.run {
            self.group += 1;
            self.used = 0;
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
                    beside.advance(count);
                    for i in 0..count {
                        assert_eq!(beside.block()[i], scales[(at + i) / run], "{run} {step}");
                    }
                    at += count;
                }
            }
        }
    }
}
