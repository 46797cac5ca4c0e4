//! CPU time where one thread works, passing time where several do.

use std::fs;
use std::time::Instant;

/// What is measured of a step.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Nanoseconds that all threads of this process were on a processor, as Linux counts them: other processes on the
    /// machine disturb it less.
    Cpu,
    /// Time that passes.
    Wall,
}

impl Clock {
    pub fn for_threads(threads: usize) -> Self {
        if threads == 1 && cpu_seconds().is_some() {
            Self::Cpu
        } else {
            Self::Wall
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time",
            Self::Wall => "elapsed time",
        }
    }

    /// Seconds that `work` takes.
    pub fn time(self, work: impl FnOnce()) -> f64 {
        let (started, before) = (Instant::now(), cpu_seconds());
        work();
        match (self, before, cpu_seconds()) {
            (Self::Cpu, Some(before), Some(after)) => after - before,
            _ => started.elapsed().as_secs_f64(),
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 * 1e-9)
}
