//! Progress on stderr.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mantissa::World;

/// Progress bars on stderr; nothing where that is no terminal.
#[derive(Clone, Default)]
pub struct Progress {
    bars: MultiProgress,
    is_silent: bool,
}

impl Progress {
    /// Progress of a run on several ranks: the first one tells it.
    pub fn of(world: &World) -> Self {
        if world.is_first() {
            return Self::default();
        }
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            is_silent: true,
        }
    }

    /// A bar of `steps` steps, `done` of them taken before.
    pub fn steps(&self, name: impl Into<Cow<'static, str>>, steps: u64, done: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{prefix:<18} {bar:28} {pos:>6}/{len} {per_sec:>9} {eta:>4} left  {msg}",
        )
        .expect("the template is a constant")
        .progress_chars("━╸─");
        let bar = self.bars.add(ProgressBar::new(steps).with_style(style));
        bar.set_prefix(name);
        bar.set_position(done);
        bar.reset_eta();
        bar
    }

    /// A spinner for work whose length is unknown.
    pub fn spinner(&self, name: impl Into<Cow<'static, str>>) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_message(name);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Writes a line above the bars, to stderr also where that is no terminal.
    pub fn line(&self, text: &str) {
        if self.is_silent {
            return;
        }
        self.bars.suspend(|| eprintln!("{text}"));
    }
}
