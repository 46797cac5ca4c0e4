//! Cells moved between lines along one axis and lines along the other, and codes gathered into cells.

use pulp::{Arch, Simd, WithSimd};

/// Side of the square blocks that are moved at once.
const BLOCK: usize = 8;

/// Writes `out[e * out_stride + l] = lines[l * stride + e]` for `count` lines of `len` cells.
pub fn transpose(
    out: &mut [u32],
    out_stride: usize,
    lines: &[u32],
    stride: usize,
    [count, len]: [usize; 2],
) {
    if count == 0 || len == 0 {
        return;
    }
    assert!((count - 1) * stride + len <= lines.len());
    assert!((len - 1) * out_stride + count <= out.len());
    let [whole_count, whole_len] = [count, len].map(|n| n / BLOCK * BLOCK);
    for l in (0..whole_count).step_by(BLOCK) {
        for e in (0..whole_len).step_by(BLOCK) {
            let from = &lines[l * stride + e..][..(BLOCK - 1) * stride + BLOCK];
            let to = &mut out[e * out_stride + l..][..(BLOCK - 1) * out_stride + BLOCK];
            block(to, out_stride, from, stride);
        }
    }
    let mut rest = |lines_of: std::ops::Range<usize>, elements: std::ops::Range<usize>| {
        for l in lines_of {
            for e in elements.clone() {
                out[e * out_stride + l] = lines[l * stride + e];
            }
        }
    };
    rest(0..whole_count, whole_len..len);
    rest(whole_count..count, 0..len);
}

#[cfg(target_arch = "x86_64")]
fn block(out: &mut [u32], out_stride: usize, lines: &[u32], stride: usize) {
    if is_x86_feature_detected!("avx") {
        // SAFETY: the instructions exist, and the caller's slices hold the last line's last cell.
        unsafe { avx_block(out.as_mut_ptr(), out_stride, lines.as_ptr(), stride) }
    } else {
        portable_block(out, out_stride, lines, stride);
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable_block as block;

fn portable_block(out: &mut [u32], out_stride: usize, lines: &[u32], stride: usize) {
    for l in 0..BLOCK {
        for e in 0..BLOCK {
            out[e * out_stride + l] = lines[l * stride + e];
        }
    }
}

/// Pairs of half lines are loaded side by side, so that what is left is to transpose 4 x 4 cells in
/// each half of the registers.
///
/// # Safety
/// AVX exists; both pointers are valid for eight lines of eight cells.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn avx_block(out: *mut u32, out_stride: usize, lines: *const u32, stride: usize) {
    use core::arch::x86_64::*;
    // SAFETY: the caller's.
    unsafe {
        let half = |l: usize, e: usize| _mm_loadu_ps(lines.add(l * stride + e).cast());
        for e in [0, 4] {
            let pair = |l: usize| _mm256_set_m128(half(l + 4, e), half(l, e));
            let [a, b, c, d] = [pair(0), pair(1), pair(2), pair(3)];
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let columns = [
                _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
                _mm256_shuffle_ps::<0xee>(ab_low, cd_low),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(out.add((e + i) * out_stride).cast(), column);
            }
        }
    }
}

/// Gathers the codes at the same place of four lines into a cell.
pub fn zip(out: &mut [u32], lines: [&[u8]; 4]) {
    let len = out.len();
    let [a, b, c, d] = lines.map(|line| &line[..len]);
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    while done + 16 <= len {
        use core::arch::x86_64::*;
        // SAFETY: SSE2 is part of the architecture, and every line has 16 more codes, `out` 16 more cells.
        unsafe {
            let [a, b, c, d] =
                [a, b, c, d].map(|line| _mm_loadu_si128(line.as_ptr().add(done).cast()));
            let [ab, cd] = [_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d)];
            let [ab_high, cd_high] = [_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d)];
            let cells = [
                _mm_unpacklo_epi16(ab, cd),
                _mm_unpackhi_epi16(ab, cd),
                _mm_unpacklo_epi16(ab_high, cd_high),
                _mm_unpackhi_epi16(ab_high, cd_high),
            ];
            for (i, cells) in cells.into_iter().enumerate() {
                _mm_storeu_si128(out.as_mut_ptr().add(done + 4 * i).cast(), cells);
            }
        }
        done += 16;
    }
    for i in done..len {
        out[i] = u32::from_le_bytes([a[i], b[i], c[i], d[i]]);
    }
}

/// Adds to each of `sums` the four codes of its cell in every line of cells.
pub fn add_codes(sums: &mut [i32], cells: &[u32]) {
    struct Add<'a> {
        sums: &'a mut [i32],
        cells: &'a [u32],
    }

    impl WithSimd for Add<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for line in self.cells.chunks_exact(self.sums.len()) {
                for (sum, &cell) in self.sums.iter_mut().zip(line) {
                    let code = |shift: u32| ((cell << shift) as i32) >> 24;
                    *sum += code(24) + code(16) + code(8) + code(0);
                }
            }
        }
    }

    Arch::new().dispatch(Add { sums, cells });
}

/// Offsets the codes of all cells by 128, which makes them unsigned.
pub fn offset(cells: &mut [u32]) {
    for cell in cells {
        *cell ^= 0x8080_8080;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_covers_ragged_blocks() {
        let lines: Vec<u32> = (0..40 * 70).collect();
        for [count, len, stride, out_stride] in [
            [1, 1, 1, 1],
            [8, 8, 8, 8],
            [16, 64, 70, 32],
            [17, 33, 40, 20],
            [3, 70, 70, 5],
            [30, 5, 70, 31],
        ] {
            let mut out = vec![u32::MAX; len * out_stride];
            transpose(&mut out, out_stride, &lines, stride, [count, len]);
            for (at, x) in out.iter().enumerate() {
                let (e, l) = (at / out_stride, at % out_stride);
                let expected = if l < count {
                    lines[l * stride + e]
                } else {
                    u32::MAX
                };
                assert_eq!(*x, expected, "{count} x {len} at {at}");
            }
        }
    }

    #[test]
    fn both_ways_to_move_a_block_agree() {
        let lines: Vec<u32> = (0..200).map(|i| i * 2_654_435_761 % 1_000_003).collect();
        let (mut found, mut expected) = (vec![0; 200], vec![0; 200]);
        block(&mut found, 20, &lines, 11);
        portable_block(&mut expected, 20, &lines, 11);
        assert_eq!(found, expected);
    }

    #[test]
    fn codes_are_summed_with_their_signs() {
        let lines: Vec<Vec<u8>> = (0..4)
            .map(|l| (0..99).map(|i| (i * 7 + l * 50) as u8).collect())
            .collect();
        let mut cells = vec![0; 99];
        zip(&mut cells, [&lines[0], &lines[1], &lines[2], &lines[3]]);
        let mut sums = vec![5; 33];
        add_codes(&mut sums, &cells);
        for (column, sum) in sums.iter().enumerate() {
            let codes = lines
                .iter()
                .flat_map(|line| line.iter().skip(column).step_by(33));
            assert_eq!(
                *sum,
                5 + codes.map(|code| i32::from(*code as i8)).sum::<i32>()
            );
        }
    }
}
