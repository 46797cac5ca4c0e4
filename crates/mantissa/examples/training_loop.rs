//! A training loop in mixed precision: what the README shows.

use burn::tensor::{Device, Distribution, Tensor};
use mantissa::nn::LinearConfig;
use mantissa::optimizer::AdamWConfig;
use mantissa::plan::{Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, Step};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let mut model = LinearConfig::new(64, 10).init(&device);

    // A recipe, or a plan that `mantissa plan` chose: Plan::load("plan.toml")?
    let plan = Plan::from_recipe(&Recipe::preset("fp8-hybrid")?, &mantissa::sites(&model))?;
    let session = Session::bind(&model, &plan, 42)?;
    let mut scaler = LossScaler::for_plan(&plan);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);

    for step in 0..100 {
        session.begin_step(step);
        let batch = Tensor::<2>::random([32, 64], Distribution::Default, &device);
        let loss = session.autocast(|| model.forward(batch).powi_scalar(2).mean());
        let gradients = scaler.scale(loss).backward();
        match optimizer.step(1e-3, &mut model, gradients, &mut scaler) {
            Step::Applied { .. } => { /* advance the learning-rate schedule */ }
            Step::Skipped { cause } => eprintln!("step {step} skipped: {cause}"),
        }
    }
    Ok(())
}
