//! The clock of benchmarks on one thread.

use std::time::Duration;

/// A moment of this thread's processor time, which other programs on the machine do not add to; of the wall's time where there is no
/// such clock.
#[derive(Clone, Copy)]
pub struct ThreadTime(Duration);

impl ThreadTime {
    /// The time of now.
    pub fn now() -> Self {
        #[cfg(unix)]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Self(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
        }
        #[cfg(not(unix))]
        {
            use std::sync::LazyLock;
            use std::time::Instant;
            static START: LazyLock<Instant> = LazyLock::new(Instant::now);
            Self(START.elapsed())
        }
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}
