//! Sums over ranks.
//!
//! Each rank adds up one part of every bucket, in the order of the ranks, and tells the others; what it computed itself
//! it takes from the wire too. So all ranks have the same bits, and twice the tensors' bytes cross each rank's wire,
//! however many ranks there are.

use mantissa_formats::RandomBits;
use mantissa_kernels::reduce::scan;

use super::{Wire, World};
use crate::session::Fnv;

/// Elements that travel together: 4 MiB in f32.
const BUCKET: usize = 1 << 20;

/// Adds up tensors over the ranks of a world.
pub(crate) struct Sum<'a> {
    pub(crate) world: &'a World,
    pub(crate) wire: Wire,
    /// Of the random bits of stochastic rounding.
    pub(crate) seed: u64,
    pub(crate) step: u64,
}

/// One of the two ways.
#[derive(Clone, Copy)]
enum Leg {
    There,
    Back,
}

impl Sum<'_> {
    /// Replaces finite tensors by their sums over all ranks, whose tensors have the same lengths in the same order.
    pub(crate) fn add_up(&self, tensors: &mut [&mut [f32]]) {
        if self.world.size() == 1 {
            return;
        }
        let factors = self.factors(tensors);
        let total: usize = tensors.iter().map(|tensor| tensor.len()).sum();
        let mut bucket = vec![0.0; total.min(BUCKET)];
        for start in (0..total).step_by(BUCKET) {
            let bucket = &mut bucket[..BUCKET.min(total - start)];
            for_pieces(tensors, start, bucket, |tensor, values, bucket| {
                for (value, out) in values.iter().zip(bucket) {
                    *out = value * factors[tensor];
                }
            });
            self.add_up_bucket(start, bucket);
            for_pieces(tensors, start, bucket, |tensor, values, bucket| {
                let back = factors[tensor].recip();
                for (value, sum) in values.iter_mut().zip(bucket) {
                    *value = *sum * back;
                }
            });
        }
    }

    /// What each tensor is multiplied with on the wire, on all ranks alike.
    fn factors(&self, tensors: &[&mut [f32]]) -> Vec<f32> {
        if self.wire != Wire::E4m3 {
            return vec![1.0; tensors.len()];
        }
        let mut amax: Vec<f32> = tensors.iter().map(|tensor| scan(tensor).amax).collect();
        self.world.max(&mut amax);
        amax.into_iter()
            .map(|amax| self.wire.factor(amax))
            .collect()
    }

    fn add_up_bucket(&self, start: usize, values: &mut [f32]) {
        let (rank, ranks) = (self.world.rank(), self.world.size());
        let part = |rank: usize| rank * values.len() / ranks..(rank + 1) * values.len() / ranks;
        let parts: Vec<_> = (0..ranks).map(part).collect();
        let own = parts[rank].clone();
        let index = |at: usize| (start + at) as u64;

        let random = self.random(Leg::There);
        let outgoing: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| {
                self.wire
                    .encode(random, index(part.start), &values[part.clone()])
            })
            .collect();
        let mut incoming = vec![vec![0; own.len() * self.wire.bytes()]; ranks];
        self.exchange(
            &outgoing.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            &mut incoming,
        );

        let mut sum = vec![0.0; own.len()];
        let mut theirs = vec![0.0; own.len()];
        for bytes in &incoming {
            self.wire.decode(bytes, &mut theirs);
            for (sum, theirs) in sum.iter_mut().zip(&theirs) {
                *sum += theirs;
            }
        }
        let factor = self.wire.sum_factor(ranks);
        if factor != 1.0 {
            sum.iter_mut().for_each(|sum| *sum *= factor);
        }
        let random = self.random(Leg::Back);
        let outgoing = self.wire.encode(random, index(own.start), &sum);
        let mut incoming: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| vec![0; part.len() * self.wire.bytes()])
            .collect();
        self.exchange(&vec![outgoing.as_slice(); ranks], &mut incoming);
        for (part, bytes) in parts.into_iter().zip(&incoming) {
            let values = &mut values[part];
            self.wire.decode(bytes, values);
            if factor != 1.0 {
                values.iter_mut().for_each(|value| *value /= factor);
            }
        }
    }

    fn exchange(&self, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]) {
        self.world.exchange(outgoing, incoming);
    }

    /// The random bits of a leg: on the way there each rank's own, so that their errors are independent.
    fn random(&self, leg: Leg) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&self.step.to_le_bytes());
        match leg {
            Leg::There => {
                stream.write(b"gradients");
                stream.write(&(self.world.rank() as u64).to_le_bytes());
            }
            Leg::Back => stream.write(b"sum of gradients"),
        }
        RandomBits::new(self.seed, stream.value())
    }
}

/// Calls `visit` with the number of each tensor that has elements in the bucket which begins at element `start` of all
/// tensors one after the other, with those elements and their places in the bucket.
fn for_pieces(
    tensors: &mut [&mut [f32]],
    start: usize,
    bucket: &mut [f32],
    mut visit: impl FnMut(usize, &mut [f32], &mut [f32]),
) {
    let end = start + bucket.len();
    let mut first = 0;
    for (number, tensor) in tensors.iter_mut().enumerate() {
        let last = first + tensor.len();
        let (from, to) = (first.max(start), last.min(end));
        if from < to {
            let values = &mut tensor[from - first..to - first];
            visit(number, values, &mut bucket[from - start..to - start]);
        }
        first = last;
    }
}

#[cfg(test)]
mod tests {
    use mantissa_formats::RandomBits;

    use super::super::tests::on_ranks;
    use super::*;

    fn summed(
        ranks: usize,
        wire: Wire,
        step: u64,
        tensors: &[Vec<Vec<f32>>],
    ) -> Vec<Vec<Vec<f32>>> {
        on_ranks(ranks, |world| {
            let mut tensors = tensors[world.rank()].clone();
            let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
            let sum = Sum {
                world: &world,
                wire,
                seed: 7,
                step,
            };
            sum.add_up(&mut slices);
            tensors
        })
    }

    /// Tensors of these lengths for each rank, of magnitudes around `10^-tensor`.
    fn drawn(ranks: usize, lengths: &[usize]) -> Vec<Vec<Vec<f32>>> {
        let value = |rank, tensor: usize, i: usize| {
            let bits = RandomBits::new(rank as u64, tensor as u64).at(i as u64);
            (f64::from(bits) / f64::from(u32::MAX) - 0.5) as f32 * 10f32.powi(-(tensor as i32))
        };
        (0..ranks)
            .map(|rank| {
                let tensors = lengths.iter().enumerate();
                tensors
                    .map(|(tensor, &len)| (0..len).map(|i| value(rank, tensor, i)).collect())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn sums_are_those_of_a_loop_over_ranks_on_every_rank() {
        // More than a bucket, and parts that ranks share unevenly.
        let lengths = [5, BUCKET - 3, 1, 0, 1001];
        for ranks in [1, 2, 3] {
            let tensors = drawn(ranks, &lengths);
            let mut expected = tensors[0].clone();
            for theirs in &tensors[1..] {
                for (sum, theirs) in expected.iter_mut().flatten().zip(theirs.iter().flatten()) {
                    *sum += theirs;
                }
            }
            for rank in summed(ranks, Wire::F32, 0, &tensors) {
                assert!(rank == expected, "{ranks} ranks");
            }
        }
    }

    #[test]
    fn narrow_wires_round_within_their_precision_and_alike_on_every_rank() {
        let tensors = drawn(3, &[40, 2000, 3]);
        let exact = &summed(3, Wire::F32, 0, &tensors)[0];
        // Half a unit of bf16 (2^-9), and a whole one of E4M3 (2^-3), for each of three summands and for the sum.
        for (wire, relative) in [
            (Wire::Bf16, 4.0 * 2f32.powi(-9)),
            (Wire::E4m3, 4.0 * 2f32.powi(-3)),
        ] {
            let ranks = summed(3, wire, 0, &tensors);
            assert!(ranks[0] == ranks[1] && ranks[0] == ranks[2], "{wire}");
            assert!(ranks[0] != *exact, "{wire} rounds");
            for (sums, exact) in ranks[0].iter().zip(exact) {
                let amax = tensors[0][0].len().min(1) as f32
                    * exact.iter().fold(0f32, |amax, x| amax.max(x.abs()));
                for (sum, exact) in sums.iter().zip(exact) {
                    assert!(
                        (sum - exact).abs() <= relative * amax,
                        "{wire}: {sum} for {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn e4m3_keeps_small_gradients_on_average() {
        // A millionth of the largest: nearest rounding would make zeros of them.
        let small = 1e-6;
        let tensors = vec![vec![[vec![1.0], vec![small; 4000]].concat()]; 2];
        let sums: Vec<f64> = (0..20)
            .map(|step| {
                let rank = &summed(2, Wire::E4m3, step, &tensors)[0][0];
                rank[1..].iter().copied().map(f64::from).sum::<f64>() / 4000.0
            })
            .collect();
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        assert!(
            (mean / (2.0 * f64::from(small)) - 1.0).abs() < 0.2,
            "{mean}"
        );
        assert!(
            sums.iter().any(|sum| *sum != sums[0]),
            "steps draw their own bits"
        );
    }

    #[test]
    fn large_sums_do_not_overflow_on_the_wire() {
        let tensors = vec![vec![vec![448.0, -448.0, 3.0]]; 3];
        let sums = &summed(3, Wire::E4m3, 0, &tensors)[0][0];
        assert!(
            (sums[0] - 1344.0).abs() <= 128.0 && (sums[1] + 1344.0).abs() <= 128.0,
            "{sums:?}"
        );
    }
}
