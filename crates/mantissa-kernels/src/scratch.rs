//! Memory that a thread keeps from one call to the next, so that hot operations allocate nothing in steady state.

use std::cell::RefCell;

thread_local! {
    /// The buffers of this thread that nobody uses now. More than one, for a thread that waits for others may start on another
    /// operation meanwhile.
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of unspecified contents.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(|free| free.pop()).unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = work(&mut buffer[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
