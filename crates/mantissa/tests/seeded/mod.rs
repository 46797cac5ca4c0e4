//! Weights that are the same in every run of a test.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

/// What `make` draws from `seed`. The tests of a file share one generator: they draw one at a time.
pub fn seeded<T>(seed: u64, make: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Device::flex().autodiff().seed(seed);
    make()
}
