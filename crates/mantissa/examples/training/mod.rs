//! The training loop of the examples: the same model, data and steps under several recipes.

mod draws;

use std::error::Error;
use std::fmt;

use burn::module::Module;
use burn::tensor::Tensor;
use mantissa::optimizer::AdamWConfig;
use mantissa::plan::{Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, Step};

pub use draws::Draws;

/// What a training run came to.
pub struct Run {
    /// Its recipe.
    pub recipe: &'static str,
    /// The loss of every step.
    pub losses: Vec<f32>,
    /// What the trained model is worth on data that it has not seen, from 0 to 1.
    pub score: f32,
}

impl Run {
    /// The mean loss of the first ten steps.
    pub fn first_loss(&self) -> f32 {
        mean(&self.losses[..10])
    }

    /// The mean loss of the last ten steps.
    pub fn last_loss(&self) -> f32 {
        mean(&self.losses[self.losses.len() - 10..])
    }
}

fn mean(losses: &[f32]) -> f32 {
    losses.iter().sum::<f32>() / losses.len() as f32
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last, score) = (self.first_loss(), self.last_loss(), 100.0 * self.score);
        let recipe = self.recipe;
        write!(
            f,
            "{recipe:12} loss {first:.4} -> {last:.4}, {score:5.1} % right"
        )
    }
}

/// Trains `model` for `steps` steps under `recipe`, on the loss of each step, and then scores it.
pub fn train<M: Module>(
    mut model: M,
    recipe: &'static str,
    steps: u64,
    learning_rate: f64,
    loss: impl Fn(&M, u64) -> Tensor<1>,
    score: impl Fn(&M) -> f32,
) -> Result<Run, Box<dyn Error>> {
    let plan = Plan::from_recipe(&Recipe::preset(recipe)?, &mantissa::sites(&model))?;
    let session = Session::bind(&model, &plan, 42)?;
    let mut scaler = LossScaler::for_plan(&plan);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);

    let mut losses = Vec::new();
    for step in 0..steps {
        session.begin_step(step);
        let loss = session.autocast(|| loss(&model, step));
        losses.push(loss.clone().into_scalar());
        let gradients = scaler.scale(loss).backward();
        if let Step::Skipped { cause } =
            optimizer.step(learning_rate, &mut model, gradients, &mut scaler)
        {
            eprintln!("step {step} skipped: {cause}");
        }
    }
    let score = session.autocast(|| score(&model.valid()));
    Ok(Run {
        recipe,
        losses,
        score,
    })
}
