//! Ranks that are threads of one process.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use super::Transport;

/// One rank's ends of the channels between all pairs.
pub(super) struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

/// Ranks that are connected to each other.
pub(super) fn connect(ranks: usize) -> Vec<Threads> {
    let mut connected: Vec<Threads> = (0..ranks)
        .map(|rank| Threads {
            rank,
            to: Vec::new(),
            from: Vec::new(),
        })
        .collect();
    for receiver in 0..ranks {
        for sender in 0..ranks {
            let (to, from) = channel();
            connected[sender].to.push(to);
            connected[receiver].from.push(Mutex::new(from));
        }
    }
    connected
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, outgoing: &[&[u8]], incoming: &mut [Vec<u8>]) {
        let (rank, size) = (self.rank, self.size());
        let lost = |other: usize| -> ! {
            panic!("rank {other} of {size} has ended, and rank {rank} cannot go on without it")
        };
        let others = || (0..size).filter(|&other| other != rank);
        for other in others() {
            let sent = self.to[other].send(outgoing[other].to_vec());
            sent.unwrap_or_else(|_| lost(other));
        }
        for other in others() {
            let from = self.from[other]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let received = from.recv().unwrap_or_else(|_| lost(other));
            incoming[other].copy_from_slice(&received);
        }
    }

    fn abort(&self, message: &str) -> ! {
        // Unwinding drops this end of the channels, which ends the others.
        panic!("rank {} of {}: {message}", self.rank, self.size())
    }
}
