//! Gradients that wait for the update in few bits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mantissa::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use mantissa::optimizer::{GradientAccumulator, SgdConfig};
use mantissa::plan::{Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, Step, storage};
use mantissa_formats::RandomBits;
use mantissa_quant::{Numerics, Operand, fake_quantize};

fn device() -> Device {
    Device::flex().autodiff()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let value = |i: usize| (((i * 7919 + seed * 104_729) % 65_537) as f32 * 0.37).sin();
    let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn weight(shape: [usize; 2], seed: usize) -> Param<Tensor<2>> {
    Param::from_tensor(tensor(shape, seed).mul_scalar(0.2).detach())
}

#[derive(Module, Debug)]
struct Network {
    table: Embedding,
    inner: Linear,
    outer: Linear,
}

impl Network {
    fn new() -> Self {
        let device = device();
        let mut network = Self {
            table: EmbeddingConfig::new(20, 32).init(&device),
            inner: LinearConfig::new(32, 48).with_bias(false).init(&device),
            outer: LinearConfig::new(48, 16).with_bias(false).init(&device),
        };
        network.table.weight = weight([20, 32], 1);
        network.inner.weight = weight([32, 48], 2);
        network.outer.weight = weight([48, 16], 3);
        network
    }

    /// The loss, with `inner` and `outer` used so many times.
    fn loss(&self, uses: usize) -> Tensor<1> {
        let ids: Vec<i64> = (0..24).map(|i| i * 7 % 20).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [4, 6]), &device());
        let x = self.table.forward(ids);
        let losses = (0..uses).map(|at| {
            let x = x.clone() * (1.0 + at as f32);
            let y = self.outer.forward(self.inner.forward(x).tanh());
            (y - tensor([4, 6, 16], 4)).powi_scalar(2).mean()
        });
        losses.reduce(|sum, loss| sum + loss).unwrap()
    }

    fn weights(&self) -> [&Param<Tensor<2>>; 3] {
        [&self.table.weight, &self.inner.weight, &self.outer.weight]
    }

    fn values(&self) -> [Vec<f32>; 3] {
        self.weights()
            .map(|weight| weight.val().into_data().iter::<f32>().collect())
    }
}

fn plan(network: &Network, gradients: &str, table: &str) -> Plan {
    let recipe = format!(
        "schema = 1\nname = \"stored\"\n[storage]\ngradients = \"{gradients}\"\nmin_elements = 600\n\
         [[rules]]\nsites = \"table\"\nkind = \"embedding\"\nrhs = \"{table}\"\n"
    );
    let recipe = Recipe::from_toml(&recipe).unwrap();
    Plan::from_recipe(&recipe, &mantissa::sites(network)).unwrap()
}

const LOSS_SCALE: f32 = 64.0;

/// The gradients of the scaled loss, in f32, and the parameters after a step of plain gradient descent at rate 1.
struct Outcome {
    gradients: [Vec<f32>; 3],
    after: [Vec<f32>; 3],
}

fn outcome(storage: &str, table: &str, uses: usize) -> Outcome {
    let mut network = Network::new();
    let session = Session::bind(&network, &plan(&network, storage, table), 5).unwrap();
    let mut scaler = LossScaler::constant(LOSS_SCALE);
    session.begin_step(0);
    let loss = session.autocast(|| network.loss(uses));
    let gradients = scaler.scale(loss).backward();
    let mut optimizer = MasterOptimizer::new(SgdConfig::new()).with_session(&session);
    let taken = optimizer.step(1.0, &mut network, gradients, &mut scaler);
    assert!(matches!(taken, Step::Applied { .. }), "{taken:?}");

    let plain = Network::new();
    let session = Session::bind(&plain, &plan(&plain, "fp32", table), 5).unwrap();
    session.begin_step(0);
    let loss = session.autocast(|| plain.loss(uses)) * LOSS_SCALE;
    let gradients = loss.backward();
    let gradient = |weight: &Param<Tensor<2>>| {
        let gradient = weight.val().grad(&gradients).unwrap();
        gradient.into_data().iter::<f32>().collect()
    };
    Outcome {
        gradients: plain.weights().map(gradient),
        after: network.values(),
    }
}

#[test]
fn an_update_reads_the_gradient_as_it_was_stored() {
    for table in ["fp32", "bf16"] {
        for text in [
            "fp32",
            "e4m3/tensor",
            "e5m2/tensor",
            "int8/channel",
            "bf16",
            "fp16",
        ] {
            let numerics: Numerics = text.parse().unwrap();
            let (before, found) = (Network::new().values(), outcome(text, table, 1));
            let shapes = [[20, 32], [32, 48], [48, 16]];
            for (weight, [rows, depth]) in shapes.into_iter().enumerate() {
                let operand = Operand::matrix(&found.gradients[weight], rows, depth).unwrap();
                let gradient = fake_quantize(&operand, &numerics, RandomBits::NONE);
                let updated = before[weight].iter().zip(&gradient);
                let expected: Vec<f32> = updated.map(|(x, g)| x - g / LOSS_SCALE).collect();
                assert!(found.after[weight] == expected, "{text}, weight {weight}");
            }
        }
    }
}

#[test]
fn gradients_of_several_uses_are_added_in_f32() {
    // Burn adds the gradients of more uses in an order that varies.
    let linears = |storage, uses| outcome(storage, "fp32", uses).after[1..].to_vec();
    assert!(linears("e4m3/tensor", 2) == linears("fp32", 2));
    assert!(linears("e4m3/tensor", 1) != linears("fp32", 1));
}

#[test]
fn stored_gradients_are_bytes_and_burns_sum_with_others_is_refused() {
    let network = Network::new();
    let mut plan = plan(&network, "e4m3/tensor", "fp32");
    plan.storage.min_elements = 700;
    let session = Session::bind(&network, &plan, 5).unwrap();
    session.begin_step(0);
    let loss = session.autocast(|| network.loss(1));
    let gradients = loss.backward();
    let types = network
        .weights()
        .map(|weight| weight.val().grad(&gradients).unwrap().dtype());
    // The table has 640 elements.
    assert_eq!(types, [DType::F32, DType::Flex32, DType::Flex32]);

    session.begin_step(1);
    let penalty = network.inner.weight.val().powi_scalar(2).sum();
    let loss = session.autocast(|| network.loss(1)) + penalty;
    let backward = catch_unwind(AssertUnwindSafe(|| loss.backward()));
    assert!(backward.is_err());
}

#[test]
fn overflow_in_stored_gradients_skips_the_step_and_names_the_parameter() {
    for gradients in ["e4m3/tensor", "int8/channel", "e5m2/unscaled", "fp16"] {
        let mut network = Network::new();
        let session = Session::bind(&network, &plan(&network, gradients, "fp32"), 5).unwrap();
        let before = network.values();
        session.begin_step(0);
        let mut scaler = LossScaler::constant(1e36);
        let loss = session.autocast(|| network.loss(1)) * 1e6;
        let gradients = scaler.scale(loss).backward();
        let mut optimizer = MasterOptimizer::new(SgdConfig::new()).with_session(&session);
        let Step::Skipped { cause } = optimizer.step(1.0, &mut network, gradients, &mut scaler)
        else {
            panic!("the gradients are infinite")
        };
        let named: Vec<&str> = cause
            .parameters
            .iter()
            .map(|p| p.parameter.as_str())
            .collect();
        assert_eq!(named, ["table.weight", "inner.weight", "outer.weight"]);
        assert_eq!(network.values(), before);
        assert!(storage::stored(&network).is_empty());
    }
}

#[test]
fn stored_gradients_of_micro_batches_are_added_in_f32() {
    let mut network = Network::new();
    let session = Session::bind(&network, &plan(&network, "e4m3/tensor", "fp32"), 5).unwrap();
    let mut scaler = LossScaler::constant(LOSS_SCALE);
    let mut accumulator = GradientAccumulator::new();
    for step in 0..2 {
        session.begin_step(step);
        let loss = session.autocast(|| network.loss(1));
        accumulator.push(&network, scaler.scale(loss).backward());
    }
    let gradients = accumulator.finish(&network).unwrap();
    let mut optimizer = MasterOptimizer::new(SgdConfig::new()).with_session(&session);
    let step = optimizer.step(1.0, &mut network, gradients, &mut scaler);
    assert!(matches!(step, Step::Applied { .. }));
    // The mean of two equal gradients is each of them.
    assert!(network.values() == outcome("e4m3/tensor", "fp32", 1).after);
}
