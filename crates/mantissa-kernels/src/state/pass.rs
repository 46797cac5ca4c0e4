//! One pass over a tensor and its moments, piece by piece.

use pulp::{Simd, WithSimd};

use super::buffer::{StateView, View};
use super::coder::amax;
use super::format::PIECE;
use crate::vector::dispatch;

/// Elements a task updates; tensors up to this size are updated by the calling thread. Whole pieces.
const TASK: usize = 1 << 15;

/// Calls `apply` with all elements of `read`, of `written` (which may be empty) and of the moments, in parts that it may see in any
/// order and on any thread; what it leaves in the moments is coded again.
///
/// Where a moment has one scale for the tensor, `apply` is called twice: the first time with copies of `written` and the moments,
/// to learn the largest of the new moments.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn update<const N: usize>(
    read: &[f32],
    written: &mut [f32],
    moments: [StateView<'_>; N],
    apply: &(impl Fn(&[f32], &mut [f32], [&mut [f32]; N]) + Sync),
) {
    let mut moments = moments.map(|StateView(view)| view);
    let is_late = |view: &View| match view {
        View::Plain(_) => false,
        View::Coded(coded) => coded.coder.has_tensor_scale(),
    };
    if moments.iter().any(is_late) {
        let parts = moments.each_mut().map(|view| view.reborrow());
        let found = rehearse(read, written, parts, apply);
        for (view, amax) in moments.iter_mut().zip(found) {
            if let View::Coded(coded) = view
                && coded.coder.has_tensor_scale()
            {
                coded.set_tensor_scale(amax);
            }
        }
    }
    run(read, written, moments, apply);
}

/// Writes the values of a moment.
pub(super) fn read(StateView(view): StateView<'_>, out: &mut [f32]) {
    match view {
        View::Plain(values) => out.copy_from_slice(values),
        View::Coded(mut coded) => {
            for (index, out) in out.chunks_mut(PIECE).enumerate() {
                coded.decode(index * PIECE, out);
            }
        }
    }
}

/// Where a tensor is cut in two, if it is more than one task.
fn middle(len: usize) -> Option<usize> {
    (len > TASK).then(|| (len / 2).next_multiple_of(TASK))
}

fn run<const N: usize>(
    read: &[f32],
    written: &mut [f32],
    moments: [View<'_>; N],
    apply: &(impl Fn(&[f32], &mut [f32], [&mut [f32]; N]) + Sync),
) {
    let Some(at) = middle(read.len()) else {
        return run_task(read, written, moments, apply);
    };
    let (read_left, read_right) = read.split_at(at);
    let (written_left, written_right) = written.split_at_mut(at.min(written.len()));
    let (left, right) = split(moments, at);
    rayon::join(
        || run(read_left, written_left, left, apply),
        || run(read_right, written_right, right, apply),
    );
}

fn split<const N: usize>(moments: [View<'_>; N], at: usize) -> ([View<'_>; N], [View<'_>; N]) {
    let mut rights = [const { None }; N];
    let mut right = rights.iter_mut();
    let lefts = moments.map(|view| {
        let (left, rest) = view.split_at(at);
        *right.next().expect("one for each moment") = Some(rest);
        left
    });
    (
        lefts,
        rights.map(|right| right.expect("every moment was split")),
    )
}

fn run_task<const N: usize>(
    read: &[f32],
    written: &mut [f32],
    mut moments: [View<'_>; N],
    apply: &impl Fn(&[f32], &mut [f32], [&mut [f32]; N]),
) {
    if moments.iter().all(|view| matches!(view, View::Plain(_))) {
        let moments = moments.map(|view| match view {
            View::Plain(values) => values,
            View::Coded(_) => &mut [],
        });
        return apply(read, written, moments);
    }
    let mut scratch = [[0.0; PIECE]; N];
    let mut at = 0;
    while at < read.len() {
        let len = PIECE.min(read.len() - at);
        let written = written.get_mut(at..at + len).unwrap_or_default();
        let values = open(&mut moments, &mut scratch, at, len);
        apply(&read[at..at + len], written, values);
        for (view, values) in moments.iter_mut().zip(&mut scratch) {
            if let View::Coded(coded) = view {
                coded.encode(at, &mut values[..len]);
            }
        }
        at += len;
    }
}

/// The values of a piece of each moment: its own, or decoded in `scratch`.
fn open<'a, const N: usize>(
    moments: &'a mut [View<'_>; N],
    scratch: &'a mut [[f32; PIECE]; N],
    at: usize,
    len: usize,
) -> [&'a mut [f32]; N] {
    let mut scratch = scratch.iter_mut();
    moments.each_mut().map(|view| {
        let values = scratch.next().expect("one for each moment");
        match view {
            View::Plain(values) => &mut values[at..at + len],
            View::Coded(coded) => {
                let values = &mut values[..len];
                coded.decode(at, values);
                values
            }
        }
    })
}

/// The amaxes of the new moments, with everything left as it was.
fn rehearse<const N: usize>(
    read: &[f32],
    written: &[f32],
    moments: [View<'_>; N],
    apply: &(impl Fn(&[f32], &mut [f32], [&mut [f32]; N]) + Sync),
) -> [f32; N] {
    let Some(at) = middle(read.len()) else {
        return rehearse_task(read, written, moments, apply);
    };
    let (read_left, read_right) = read.split_at(at);
    let (written_left, written_right) = written.split_at(at.min(written.len()));
    let (left, right) = split(moments, at);
    let (mut left, right) = rayon::join(
        || rehearse(read_left, written_left, left, apply),
        || rehearse(read_right, written_right, right, apply),
    );
    for (left, right) in left.iter_mut().zip(right) {
        *left = left.max(right);
    }
    left
}

fn rehearse_task<const N: usize>(
    read: &[f32],
    written: &[f32],
    mut moments: [View<'_>; N],
    apply: &impl Fn(&[f32], &mut [f32], [&mut [f32]; N]),
) -> [f32; N] {
    let mut scratch = [[0.0; PIECE]; N];
    let mut copy = [0.0; PIECE];
    let mut found = [0.0; N];
    let mut at = 0;
    while at < read.len() {
        let len = PIECE.min(read.len() - at);
        let written = written.get(at..at + len).unwrap_or_default();
        let copy = &mut copy[..written.len()];
        copy.copy_from_slice(written);
        for (view, values) in moments.iter_mut().zip(&mut scratch) {
            match view {
                View::Plain(plain) => values[..len].copy_from_slice(&plain[at..at + len]),
                View::Coded(coded) => coded.decode(at, &mut values[..len]),
            }
        }
        let values = scratch.each_mut().map(|values| &mut values[..len]);
        apply(&read[at..at + len], copy, values);
        for (found, values) in found.iter_mut().zip(&scratch) {
            *found = f32::max(*found, dispatch(Amax(&values[..len])));
        }
        at += len;
    }
    found
}

struct Amax<'a>(&'a [f32]);

impl WithSimd for Amax<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        amax(simd, self.0)
    }
}
