//! Ranks that are processes started by MPI, on one machine or several.
//!
//! Every call of the MPI library is made under one lock, messages are sent and received without blocking in it, and a
//! thread lets the other ranks hear a heartbeat, however long this one computes. So a rank that waits can tell one that
//! is slow from one that is gone.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::request;
use mpi::traits::{Communicator, Destination, Source};
use mpi::{Rank, Tag, Threading};

use super::{Transport, WorldError};

const MESSAGE: Tag = 1;
const HEARTBEAT: Tag = 2;
const FAREWELL: Tag = 3;

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// The silence after which a rank is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a message may still be on its way when its sender has said farewell.
const GRACE: Duration = Duration::from_secs(5);

/// This process among those that were started together.
pub(super) struct Mpi {
    shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

struct Shared {
    /// Finalizes MPI when it is dropped.
    universe: Mutex<Universe>,
    rank: usize,
    size: usize,
    is_leaving: AtomicBool,
}

impl Mpi {
    /// Joins the processes that were started together.
    pub(super) fn join() -> Result<Self, WorldError> {
        let (universe, support) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or(WorldError::JoinedBefore)?;
        if support < Threading::Serialized {
            return Err(WorldError::NoThreads);
        }
        let world = universe.world();
        let shared = Arc::new(Shared {
            rank: world.rank() as usize,
            size: world.size() as usize,
            universe: Mutex::new(universe),
            is_leaving: AtomicBool::new(false),
        });
        let beating = shared.clone();
        let heart = thread::spawn(move || beating.beat());
        Ok(Self {
            shared,
            heart: Some(heart),
        })
    }
}

impl Shared {
    fn universe(&self) -> MutexGuard<'_, Universe> {
        self.universe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let rank = self.rank;
        (0..self.size).filter(move |&other| other != rank)
    }

    /// Sends heartbeats and listens to those of the others until this rank leaves.
    fn beat(&self) {
        let mut heard = vec![Instant::now(); self.size];
        let mut last = Instant::now();
        while !self.is_leaving.load(Ordering::Relaxed) {
            // After a pause of this whole process, silence says nothing about the others.
            if last.elapsed() > 5 * BEAT {
                heard.fill(Instant::now());
            }
            last = Instant::now();
            let universe = self.universe();
            let world = universe.world();
            for other in self.others() {
                let process = world.process_at_rank(other as Rank);
                process.send_with_tag(&0u8, HEARTBEAT);
                while process.immediate_probe_with_tag(HEARTBEAT).is_some() {
                    process.receive_with_tag::<u8>(HEARTBEAT);
                    heard[other] = Instant::now();
                }
                if heard[other].elapsed() > PATIENCE {
                    let seconds = PATIENCE.as_secs();
                    self.end(
                        &universe,
                        &format!("no sign of life from rank {other} for {seconds} seconds"),
                    );
                }
            }
            drop(universe);
            thread::park_timeout(BEAT);
        }
    }

    /// Ends all ranks.
    fn end(&self, universe: &Universe, message: &str) -> ! {
        let (rank, size) = (self.rank, self.size);
        // ignored: nobody is left to tell
        let _ = writeln!(
            std::io::stderr(),
            "error: rank {rank} of {size} ends all: {message}"
        );
        universe.world().abort(1)
    }

    /// Sends and receives messages with `tag` until all are through.
    fn exchange(&self, tag: Tag, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]) {
        request::scope(|scope| {
            let mut waiting = Vec::new();
            {
                let universe = self.universe();
                let world = universe.world();
                let messages = outgoing.iter().zip(incoming).enumerate();
                for (other, (sent, received)) in messages.filter(|(rank, _)| *rank != self.rank) {
                    let process = world.process_at_rank(other as Rank);
                    let receiving =
                        process.immediate_receive_into_with_tag(scope, &mut received[..], tag);
                    let sending = process.immediate_send_with_tag(scope, *sent, tag);
                    waiting.extend([(other, receiving), (other, sending)]);
                }
            }
            let started = Instant::now();
            let mut farewell: Option<Instant> = None;
            let mut polls = 0u64;
            loop {
                let universe = self.universe();
                waiting = waiting
                    .into_iter()
                    .filter_map(|(other, request)| Some((other, request.test().err()?)))
                    .collect();
                let Some((other, _)) = waiting.first() else {
                    return;
                };
                polls += 1;
                if tag == MESSAGE && polls.is_multiple_of(64) {
                    let world = universe.world();
                    let process = world.process_at_rank(*other as Rank);
                    if process.immediate_probe_with_tag(FAREWELL).is_some() {
                        let since = farewell.get_or_insert_with(Instant::now).elapsed();
                        if since > GRACE {
                            self.end(
                                &universe,
                                &format!("rank {other} has ended before the work was done"),
                            );
                        }
                    }
                }
                drop(universe);
                // Others may need this core: ranks often share one machine.
                if started.elapsed() < Duration::from_micros(50) {
                    thread::yield_now();
                } else {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.shared.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn exchange(&self, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]) {
        self.shared.exchange(MESSAGE, outgoing, incoming);
    }

    fn abort(&self, message: &str) -> ! {
        self.shared.end(&self.shared.universe(), message)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if thread::panicking() {
            self.abort("it panicked");
        }
        // The heart beats until all are here: one that is done early must not look dead.
        let size = self.shared.size;
        self.shared
            .exchange(FAREWELL, &vec![&[][..]; size], &mut vec![vec![]; size]);
        self.shared.is_leaving.store(true, Ordering::Relaxed);
        if let Some(heart) = self.heart.take() {
            heart.thread().unpark();
            // ignored: it panics only if a lock of ours is broken, and then there is nothing to wait for
            let _ = heart.join();
        }
    }
}
