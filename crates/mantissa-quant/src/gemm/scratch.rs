//! Memory for packed operands, kept by each thread for its next product.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A line of cache, so that vectors of cells never straddle two.
#[derive(Copy, Clone)]
#[repr(C, align(64))]
struct Line([u32; 16]);

const CELLS: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Cells aligned to lines of cache, holding what somebody left there. They go back to the thread
/// that drops them.
pub struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

impl Scratch {
    /// `len` cells of any content.
    pub fn new(len: usize) -> Self {
        let lines = len.div_ceil(CELLS);
        let mut free = FREE.with_borrow_mut(|free| {
            // The smallest that is large enough, else the largest, to grow.
            let fits = free.iter().enumerate().filter(|(_, f)| f.len() >= lines);
            let best = fits.min_by_key(|(_, f)| f.len());
            let best = best.or_else(|| free.iter().enumerate().max_by_key(|(_, f)| f.len()));
            match best.map(|(at, _)| at) {
                Some(at) => free.swap_remove(at),
                None => Vec::new(),
            }
        });
        if free.len() < lines {
            free.resize(lines, Line([0; CELLS]));
        }
        Scratch { lines: free, len }
    }

    /// The cells as f32 of the same bits.
    pub fn floats(&self) -> &[f32] {
        pulp::bytemuck::cast_slice(self)
    }

    /// The cells as f32 of the same bits.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        pulp::bytemuck::cast_slice_mut(self)
    }
}

impl Deref for Scratch {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        // SAFETY: lines are arrays of cells without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // A thread that is ending has nowhere to keep them.
        let _ = FREE.try_with(|free| free.borrow_mut().push(lines));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let first = Scratch::new(1000);
        let at = first.as_ptr();
        assert_eq!(at as usize % 64, 0);
        drop(first);
        let again = Scratch::new(999);
        assert_eq!((again.as_ptr(), again.len()), (at, 999));
    }
}
