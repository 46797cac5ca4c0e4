//! Windows that slide over images, and the two ways of moving elements between them.

use rayon::prelude::*;

/// Elements of one piece of work.
const PIECE: usize = 1 << 14;

/// The windows of a kernel over images of up to three axes of space; missing axes come first and have one element.
///
/// Images are `[batch, space 0, space 1, space 2, channels]`, and *columns* hold one window a row:
/// `[groups, batch * positions, taps * channels / groups]`. A row holds the channels of one tap beside each other, so
/// that blocks along a product's contraction are channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Sizes of an image's axes of space.
    pub(super) image: [usize; 3],
    /// Taps of the kernel along each axis.
    pub(super) kernel: [usize; 3],
    /// Elements from one window to the next.
    pub(super) stride: [usize; 3],
    /// Elements from one tap to the next.
    pub(super) dilation: [usize; 3],
    /// Zeros before the first element of each axis; as many as windows need follow the last.
    pub(super) padding: [usize; 3],
    /// Windows along each axis.
    pub(super) positions: [usize; 3],
    /// Groups of channels that have columns of their own.
    pub(super) groups: usize,
}

impl Windows {
    /// Windows of an image.
    pub(super) fn count(&self) -> usize {
        self.positions.iter().product()
    }

    /// Elements of a window, for each channel.
    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether columns are the images as they are: every window is one element, and each element is a window.
    pub(super) fn is_identity(&self) -> bool {
        let one = [1; 3];
        self.kernel == one
            && self.stride == one
            && self.padding == [0; 3]
            && self.positions == self.image
            && self.groups == 1
    }

    /// Writes the elements of every window to its row of `columns`, and zeros where it leaves the image.
    pub(super) fn unfold(&self, images: &[f32], channels: usize, columns: &mut [f32]) {
        let depth = self.taps() * channels / self.groups;
        if columns.is_empty() || depth == 0 {
            return;
        }
        let rows = columns.len() / depth / self.groups;
        let block = (PIECE / depth).max(1);
        let pieces = columns.par_chunks_mut(block * depth).enumerate();
        pieces.for_each(|(piece, columns)| {
            for (row, column) in columns.chunks_exact_mut(depth).enumerate() {
                let row = piece * block + row;
                self.read_window(images, channels, row / rows, row % rows, column);
            }
        });
    }

    /// Adds up, for every element of `images`, what `columns` holds of it: the adjoint of [`unfold`](Self::unfold).
    pub(super) fn fold(&self, columns: &[f32], channels: usize, images: &mut [f32]) {
        let [_, height, width] = self.image;
        let line = width * channels;
        if images.is_empty() || line == 0 {
            return;
        }
        let block = (PIECE / line).max(1);
        let batch = images.len() / line / (self.image[0] * height);
        let pieces = images.par_chunks_mut(block * line).enumerate();
        pieces.for_each(|(piece, images)| {
            for (index, line) in images.chunks_exact_mut(line).enumerate() {
                let index = piece * block + index;
                let at = [index / height % self.image[0], index % height];
                let image = index / height / self.image[0];
                line.fill(0.0);
                self.add_to_line(columns, channels, [image, batch], at, line);
            }
        });
    }

    fn read_window(
        &self,
        images: &[f32],
        channels: usize,
        group: usize,
        row: usize,
        column: &mut [f32],
    ) {
        let [first, second, third] = self.positions;
        let at = [row / third / second % first, row / third % second];
        let image = row / self.count();
        let width = self.kernel[2] * channels / self.groups;
        let inside = |axis: usize, tap: usize| {
            let place = at[axis] * self.stride[axis] + tap * self.dilation[axis];
            place
                .checked_sub(self.padding[axis])
                .filter(|&place| place < self.image[axis])
        };
        let mut targets = column.chunks_exact_mut(width);
        for tap_0 in 0..self.kernel[0] {
            for (tap_1, target) in (0..self.kernel[1]).zip(&mut targets) {
                let (Some(i), Some(j)) = (inside(0, tap_0), inside(1, tap_1)) else {
                    target.fill(0.0);
                    continue;
                };
                let line = self.image[2] * channels;
                let line = &images[self.line(image, [i, j]) * line..][..line];
                self.read_line(line, channels, group, row % third, target);
            }
        }
    }

    /// The number of a line along the last axis of space.
    fn line(&self, image: usize, [i, j]: [usize; 2]) -> usize {
        (image * self.image[0] + i) * self.image[1] + j
    }

    fn read_line(
        &self,
        line: &[f32],
        channels: usize,
        group: usize,
        position: usize,
        target: &mut [f32],
    ) {
        for run in self.runs(channels, group, position) {
            target[run.column..][..run.len].copy_from_slice(&line[run.image..][..run.len]);
        }
        // Runs are in order: what is before, between and after them is padding.
        let mut end = 0;
        for run in self.runs(channels, group, position) {
            target[end..run.column].fill(0.0);
            end = run.column + run.len;
        }
        target[end..].fill(0.0);
    }

    fn add_to_line(
        &self,
        columns: &[f32],
        channels: usize,
        [image, batch]: [usize; 2],
        at: [usize; 2],
        line: &mut [f32],
    ) {
        let group_channels = channels / self.groups;
        let depth = self.taps() * group_channels;
        let position_of = |axis: usize, tap: usize| {
            let start = (at[axis] + self.padding[axis]).checked_sub(tap * self.dilation[axis])?;
            let position = start / self.stride[axis];
            (start.is_multiple_of(self.stride[axis]) && position < self.positions[axis])
                .then_some(position)
        };
        for tap_0 in 0..self.kernel[0] {
            for tap_1 in 0..self.kernel[1] {
                let (Some(i), Some(j)) = (position_of(0, tap_0), position_of(1, tap_1)) else {
                    continue;
                };
                let taps = (tap_0 * self.kernel[1] + tap_1) * self.kernel[2] * group_channels;
                for group in 0..self.groups {
                    let row = (group * batch + image) * self.count();
                    let row = row + (i * self.positions[1] + j) * self.positions[2];
                    for position in 0..self.positions[2] {
                        let source = &columns[(row + position) * depth + taps..];
                        for run in self.runs(channels, group, position) {
                            let (to, from) = (&mut line[run.image..], &source[run.column..]);
                            for (sum, x) in to[..run.len].iter_mut().zip(&from[..run.len]) {
                                *sum += x;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Where the taps of a window along the last axis of space are in a line of an image and, from the first tap on, in
    /// a row of the columns; taps that lie beside each other in both make one run.
    fn runs(
        &self,
        channels: usize,
        group: usize,
        position: usize,
    ) -> impl Iterator<Item = Run> + use<> {
        let [kernel, stride, dilation] = [self.kernel[2], self.stride[2], self.dilation[2]];
        let (padding, size) = (self.padding[2], self.image[2]);
        let start = position * stride;
        let width = channels / self.groups;
        // The taps `first..last` are inside the image.
        let first = padding.saturating_sub(start).div_ceil(dilation).min(kernel);
        let last = (size + padding)
            .saturating_sub(start)
            .div_ceil(dilation)
            .clamp(first, kernel);
        let merged = self.groups == 1 && dilation == 1;
        let (step, taps) = if merged {
            ((last - first).max(1), last - first)
        } else {
            (1, 1)
        };
        (first..last).step_by(step).map(move |tap| Run {
            column: tap * width,
            image: (start + tap * dilation - padding) * channels + group * width,
            len: taps * width,
        })
    }
}

/// Elements that lie beside each other both in a line of an image and in a row of the columns.
struct Run {
    column: usize,
    image: usize,
    len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<(Windows, usize)> {
        let base = Windows {
            image: [1, 5, 7],
            kernel: [1, 3, 2],
            stride: [1; 3],
            dilation: [1; 3],
            padding: [0; 3],
            positions: [1, 3, 6],
            groups: 1,
        };
        vec![
            (base, 3),
            (
                Windows {
                    padding: [0, 1, 1],
                    positions: [1, 5, 8],
                    ..base
                },
                2,
            ),
            (
                Windows {
                    image: [4, 5, 7],
                    kernel: [2, 3, 3],
                    stride: [2, 1, 3],
                    dilation: [1, 2, 2],
                    padding: [1, 3, 2],
                    positions: [3, 6, 3],
                    groups: 2,
                },
                4,
            ),
            // A window past which there is more padding than a kernel is long.
            (
                Windows {
                    image: [1, 1, 2],
                    kernel: [1, 1, 2],
                    padding: [0, 0, 4],
                    positions: [1, 1, 9],
                    groups: 3,
                    ..base
                },
                6,
            ),
        ]
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + seed) % 101) as f32 - 50.0)
            .collect()
    }

    /// The definition, one element at a time.
    fn element(
        windows: &Windows,
        images: &[f32],
        channels: usize,
        [group, row, depth]: [usize; 3],
    ) -> f32 {
        let per_group = channels / windows.groups;
        let (tap, channel) = (depth / per_group, group * per_group + depth % per_group);
        let [_, k1, k2] = windows.kernel;
        let [_, p1, p2] = windows.positions;
        let (image, window) = (row / windows.count(), row % windows.count());
        let taps = [tap / k2 / k1, tap / k2 % k1, tap % k2];
        let at = [window / p2 / p1, window / p2 % p1, window % p2];
        let mut index = image;
        for axis in 0..3 {
            let place = at[axis] * windows.stride[axis] + taps[axis] * windows.dilation[axis];
            let Some(place) = place.checked_sub(windows.padding[axis]) else {
                return 0.0;
            };
            if place >= windows.image[axis] {
                return 0.0;
            }
            index = index * windows.image[axis] + place;
        }
        images[index * channels + channel]
    }

    #[test]
    fn unfolding_is_its_definition() {
        for (windows, channels) in cases() {
            let batch = 2;
            let images = numbers(
                batch * windows.image.iter().product::<usize>() * channels,
                1,
            );
            let rows = batch * windows.count();
            let depth = windows.taps() * channels / windows.groups;
            let mut columns = vec![f32::NAN; windows.groups * rows * depth];
            windows.unfold(&images, channels, &mut columns);
            for (i, x) in columns.iter().enumerate() {
                let at = [i / depth / rows, i / depth % rows, i % depth];
                assert_eq!(
                    *x,
                    element(&windows, &images, channels, at),
                    "{windows:?} {at:?}"
                );
            }
        }
    }

    #[test]
    fn folding_is_its_adjoint_and_the_same_on_any_number_of_threads() {
        for (windows, channels) in cases() {
            let batch = 3;
            let images = numbers(
                batch * windows.image.iter().product::<usize>() * channels,
                1,
            );
            let depth = windows.taps() * channels / windows.groups;
            let columns = numbers(windows.groups * batch * windows.count() * depth, 5);
            let mut unfolded = vec![0.0; columns.len()];
            windows.unfold(&images, channels, &mut unfolded);
            let folded = [1, 2, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let mut folded = vec![f32::NAN; images.len()];
                let fold = || windows.fold(&columns, channels, &mut folded);
                pool.build().unwrap().install(fold);
                folded
            });
            assert_eq!(folded[0], folded[1]);
            assert_eq!(folded[0], folded[2]);
            // Small whole numbers: both sums are exact.
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert_eq!(dot(&unfolded, &columns), dot(&images, &folded[0]));
        }
    }
}
