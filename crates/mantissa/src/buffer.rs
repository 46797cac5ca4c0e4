//! Memory of tensors that is used again in the next step.
//!
//! A training step asks for the same sizes every time. Memory that goes back to the allocator comes back as fresh pages,
//! which the machine clears and maps one by one; kept here, it comes back as it was left. [`sweep`] frees what a whole
//! step had no use for.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use burn::backend::DType;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, Shape};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};

/// Shorter vectors, in bytes, are the allocator's business, which is quick with them.
const SHORTEST: usize = 1 << 14;

/// Vectors that nobody uses, by length, with the sweep after which each was last used.
pub(crate) struct Idle<T> {
    by_len: HashMap<usize, Vec<(u64, Vec<T>)>>,
    sweeps: u64,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self {
            by_len: HashMap::new(),
            sweeps: 0,
        }
    }
}

impl<T> Idle<T> {
    fn sweep(&mut self) {
        for vectors in self.by_len.values_mut() {
            vectors.retain(|(last_used, _)| *last_used == self.sweeps);
        }
        self.by_len.retain(|_, vectors| !vectors.is_empty());
        self.sweeps += 1;
    }

    fn take(&mut self, len: usize) -> Option<Vec<T>> {
        self.by_len.get_mut(&len)?.pop().map(|(_, vector)| vector)
    }

    fn keep(&mut self, vector: Vec<T>) {
        if size_of_val(vector.as_slice()) >= SHORTEST {
            let kept = self.by_len.entry(vector.len()).or_default();
            kept.push((self.sweeps, vector));
        }
    }
}

static VALUES: LazyLock<Mutex<Idle<f32>>> = LazyLock::new(Mutex::default);
static CODES: LazyLock<Mutex<Idle<u8>>> = LazyLock::new(Mutex::default);

fn lock<T>(idle: &Mutex<Idle<T>>) -> MutexGuard<'_, Idle<T>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees the memory that has not been used since the last sweep.
pub(crate) fn sweep() {
    lock(&VALUES).sweep();
    lock(&CODES).sweep();
}

/// Room beside the codes of a tensor for a scale and what else a stored tensor needs, so that it and the codes of a
/// product of its size use the same memory by turns.
const BESIDE_CODES: usize = 128;

/// Space for `len` codes: either so many, each of some value, or none yet.
pub(crate) fn codes(len: usize) -> Vec<u8> {
    let kept = lock(&CODES).take(len);
    kept.unwrap_or_else(|| Vec::with_capacity(len + BESIDE_CODES))
}

/// Keeps the memory of codes that nobody reads any more.
pub(crate) fn keep_codes(codes: Vec<u8>) {
    lock(&CODES).keep(codes);
}

/// An element of memory that is kept: any bytes are some value of it.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    fn idle() -> &'static Mutex<Idle<Self>>;
}

impl Element for f32 {
    fn idle() -> &'static Mutex<Idle<Self>> {
        &VALUES
    }
}

impl Element for u8 {
    fn idle() -> &'static Mutex<Idle<Self>> {
        &CODES
    }
}

/// Memory that is kept for the next of its size when it is dropped.
pub(crate) struct Recycled<T: Element> {
    elements: Vec<T>,
    /// How many elements decide what its size is; the others are beside them.
    size: usize,
}

/// Space for results.
pub(crate) type Buffer = Recycled<f32>;

/// Space for the codes of a tensor and what a stored tensor has beside them.
pub(crate) type CodeBuffer = Recycled<u8>;

impl Buffer {
    /// As many elements as asked for, each of some value.
    pub(crate) fn new(len: usize) -> Self {
        let kept = lock(&VALUES).take(len);
        kept.unwrap_or_else(|| vec![0.0; len]).into()
    }

    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }

    /// A tensor of `shape` with these values, whose memory comes back here when the last reader drops it.
    pub(crate) fn into_tensor(self, shape: &[usize]) -> FlexTensor {
        debug_assert_eq!(self.len(), shape.iter().product::<usize>());
        let layout = Layout::contiguous(Shape::from(shape.to_vec()));
        FlexTensor::new(self.into_bytes(), layout, DType::F32)
    }
}

impl CodeBuffer {
    /// So many bytes, each of some value, of which so many are codes.
    pub(crate) fn with_codes(codes: usize, len: usize) -> Self {
        let mut elements = self::codes(codes);
        elements.resize(len, 0);
        Self {
            elements,
            size: codes,
        }
    }
}

impl<T: Element> Recycled<T> {
    /// The bytes, whose memory comes back here when the last reader drops them.
    pub(crate) fn into_bytes(self) -> Bytes {
        let len = size_of_val(self.elements.as_slice());
        // SAFETY: `memory` returns this many bytes, all of them initialized.
        unsafe { Bytes::from_controller(Box::new(self), len) }
    }
}

impl<T: Element> From<Vec<T>> for Recycled<T> {
    fn from(elements: Vec<T>) -> Self {
        let size = elements.len();
        Self { elements, size }
    }
}

impl<T: Element> Deref for Recycled<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.elements
    }
}

impl<T: Element> DerefMut for Recycled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.elements
    }
}

impl<T: Element> Drop for Recycled<T> {
    fn drop(&mut self) {
        let mut elements = std::mem::take(&mut self.elements);
        elements.truncate(self.size);
        lock(T::idle()).keep(elements);
    }
}

impl<T: Element> AllocationController for Recycled<T> {
    fn alloc_align(&self) -> usize {
        align_of::<T>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let elements = self.elements.as_mut_slice();
        let len = size_of_val(elements);
        // SAFETY: the bytes of the elements, borrowed as long as they are; the caller writes no uninitialized ones, and any
        // others are elements.
        Ok(unsafe { slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), len) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let elements = self.elements.as_slice();
        // SAFETY: the bytes of the elements, borrowed as long as they are.
        Ok(unsafe { slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths that no other test uses.
    const LEN: usize = SHORTEST / 4 + 12_345;

    #[test]
    fn a_dropped_tensor_gives_its_memory_to_the_next_of_its_size() {
        let mut buffer = Buffer::new(LEN);
        buffer[7] = 3.0;
        let place = buffer.as_ptr();
        let tensor = buffer.into_tensor(&[LEN]);
        let shared = tensor.clone();
        assert_eq!(tensor.storage::<f32>().as_ptr(), place);
        drop(tensor);
        assert_ne!(Buffer::new(LEN).as_ptr(), place, "still in use");
        assert_eq!(shared.storage::<f32>()[7], 3.0);
        drop(shared);
        let again = [Buffer::new(LEN), Buffer::new(LEN)];
        assert!(again.iter().any(|buffer| buffer.as_ptr() == place));
    }

    #[test]
    fn stored_tensors_and_the_codes_of_products_use_the_same_memory() {
        let mut stored = CodeBuffer::with_codes(LEN, LEN + BESIDE_CODES);
        stored.fill(3);
        let place = stored.as_ptr();
        let bytes = stored.into_bytes();
        assert!(bytes.len() == LEN + BESIDE_CODES && bytes.iter().all(|&byte| byte == 3));
        drop(bytes);
        let codes = [codes(LEN), codes(LEN)];
        assert!(codes.iter().any(|codes| codes.as_ptr() == place));
    }

    #[test]
    fn writing_to_a_shared_tensor_leaves_the_other_reader_alone() {
        let mut tensor = Buffer::new(LEN + 1).into_tensor(&[LEN + 1]);
        tensor.storage_mut::<f32>().fill(1.0);
        let reader = tensor.clone();
        tensor.storage_mut::<f32>()[0] = 2.0;
        assert_eq!(
            (tensor.storage::<f32>()[0], reader.storage::<f32>()[0]),
            (2.0, 1.0)
        );
        assert_eq!(tensor.storage::<f32>()[LEN], 1.0);
    }

    #[test]
    fn a_sweep_frees_what_a_whole_step_did_not_use() {
        const UNIQUE: usize = LEN + 2;
        let kept = || lock(&VALUES).by_len.contains_key(&UNIQUE);
        drop(Buffer::new(UNIQUE));
        sweep();
        assert!(kept(), "used in the step that ended");
        sweep();
        assert!(!kept());
    }
}
