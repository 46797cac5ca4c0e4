//! Loops over one line of elements that fall into runs sharing a number: largest magnitudes,
//! divisions and multiplications by scales, on the widest vectors of the machine.

use pulp::Arch;

/// The bit pattern of infinity. Magnitudes compared as bits order NaN above it, so a maximum over
/// bits never drops a NaN.
pub const INFINITY_BITS: u32 = 0x7f80_0000;

#[inline(always)]
fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[inline(always)]
fn largest(xs: &[f32]) -> u32 {
    xs.iter().fold(0, |most, &x| most.max(magnitude_bits(x)))
}

/// The largest magnitude of a slice, as bits.
pub fn amax_bits(xs: &[f32]) -> u32 {
    Arch::new().dispatch(
        #[inline(always)]
        || largest(xs),
    )
}

/// Raises `most[g]` to the largest magnitude of the `g`-th run of `run` elements.
pub fn raise_amax(most: &mut [u32], xs: &[f32], run: usize) {
    #[inline(always)]
    fn fixed<const N: usize>(most: &mut [u32], xs: &[f32]) {
        let (runs, rest) = xs.as_chunks::<N>();
        let (whole, last) = most.split_at_mut(runs.len());
        for (most, xs) in whole.iter_mut().zip(runs) {
            *most = (*most).max(largest(xs));
        }
        if let Some(last) = last.first_mut() {
            *last = (*last).max(largest(rest));
        }
    }
    Arch::new().dispatch(
        #[inline(always)]
        || match run {
            1 => {
                for (most, &x) in most.iter_mut().zip(xs) {
                    *most = (*most).max(magnitude_bits(x));
                }
            }
            16 => fixed::<16>(most, xs),
            32 => fixed::<32>(most, xs),
            64 => fixed::<64>(most, xs),
            128 => fixed::<128>(most, xs),
            _ => {
                for (most, xs) in most.iter_mut().zip(xs.chunks(run)) {
                    *most = (*most).max(largest(xs));
                }
            }
        },
    )
}

macro_rules! by_scale {
    ($(#[$doc:meta])* $name:ident, $assign:tt) => {
        $(#[$doc])*
        pub fn $name(xs: &mut [f32], scales: &[f32], run: usize) {
            #[inline(always)]
            fn all(xs: &mut [f32], scale: f32) {
                for x in xs {
                    *x $assign scale;
                }
            }
            #[inline(always)]
            fn fixed<const N: usize>(xs: &mut [f32], scales: &[f32]) {
                let (runs, rest) = xs.as_chunks_mut::<N>();
                let (whole, last) = scales.split_at(runs.len());
                for (xs, &scale) in runs.iter_mut().zip(whole) {
                    all(xs, scale);
                }
                if let Some(&scale) = last.first() {
                    all(rest, scale);
                }
            }
            Arch::new().dispatch(
                #[inline(always)]
                || match run {
                    1 => {
                        for (x, scale) in xs.iter_mut().zip(scales) {
                            *x $assign *scale;
                        }
                    }
                    16 => fixed::<16>(xs, scales),
                    32 => fixed::<32>(xs, scales),
                    64 => fixed::<64>(xs, scales),
                    128 => fixed::<128>(xs, scales),
                    _ => {
                        for (xs, &scale) in xs.chunks_mut(run).zip(scales) {
                            all(xs, scale);
                        }
                    }
                },
            )
        }
    };
}

by_scale!(
    /// Divides the `g`-th run of `run` elements by `scales[g]`.
    divide, /=
);
by_scale!(
    /// Multiplies the `g`-th run of `run` elements by `scales[g]`.
    multiply, *=
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_length_cover_the_line() {
        let xs: Vec<f32> = (0..150i16).map(|i| f32::from(i - 75) * 0.37).collect();
        for run in [1, 3, 16, 32, 64, 128, 149, 150, 1000] {
            let groups = xs.len().div_ceil(run);
            let mut most = vec![0; groups];
            raise_amax(&mut most, &xs, run);
            let scales: Vec<f32> = (0..groups).map(|g| 1.5 + g as f32).collect();
            let (mut quotients, mut products) = (xs.clone(), xs.clone());
            divide(&mut quotients, &scales, run);
            multiply(&mut products, &scales, run);
            for (g, chunk) in xs.chunks(run).enumerate() {
                let amax = chunk.iter().fold(0f32, |most, x| most.max(x.abs()));
                assert_eq!(f32::from_bits(most[g]), amax, "run {run}");
            }
            for (i, x) in xs.iter().enumerate() {
                assert_eq!(quotients[i], x / scales[i / run]);
                assert_eq!(products[i], x * scales[i / run]);
            }
        }
    }

    #[test]
    fn a_nan_is_the_largest() {
        let xs = [1.0, f32::NAN, f32::INFINITY, -f32::NAN, 2.0];
        assert!(amax_bits(&xs) > INFINITY_BITS);
        assert_eq!(amax_bits(&[1.0, f32::NEG_INFINITY]), INFINITY_BITS);
        assert_eq!(amax_bits(&[]), 0);
        assert_eq!(amax_bits(&[-0.0]), 0);
    }
}
