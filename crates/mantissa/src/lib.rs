//! Metric-driven mixed-precision training for [Burn](https://burn.dev).
//!
//! Change `use burn::nn` to `use mantissa::nn`, bind a [`Plan`] to the model, and run the forward pass inside
//! [`Session::autocast`]: every product the model computes, forward and backward, then quantizes its operands as
//! the plan says. Outside an autocast the modules are Burn's, bit for bit.
//!
//! | module | what it answers |
//! |---|---|
//! | [`nn`] | which modules multiply, with Burn's names, configurations and records |
//! | [`session`] | which product is which site of the plan, and what happened there in this step |
//! | [`product`] | how one quantized product is computed and differentiated |
//! | [`profiler`] | what the operands of every product look like, measured while training |
//! | [`scaler`] | how the loss is scaled so that small gradients survive |
//! | [`optimizer`] | how scaled gradients become an update of the master weights, or a skipped step |
//! | [`storage`] | how weights lie in memory in fewer bytes than they are computed with |
//! | [`parallel`] | how several ranks train one model together |
//! | [`checkpoint`] | how a run is saved so that it resumes bit for bit |
//!
//! # Example
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use mantissa::optimizer::{AdamWConfig, MasterOptimizer};
//! use mantissa::plan::{Plan, Recipe};
//! use mantissa::{Session, Step, nn, scaler::LossScaler};
//!
//! let device = Device::flex().autodiff();
//! let mut model = nn::LinearConfig::new(8, 4).init(&device);
//!
//! let plan = Plan::from_recipe(&Recipe::preset("fp8-hybrid")?, &mantissa::sites(&model))?;
//! let session = Session::bind(&model, &plan, 42)?;
//! let mut scaler = LossScaler::for_plan(&plan);
//! let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
//!
//! for step in 0..3 {
//!     session.begin_step(step);
//!     let input = Tensor::<2>::random([16, 8], Distribution::Default, &device);
//!     let loss = session.autocast(|| model.forward(input).powf_scalar(2.0).mean());
//!     let gradients = scaler.scale(loss).backward();
//!     match optimizer.step(1e-3, &mut model, gradients, &mut scaler) {
//!         Step::Applied { .. } => { /* advance the schedule */ }
//!         Step::Skipped { cause } => println!("skipped: {cause}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod amax_history;
mod buffer;
pub mod checkpoint;
mod flex_tensor;
mod fused;
pub mod memory;
pub mod nn;
mod operation;
pub mod optimizer;
pub mod parallel;
mod parameters;
pub mod product;
pub mod profiler;
mod sampler;
pub mod scaler;
pub mod session;
mod sites;
pub mod storage;

pub use amax_history::AmaxHistories;
pub use mantissa_plan as plan;
pub use optimizer::{MasterOptimizer, SkipCause, Step};
pub use parallel::World;
pub use product::matmul;
pub use scaler::LossScaler;
pub use session::{Kernels, Session};
pub use sites::sites;

pub use mantissa_plan::Plan;
