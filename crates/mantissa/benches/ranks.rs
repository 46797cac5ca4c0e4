//! Adding gradients up over ranks, which are threads here: as a ratio to copying the bytes that cross a rank's wire.
//!
//! ```sh
//! cargo bench --workspace --bench ranks
//! ```

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use mantissa::World;
use mantissa::parallel::Wire;

/// Gradients of a network of eight million parameters.
const ELEMENTS: usize = 8 << 20;
const ROUNDS: u64 = 5;

fn main() {
    println!("{ELEMENTS} elements, the shortest of {ROUNDS} rounds");
    println!("ranks  wire        ms    ratio to a copy of the bytes sent and received");
    for ranks in [2, 4] {
        for wire in [Wire::F32, Wire::Bf16, Wire::E4m3] {
            let took = adding_up(ranks, wire);
            // There and back, all but the rank's own part.
            let bytes = 2 * ELEMENTS * wire.bytes() * (ranks - 1) / ranks;
            let limit = copying(2 * bytes);
            let ratio = took.as_secs_f64() / limit.as_secs_f64();
            println!(
                "{ranks:>5}  {:<5} {:>8.1} {ratio:>8.1}",
                wire.to_string(),
                1e3 * took.as_secs_f64()
            );
        }
    }
}

/// The shortest time that the first of `ranks` takes.
fn adding_up(ranks: usize, wire: Wire) -> Duration {
    let rank = |world: World| {
        let mut gradients: Vec<f32> = (0..ELEMENTS).map(|i| (i as f32).sin()).collect();
        let rounds = (0..ROUNDS).map(|round| {
            world.wait();
            let started = Instant::now();
            world.add_up(&mut [black_box(&mut gradients)], wire, 0, round);
            started.elapsed()
        });
        rounds.min().unwrap_or_default()
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = World::threads(ranks)
            .into_iter()
            .map(|world| scope.spawn(|| rank(world)))
            .collect();
        let took = ranks.into_iter().map(|rank| rank.join());
        let took = took.map(|took| took.expect("no rank panics"));
        took.max().unwrap_or_default()
    })
}

/// The shortest time to copy as many bytes, on one thread.
fn copying(bytes: usize) -> Duration {
    let from = vec![1u8; bytes];
    let mut to = vec![0u8; bytes];
    let rounds = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        started.elapsed()
    });
    rounds.min().unwrap_or_default()
}
