//! Parameters and gradients in fewer bits than they are computed with.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::activation::gelu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mantissa::checkpoint::{self, Progress};
use mantissa::nn::conv::{Conv1d, Conv1dConfig};
use mantissa::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use mantissa::optimizer::{AdamWConfig, SgdConfig};
use mantissa::plan::{Plan, Recipe, Storage};
use mantissa::{LossScaler, MasterOptimizer, Session, Step, storage};

/// Every kind of storage.
const STORAGES: [&str; 9] = [
    "fp16",
    "fp16/stochastic",
    "bf16",
    "bf16/stochastic",
    "bf16+16",
    "e4m3/tensor/stochastic",
    "e5m2/block32/stochastic",
    "int8/channel/stochastic",
    "mxfp8/stochastic",
];

fn device() -> Device {
    Device::flex().autodiff()
}

fn values(len: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| (((i * 7919 + seed * 104_729) % 65_537) as f32 * 0.37).sin();
    (0..len).map(value).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let data = TensorData::new(values(shape.iter().product(), seed), shape);
    Tensor::from_data(data, &device())
}

/// Weights of each module that reads its own, and small parameters.
#[derive(Module, Debug)]
struct Network {
    table: Embedding,
    mix: Conv1d,
    inner: Linear,
    outer: Linear,
}

const WIDTH: usize = 40;

impl Network {
    fn new() -> Self {
        let device = device();
        let network = Self {
            table: EmbeddingConfig::new(30, WIDTH).init(&device),
            mix: Conv1dConfig::new(WIDTH, WIDTH, 3).init(&device),
            inner: LinearConfig::new(WIDTH, 72).init(&device),
            outer: LinearConfig::new(72, 8).init(&device),
        };
        network.map(&mut Deterministic(0))
    }

    fn forward(&self, step: usize) -> Tensor<2> {
        let id = |i: usize| ((i * 11 + i / 10 * 7 + step * 5) % 30) as i64;
        let ids: Vec<i64> = (0..60).map(id).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [6, 10]), &device());
        let x = self.mix.forward(self.table.forward(ids).swap_dims(1, 2));
        let x = gelu(self.inner.forward(x.mean_dim(2).squeeze_dim::<2>(2)));
        self.outer.forward(x)
    }

    fn loss(&self, step: usize) -> Tensor<1> {
        let difference = self.forward(step % 3) - tensor([6, 8], step % 3);
        difference.powi_scalar(2).mean()
    }
}

struct Deterministic(usize);

impl ModuleMapper for Deterministic {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        param.map(|value| {
            let value = tensor(value.dims(), self.0).mul_scalar(0.3);
            value.detach().require_grad()
        })
    }
}

fn bits<M: Module>(model: &M) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl burn::module::ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            self.0.extend(data.iter::<f32>().map(f32::to_bits));
        }
    }
    let mut bits = Bits(Vec::new());
    storage::widened(model.clone()).visit(&mut bits);
    bits.0
}

/// A plan whose weights are read as `weights` and stored as `parameters`.
fn plan<M: Module>(model: &M, weights: &str, parameters: &str, gradients: &str) -> Plan {
    let recipe = format!(
        r#"
        schema = 1
        name = "stored"
        [storage]
        parameters = "{parameters}"
        gradients = "{gradients}"
        min_elements = 500
        [[rules]]
        sites = "*"
        rhs = "{weights}"
        lhs = "{weights}"
        [[rules]]
        sites = "*"
        kind = "embedding"
        optional = true
        rhs = "{weights}"
        "#
    );
    let recipe = Recipe::from_toml(&recipe).unwrap();
    Plan::from_recipe(&recipe, &mantissa::sites(model)).unwrap()
}

/// A model in training.
struct Run {
    model: Network,
    session: Session,
    optimizer: MasterOptimizer,
    scaler: LossScaler,
    plan: Plan,
}

impl Run {
    fn new(weights: &str, parameters: &str, gradients: &str) -> Self {
        let model = Network::new();
        let plan = plan(&model, weights, parameters, gradients);
        let model = storage::store(model, &plan).unwrap();
        let session = Session::bind(&model, &plan, 7).unwrap();
        Self {
            optimizer: MasterOptimizer::new(AdamWConfig::new()).with_session(&session),
            scaler: LossScaler::constant(256.0),
            model,
            session,
            plan,
        }
    }

    fn step(&mut self, step: usize) -> f32 {
        self.session.begin_step(step as u64);
        let loss = self.session.autocast(|| self.model.loss(step));
        let value = loss.clone().into_scalar();
        let gradients = self.scaler.scale(loss).backward();
        let taken = self
            .optimizer
            .step(3e-3, &mut self.model, gradients, &mut self.scaler);
        assert!(matches!(taken, Step::Applied { .. }), "{taken:?}");
        value
    }

    fn losses(&mut self, steps: std::ops::Range<usize>) -> Vec<f32> {
        steps.map(|step| self.step(step)).collect()
    }
}

fn mean(losses: &[f32]) -> f32 {
    losses.iter().sum::<f32>() / losses.len() as f32
}

#[test]
fn every_storage_trains_nearly_as_well_as_f32() {
    let mut plain = Run::new("fp32", "fp32", "fp32");
    let expected = plain.losses(0..300);
    let (start, end) = (mean(&expected[..6]), mean(&expected[294..]));
    assert!(end < 0.1 * start, "{start} to {end}");
    for parameters in STORAGES {
        let mut run = Run::new("fp32", parameters, "fp32");
        let storage: Storage = parameters.parse().unwrap();
        let stored = storage::stored(&run.model);
        let paths: Vec<&str> = stored.iter().map(|stored| stored.path.as_str()).collect();
        assert_eq!(
            paths,
            ["table.weight", "mix.weight", "inner.weight", "outer.weight"]
        );
        for stored in &stored {
            let least = storage.bytes_per_element() * stored.elements as f64;
            let bytes = stored.bytes as f64;
            // The shortest row has 8 elements.
            assert!((least..=1.5 * least).contains(&bytes), "{stored:?}");
        }
        let losses = run.losses(0..300);
        let bound = if storage.bytes_per_element() < 2.0 {
            0.35
        } else {
            0.1
        };
        let reached = mean(&losses[294..]);
        assert!(
            reached < bound * start,
            "{parameters}: {start} to {reached}"
        );
        assert_eq!(storage::stored(&run.model), stored, "{parameters}");
    }
}

#[test]
fn split_bf16_is_f32_training_bit_for_bit() {
    // What products read of it is the nearest BF16 number, ties away from zero.
    let mut split = Run::new("bf16/nearest-away", "bf16+16", "fp32");
    let mut plain = Run::new("bf16/nearest-away", "fp32", "fp32");
    for step in 0..60 {
        assert_eq!(split.step(step).to_bits(), plain.step(step).to_bits());
    }
    assert_eq!(bits(&split.model), bits(&plain.model));
    let weight = split.model.inner.weight.val();
    assert_eq!(weight.dtype(), DType::BF16);
    let nearest = Run::new("fp32", "bf16", "fp32").model.inner.weight.val();
    assert_eq!(
        nearest.into_data().num_elements(),
        weight.into_data().num_elements()
    );
}

/// A weight `[64, 64]` of ones after `steps` updates by `update` each.
fn drifted(parameters: &str, update: f32, steps: u64) -> Vec<f32> {
    let mut model = LinearConfig::new(64, 64).with_bias(false).init(&device());
    model.weight = model
        .weight
        .map(|weight| weight.ones_like().detach().require_grad());
    let plan = plan(&model, "fp32", parameters, "fp32");
    let mut model = storage::store(model, &plan).unwrap();
    let mut optimizer = MasterOptimizer::new(SgdConfig::new()).with_seed(3);
    let mut scaler = LossScaler::none();
    for _ in 0..steps {
        let x = Tensor::<2>::eye(64, &device());
        let gradients = scaler.scale(model.forward(x).sum()).backward();
        let step = optimizer.step(f64::from(update), &mut model, gradients, &mut scaler);
        assert!(matches!(step, Step::Applied { .. }));
    }
    let weight = storage::widened(model).weight.val();
    weight.into_data().iter::<f32>().collect()
}

#[test]
fn updates_below_half_a_unit_stall_to_nearest_and_arrive_on_average_stochastically() {
    // Below one, BF16 numbers are 2^-8 apart, FP16 numbers 2^-11: the updates are a sixteenth of that.
    for (format, unit) in [("bf16", 2.0f32.powi(-8)), ("fp16", 2.0f32.powi(-11))] {
        let (update, steps) = (unit / 16.0, 64);
        let expected = 1.0 - update * steps as f32;
        let nearest = drifted(format, update, steps);
        assert!(nearest.iter().all(|&x| x == 1.0), "{format}");
        let stochastic = drifted(&format!("{format}/stochastic"), update, steps);
        let mean: f64 = stochastic.iter().map(|&x| f64::from(x)).sum::<f64>() / 4096.0;
        // Each element's steps vary by sqrt(64 / 16 * 15 / 16) units, their mean by a 64th of that.
        let deviation = 2.0 * f64::from(unit) / 64.0;
        let distance = (mean - f64::from(expected)).abs();
        assert!(
            distance < 4.0 * deviation,
            "{format}: {mean} instead of {expected}"
        );
        assert!(stochastic.iter().any(|&x| x != stochastic[0]), "{format}");
        assert_eq!(drifted("fp32", update, steps), vec![expected; 4096]);
        assert_eq!(drifted("bf16+16", update, steps), vec![expected; 4096]);
    }
}

#[test]
fn outside_an_autocast_a_stored_model_is_its_widened_one() {
    for parameters in STORAGES {
        let run = Run::new("fp32", parameters, "fp32");
        let read_by_products = match parameters {
            // Products read the BF16 half of it.
            "bf16+16" => Run::new("fp32", "bf16/nearest-away", "fp32").model,
            _ => run.model.clone(),
        };
        let widened = storage::widened(read_by_products);
        assert!(storage::stored(&widened).is_empty());
        let output = |model: &Network| model.forward(3).into_data();
        assert_eq!(output(&run.model), output(&widened), "{parameters}");
        // The gradient of a stored weight is that of its f32.
        let gradient = |model: &Network| {
            let gradients = model.loss(3).backward();
            model
                .inner
                .weight
                .val()
                .grad(&gradients)
                .unwrap()
                .into_data()
        };
        assert_eq!(gradient(&run.model), gradient(&widened), "{parameters}");
    }
}

#[test]
fn a_clone_keeps_its_values_while_the_model_trains() {
    for parameters in ["bf16+16", "int8/channel/stochastic"] {
        let mut run = Run::new("fp32", parameters, "fp32");
        run.losses(0..3);
        let (clone, before) = (run.model.clone(), bits(&run.model));
        run.losses(3..6);
        assert_eq!(bits(&clone), before, "{parameters}");
        assert_ne!(bits(&run.model), before, "{parameters}");
    }
}

#[test]
fn burns_operations_refuse_bytes() {
    let model = Run::new("fp32", "e4m3/tensor", "fp32").model;
    let weight = || model.inner.weight.val();
    let refused = |operation: &dyn Fn() -> Tensor<2>| {
        let outcome = catch_unwind(AssertUnwindSafe(|| operation().into_data()));
        assert!(outcome.is_err(), "{:?}", outcome.unwrap());
    };
    refused(&|| weight() + weight());
    refused(&|| weight() * 2.0);
    refused(&|| weight() + 1.0);
    refused(&|| tensor([WIDTH, 72], 0) - weight());
    refused(&|| weight() / tensor([WIDTH, 72], 0));
    refused(&|| tensor([5, WIDTH], 0).matmul(weight()));
    refused(&|| weight().exp());
    refused(&|| weight().powf_scalar(2.0));
    refused(&|| weight().sum_dim(0));
    refused(&|| weight().max_dim(1));
    refused(&|| weight().clamp(-1.0, 1.0));
    refused(&|| gelu(weight()));
    // Copies would lose the scales.
    refused(&|| weight().transpose().repeat_dim(0, 2));
    refused(&|| Tensor::cat(vec![weight(), weight()], 0));
    let record = catch_unwind(AssertUnwindSafe(|| model.clone().into_record()));
    assert!(record.is_err());
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit_in_every_storage() {
    let folder = tempfile::tempdir().unwrap();
    for (parameters, gradients) in STORAGES.map(|parameters| (parameters, "e4m3/tensor/stochastic"))
    {
        let mut run = Run::new("e4m3/tensor", parameters, gradients);
        run.losses(0..4);
        let progress = Progress {
            step: 4,
            ..Progress::default()
        };
        let saved = checkpoint::save(
            folder.path(),
            &run.model,
            &run.session,
            &run.optimizer,
            &run.scaler,
            &run.plan,
            progress,
        );
        let expected = run.losses(4..8);

        let saved = checkpoint::load(&saved.unwrap(), Network::new()).unwrap();
        let session = Session::bind(&saved.model, &saved.plan, 7).unwrap();
        let optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
        let mut resumed = Run {
            optimizer: optimizer.load_record(saved.optimizer).unwrap(),
            model: saved.model,
            session,
            scaler: saved.scaler,
            plan: saved.plan,
        };
        assert_eq!(storage::stored(&resumed.model), storage::stored(&run.model));
        let losses = resumed.losses(4..8);
        let to_bits = |losses: &[f32]| losses.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(to_bits(&losses), to_bits(&expected), "{parameters}");
        assert_eq!(bits(&resumed.model), bits(&run.model), "{parameters}");
    }
}

#[test]
fn gradients_and_stored_parameters_that_another_loop_carries_are_the_same() {
    for storage in ["fp32", "bf16+16", "int8/channel/stochastic"] {
        let mut own = Run::new("fp32", storage, "bf16/stochastic");
        let mut other = Run::new("fp32", storage, "bf16/stochastic");
        assert_eq!(bits(&own.model), bits(&other.model), "{storage}");
        for step in 0..4 {
            own.step(step);

            other.session.begin_step(step as u64);
            let loss = other.session.autocast(|| other.model.loss(step));
            let gradients = other.scaler.scale(loss).backward();
            let gradients = gradients.by_parameter(&other.model);
            let (optimizer, model) = (&mut other.optimizer, &mut other.model);
            let taken = optimizer.step_by_parameter(3e-3, model, gradients, &mut other.scaler);
            assert!(matches!(taken, Step::Applied { .. }), "{taken:?}");
            assert_eq!(bits(&own.model), bits(&other.model), "{storage} {step}");
        }

        let Some(bytes) = storage::stored_to_bytes(&own.model) else {
            assert_eq!(storage, "fp32");
            continue;
        };
        let fresh = Run::new("fp32", storage, "fp32").model;
        let ids = storage::stored(&own.model);
        let ids = ids.into_iter().map(|stored| stored.id).collect();
        let others = ParamGroup::all().exclude(ParamGroup::from_ids(ids));
        let others = own.model.clone().into_record_group(others).len();
        let loaded = storage::load_stored(fresh.clone(), &bytes, others).unwrap();
        assert_eq!(storage::stored(&loaded), storage::stored(&own.model));
        assert_eq!(bits(&loaded.table), bits(&own.model.table), "{storage}");
        let halved = &bytes[..bytes.len() / 2];
        assert!(storage::load_stored(fresh.clone(), halved, others).is_err());
        let missing = storage::load_stored(fresh, &bytes, others - 1).expect_err("one is missing");
        assert!(missing.to_string().contains("instead of"), "{missing}");
    }
}
