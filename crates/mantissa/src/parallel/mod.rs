//! Data parallel training: the ranks of a world each compute a share of every batch, and update alike.
//!
//! Every rank has the whole model. It computes the loss of its own rows, weighted so that the ranks' losses add up to
//! that of the whole batch; gradients are added up between the backward pass and the update, always in the order of the
//! ranks; and then every rank decides and updates from the same bits.
//!
//! | type | what it answers |
//! |---|---|
//! | [`World`] | who the ranks are, and what they tell each other |
//! | [`Share`] | which rows of a batch are this rank's |
//! | [`Wire`] | in which format gradients travel |
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use mantissa::optimizer::{AdamWConfig, MasterOptimizer};
//! use mantissa::parallel::{Wire, World};
//! use mantissa::plan::{Plan, Recipe};
//! use mantissa::{LossScaler, Session, nn};
//!
//! // One of the ranks that `mpirun` started, or alone.
//! let world = World::from_environment()?;
//! let device = Device::flex().autodiff();
//! device.seed(42); // the same weights on every rank
//! let mut model = nn::LinearConfig::new(8, 4).init(&device);
//! let plan = Plan::from_recipe(&Recipe::preset("bf16")?, &mantissa::sites(&model))?;
//!
//! let session = Session::bind(&model, &plan, 42)?;
//! session.join(&world, Wire::F32);
//! let mut scaler = LossScaler::for_plan(&plan);
//! let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
//! let batch = Tensor::<2>::ones([16, 8], &device);
//!
//! session.begin_step(0);
//! let share = session.share(16)?;
//! let rows = batch.slice(share.rows());
//! let loss = session.autocast(|| share.part(model.forward(rows).powf_scalar(2.0).mean()));
//! let gradients = scaler.scale(loss).backward();
//! let step = optimizer.step(1e-3, &mut model, gradients, &mut scaler);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agreement;
#[cfg(feature = "mpi")]
mod mpi;
mod share;
mod sum;
mod threads;
mod wire;

use std::fmt;
use std::sync::Arc;

use crate::session::Fnv;

pub use agreement::{Disagreement, Fact, fingerprint};
pub use share::{Share, ShareError};
pub(crate) use sum::Sum;
pub use wire::{UnknownWire, Wire};

/// How the bytes of one rank come to the others.
///
/// Functions return only when all ranks took part. A rank that cannot reach another ends with an error, and with it the
/// world: there is nothing to go on with.
trait Transport: Send + Sync {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Sends `outgoing[i]` to rank `i` and fills `incoming[i]` with what that rank sends; a rank's own are left alone.
    /// The lengths are those that the sender knows too.
    fn exchange(&self, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]);

    /// Ends all ranks with this message.
    fn abort(&self, message: &str) -> !;
}

/// The ranks that train one model together, as one of them sees it. Clones are the same world.
///
/// All ranks call its functions in the same order. If one ends before the others are done with it, they end too, with an
/// error: a process does when `mpirun` or its own heartbeats notice it (within a minute), a thread of
/// [`threads`](World::threads) panics.
#[derive(Clone)]
pub struct World {
    /// `None` for one rank alone.
    transport: Option<Arc<dyn Transport>>,
}

/// A world that cannot be joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// A launcher started several processes of a program that does not know MPI; each would train on its own.
    #[error(
        "{ranks} processes were started together, but this program was built without MPI; build it with `--features mpi`, \
         or start it once"
    )]
    NoMpi {
        /// How many were started.
        ranks: usize,
    },
    /// MPI is in use already.
    #[error("MPI was initialized before; join the world once and clone it")]
    JoinedBefore,
    /// The MPI library cannot be used by more than one thread.
    #[error(
        "the MPI library of this machine allows calls from one thread only; use one built with thread support"
    )]
    NoThreads,
}

impl World {
    /// A single rank.
    pub fn alone() -> Self {
        Self { transport: None }
    }

    /// Ranks that are threads of this process: give one to each, with a model of its own. Clones of one model will not do:
    /// in Burn they are one graph, of which one thread at a time computes gradients, while each waits in its backward pass
    /// for what the others find.
    ///
    /// # Panics
    /// If there are none.
    pub fn threads(ranks: usize) -> Vec<Self> {
        assert!(ranks > 0, "a world has at least one rank");
        threads::connect(ranks)
            .into_iter()
            .map(|transport| Self {
                transport: Some(Arc::new(transport)),
            })
            .collect()
    }

    /// The world that a launcher of MPI programs (`mpirun`, `srun`) started this process in; otherwise the process is
    /// [alone](World::alone).
    ///
    /// # Errors
    /// If several processes were started together and this program was built without the feature `mpi`, or if MPI
    /// refuses.
    pub fn from_environment() -> Result<Self, WorldError> {
        let Some(ranks) = launched_ranks() else {
            return Ok(Self::alone());
        };
        #[cfg(feature = "mpi")]
        {
            let _ = ranks;
            Ok(Self {
                transport: Some(Arc::new(mpi::Mpi::join()?)),
            })
        }
        #[cfg(not(feature = "mpi"))]
        if ranks > 1 {
            Err(WorldError::NoMpi { ranks })
        } else {
            Ok(Self::alone())
        }
    }

    /// This rank's number, from 0.
    pub fn rank(&self) -> usize {
        self.transport
            .as_ref()
            .map_or(0, |transport| transport.rank())
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.transport
            .as_ref()
            .map_or(1, |transport| transport.size())
    }

    /// Whether this is rank 0, which writes what is written once.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits until all ranks are here.
    pub fn wait(&self) {
        self.gather(&[]);
    }

    /// What every rank says, by rank. The messages may differ in length.
    pub fn gather(&self, message: &[u8]) -> Vec<Vec<u8>> {
        let length = (message.len() as u64).to_le_bytes();
        let mut lengths = vec![vec![0; length.len()]; self.size()];
        self.exchange(&vec![&length[..]; self.size()], &mut lengths);
        let mut messages: Vec<Vec<u8>> = lengths
            .iter()
            .map(|bytes| {
                let length = bytes.as_slice().try_into().expect("8 bytes were asked for");
                vec![0; u64::from_le_bytes(length) as usize]
            })
            .collect();
        self.exchange(&vec![message; self.size()], &mut messages);
        messages
    }

    /// The largest value of any rank, element by element. NaN counts as infinite: a reduction that ignored it would
    /// let some ranks take for finite what is not.
    ///
    /// # Panics
    /// If the ranks' lengths differ.
    pub fn max(&self, values: &mut [f32]) {
        self.max_of("values", values);
    }

    /// [`max`](Self::max) of what has this name on all ranks; ends them with an error if it has another on some.
    pub(crate) fn max_of(&self, name: &str, values: &mut [f32]) {
        for value in values.iter_mut() {
            if value.is_nan() {
                *value = f32::INFINITY;
            }
        }
        let mut mark = Fnv::default();
        mark.write(name.as_bytes());
        let mut message = mark.value().to_le_bytes().to_vec();
        message.extend(bytes(values));
        // One message each way: all ranks know its length.
        let mut messages = vec![vec![0; message.len()]; self.size()];
        self.exchange(&vec![&message[..]; self.size()], &mut messages);
        for (rank, theirs) in messages.iter().enumerate() {
            let (mark, theirs) = theirs.split_at(8);
            if mark != &message[..8] {
                self.abort(&format!(
                    "rank {rank} and rank {} do not compute the same at the same time: the largest magnitude of {name} is that \
                     of all ranks, which all have to compute it in the same order",
                    self.rank()
                ));
            }
            for (value, theirs) in values.iter_mut().zip(floats(theirs)) {
                *value = value.max(theirs);
            }
        }
    }

    /// Replaces finite tensors by their sums over all ranks, added up in the order of the ranks: the same bits on each.
    /// [`MasterOptimizer`](crate::MasterOptimizer) does it for gradients. `seed` and `step` decide the random bits of a
    /// [`Wire`] that rounds stochastically.
    ///
    /// All ranks have tensors of the same lengths in the same order.
    pub fn add_up(&self, tensors: &mut [&mut [f32]], wire: Wire, seed: u64, step: u64) {
        let sum = Sum {
            world: self,
            wire,
            seed,
            step,
        };
        sum.add_up(tensors);
    }

    /// Ends all ranks with an error. Only one that fails alone needs to call it: where all fail alike, each may return.
    pub fn abort(&self, message: &str) -> ! {
        match &self.transport {
            Some(transport) => transport.abort(message),
            None => panic!("{message}"),
        }
    }

    /// Sends `outgoing[i]` to rank `i`, and fills `incoming[i]` with what that rank sends here.
    fn exchange(&self, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]) {
        let own = self.rank();
        incoming[own].copy_from_slice(outgoing[own]);
        if let Some(transport) = &self.transport {
            transport.exchange(outgoing, incoming);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("rank", &self.rank())
            .field("size", &self.size())
            .finish()
    }
}

/// How many processes were started together, as launchers tell them; `None` for one that was started by itself.
fn launched_ranks() -> Option<usize> {
    // Open MPI; MPICH, Intel MPI and Slurm's PMI.
    ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// The bytes of f32s.
fn bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * values.len()];
    for (bytes, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = x.to_le_bytes();
    }
    bytes
}

/// The f32s in bytes.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (elements, _) = bytes.as_chunks::<4>();
    elements.iter().map(|&element| f32::from_le_bytes(element))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What `f` returns on each of `ranks` ranks.
    pub(super) fn on_ranks<T: Send>(ranks: usize, f: impl Fn(World) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let running: Vec<_> = World::threads(ranks)
                .into_iter()
                .map(|world| scope.spawn(|| f(world)))
                .collect();
            running
                .into_iter()
                .map(|rank| rank.join().expect("no rank panics"))
                .collect()
        })
    }

    #[test]
    fn every_rank_hears_all_in_order() {
        let heard = on_ranks(3, |world| {
            let message = vec![world.rank() as u8; world.rank()];
            world.gather(&message)
        });
        assert_eq!(heard, vec![vec![vec![], vec![1], vec![2, 2]]; 3]);
    }

    #[test]
    fn nan_counts_as_infinite() {
        let values = [[1.0, 2.0, -3.0], [f32::NAN, 1.0, -4.0]];
        let largest = on_ranks(2, |world| {
            let mut values = values[world.rank()];
            world.max(&mut values);
            values
        });
        assert_eq!(largest, [[f32::INFINITY, 2.0, -3.0]; 2]);
    }

    #[test]
    fn one_rank_is_a_world() {
        let world = World::alone();
        assert_eq!((world.rank(), world.size()), (0, 1));
        assert_eq!(world.gather(b"here"), [b"here"]);
        world.wait();
    }

    #[test]
    fn the_others_end_when_a_rank_does() {
        let mut worlds = World::threads(3);
        let ended = worlds.remove(1);
        let waiting: Vec<_> = worlds
            .into_iter()
            .map(|world| thread::spawn(move || world.wait()))
            .collect();
        drop(ended);
        for rank in waiting {
            let panic = rank.join().expect_err("a rank is missing");
            let message = panic.downcast_ref::<String>().expect("a message");
            assert!(
                message.contains("rank") && message.contains("ended"),
                "{message}"
            );
        }
    }
}
