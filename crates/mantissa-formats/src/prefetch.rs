//! Asking for memory before it is read.

/// How far ahead, in bytes: half of a first-level cache, so that what a pass over one cached piece asks for is the next piece. The
/// processor itself looks ahead by less, and not over the end of a page.
const AHEAD: usize = 16384;
/// Bytes that come together.
const LINE: usize = 64;

/// Asks for what follows some way behind the `count` elements from `at` on. A hint: nothing is read, and any place will do.
#[inline(always)]
pub fn ahead<T>(elements: &[T], at: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = elements.as_ptr().wrapping_add(at).cast::<i8>();
        for offset in (0..count * size_of::<T>()).step_by(LINE) {
            let place = first.wrapping_add(AHEAD + offset);
            // SAFETY: a prefetch does not access memory, so its address need not be one; SSE is part of x86-64.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(place);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (elements, at, count, AHEAD, LINE);
}
