//! A training run: its configuration, its loop, and the folder it leaves behind.

pub mod config;
pub mod cores;
pub mod folder;
pub mod guard;
pub mod memory;
pub mod plan_change;
pub mod profiling;
pub mod progress;
pub mod ranks;
pub mod rehearsal;
pub mod schedule;
pub mod skip;
pub mod study;
pub mod timing;
pub mod trainer;
pub mod watch;

pub use config::RunConfig;
pub use folder::RunFolder;
pub use plan_change::PlanChange;
pub use profiling::{Profiled, Profiling};
pub use progress::Progress;
pub use skip::SkipRecord;
pub use trainer::{StepRecord, Trainer};
