//! The updates of `MasterOptimizer`: against Burn's own optimizers, where they happen, and what records keep of them.

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, Param};
use burn::optim::{self, ModuleOptimizer};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::{Linear, LinearConfig};
use mantissa::optimizer::{
    AdamConfig, AdamWConfig, MasterOptimizer, MomentumConfig, OptimizerRecord, SgdConfig, Step,
    Update, WeightDecayConfig,
};
use mantissa::scaler::LossScaler;

fn device() -> Device {
    Device::flex().autodiff()
}

/// Two layers, with biases, and a parameter that no loss depends on.
#[derive(Module, Debug)]
struct Network {
    inner: Linear,
    outer: Linear,
    idle: Param<Tensor<1>>,
}

fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7 + seed * 13) as f32 * 0.61).sin())
        .collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let len = shape.iter().product();
    Tensor::from_data(TensorData::new(values(len, seed), shape), &device())
}

impl Network {
    fn new() -> Self {
        let network = Self {
            inner: LinearConfig::new(12, 20).init(&device()),
            outer: LinearConfig::new(20, 3).init(&device()),
            idle: Param::from_tensor(tensor([5], 9)),
        };
        network.map(&mut Deterministic(0))
    }

    fn loss(&self, step: usize) -> Tensor<1> {
        let hidden = gelu(self.inner.forward(tensor([8, 12], step)));
        let difference = self.outer.forward(hidden) - tensor([8, 3], step + 1000);
        difference.powi_scalar(2).mean()
    }

    fn bits(&self) -> Vec<u32> {
        self.values().iter().map(|x| x.to_bits()).collect()
    }

    fn values(&self) -> Vec<f32> {
        let biases = [&self.inner, &self.outer].map(|layer| layer.bias.as_ref().unwrap().val());
        let weights = [&self.inner, &self.outer].map(|layer| layer.weight.val().flatten(0, 1));
        biases
            .into_iter()
            .chain(weights)
            .flat_map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<_>>())
            .collect()
    }
}

/// Gives every parameter values of its own, the same each time.
struct Deterministic(usize);

impl burn::module::ModuleMapper for Deterministic {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        param.map(|value| {
            tensor(value.dims(), self.0)
                .mul_scalar(0.3)
                .detach()
                .require_grad()
        })
    }
}

fn train(
    network: &mut Network,
    optimizer: &mut MasterOptimizer,
    scaler: &mut LossScaler,
    steps: std::ops::Range<usize>,
) {
    for step in steps {
        let gradients = scaler.scale(network.loss(step)).backward();
        let outcome = optimizer.step(1e-2, network, gradients, scaler);
        assert!(matches!(outcome, Step::Applied { .. }));
    }
}

fn trained(update: impl Into<Update>, max_norm: Option<f64>) -> Network {
    let mut network = Network::new();
    let mut optimizer = MasterOptimizer::new(update);
    if let Some(max_norm) = max_norm {
        optimizer = optimizer.with_max_norm(max_norm);
    }
    train(
        &mut network,
        &mut optimizer,
        &mut LossScaler::constant(1024.0),
        0..50,
    );
    network
}

/// The largest difference, which 50 steps of learning rate 1e-2 let grow to at most 1.
fn distance(left: &Network, right: &Network) -> f32 {
    let pairs = left.values().into_iter().zip(right.values());
    pairs.map(|(l, r)| (l - r).abs()).fold(0.0, f32::max)
}

#[test]
fn adam_and_adamw_go_where_burns_go() {
    for max_norm in [None, Some(0.05)] {
        let ours = AdamWConfig::new().with_weight_decay(0.1);
        let burns = optim::AdamWConfig::new()
            .with_weight_decay(0.1)
            .with_epsilon(1e-8);
        let ours = trained(ours, max_norm);
        assert!(distance(&ours, &trained(burns.init(), max_norm)) < 2e-5);
        assert!(distance(&ours, &Network::new()) > 0.02);

        let penalty = Some(WeightDecayConfig { penalty: 0.01 });
        let ours = AdamConfig::new().with_weight_decay(penalty.clone());
        let burns = optim::AdamConfig::new()
            .with_weight_decay(penalty)
            .with_epsilon(1e-8);
        let ours = trained(ours, max_norm);
        assert!(distance(&ours, &trained(burns.init(), max_norm)) < 2e-5);
        assert!(distance(&ours, &Network::new()) > 0.02);
    }
}

#[test]
fn sgd_has_burns_bits() {
    let momentum = |nesterov| {
        Some(MomentumConfig {
            momentum: 0.9,
            dampening: 0.1,
            nesterov,
        })
    };
    for momentum in [None, momentum(false), momentum(true)] {
        for weight_decay in [None, Some(WeightDecayConfig { penalty: 0.05 })] {
            let ours = SgdConfig::new()
                .with_weight_decay(weight_decay.clone())
                .with_momentum(momentum.clone());
            let burns = optim::SgdConfig::new()
                .with_weight_decay(weight_decay)
                .with_momentum(momentum.clone());
            let (ours, burns) = (trained(ours, None), trained(burns.init(), None));
            assert_eq!(ours.bits(), burns.bits());
            assert_ne!(ours.bits(), Network::new().bits());
        }
    }
}

/// Where a parameter's elements lie.
fn address<const D: usize>(param: &Param<Tensor<D>>) -> usize {
    let primitive = param.val().try_into_primitive::<Autodiff<Flex>>();
    let tensor = primitive.unwrap_or_else(|_| panic!("not {}", type_name::<Autodiff<Flex>>()));
    tensor.into_primitive().bytes().as_ptr() as usize
}

#[test]
fn parameters_are_updated_where_they_lie() {
    let mut network = Network::new();
    let ids = |network: &Network| (network.inner.weight.id, network.idle.id);
    let addresses = |network: &Network| {
        let biases = [&network.inner, &network.outer].map(|layer| layer.bias.as_ref().unwrap());
        [
            address(&network.inner.weight),
            address(&network.outer.weight),
            address(biases[0]),
            address(biases[1]),
            address(&network.idle),
        ]
    };
    let before = (ids(&network), addresses(&network), network.bits());
    let idle = network.idle.val().into_data();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    train(&mut network, &mut optimizer, &mut LossScaler::none(), 0..5);
    assert_eq!((ids(&network), addresses(&network)), (before.0, before.1));
    assert_ne!(network.bits(), before.2);
    assert_eq!(network.idle.val().into_data(), idle);
    assert!(network.inner.weight.val().is_require_grad());
}

#[test]
fn a_clone_of_the_model_keeps_its_values() {
    let mut network = Network::new();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    train(&mut network, &mut optimizer, &mut LossScaler::none(), 0..1);
    let (kept, before) = (network.clone(), network.bits());
    train(&mut network, &mut optimizer, &mut LossScaler::none(), 1..3);
    assert_eq!(kept.bits(), before);
    assert_ne!(network.bits(), before);
}

#[test]
fn a_state_of_another_size_is_noticed_before_anything_changes() {
    let step = |model: &mut Param<Tensor<1>>, optimizer: &mut MasterOptimizer| {
        let gradients = LossScaler::none().scale(model.val().sum()).backward();
        let _ = optimizer.step(1e-2, model, gradients, &mut LossScaler::none());
    };
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    let mut small = Param::from_tensor(tensor([6], 1));
    step(&mut small, &mut optimizer);
    let mut large = Param::initialized(small.id, tensor::<1>([7], 1).require_grad());
    let before = large.val().into_data();
    let panic = catch_unwind(AssertUnwindSafe(|| step(&mut large, &mut optimizer)));
    let message = panic.expect_err("the states do not fit");
    let message = message.downcast::<String>().unwrap();
    assert!(message.contains("is not of its 7 elements"), "{message}");
    assert_eq!(large.val().into_data(), before);
}

#[test]
#[should_panic(expected = "the epsilon of Adam is positive, not 0")]
fn settings_are_checked_when_the_optimizer_is_made() {
    MasterOptimizer::new(AdamWConfig::new().with_epsilon(0.0));
}

/// The same parameter twice.
#[derive(Module, Debug)]
struct Tied {
    left: Param<Tensor<1>>,
    right: Param<Tensor<1>>,
}

#[test]
fn a_parameter_used_twice_stays_one() {
    let left = Param::from_tensor(tensor([6], 1));
    let mut tied = Tied {
        right: left.clone(),
        left,
    };
    let mut optimizer = MasterOptimizer::new(SgdConfig::new());
    for _ in 0..3 {
        let before = tied.left.val().into_data();
        let loss = (tied.left.val() * tied.right.val()).sum();
        let gradients = LossScaler::none().scale(loss).backward();
        let _ = optimizer.step(0.25, &mut tied, gradients, &mut LossScaler::none());
        // d(x²) = 2 x, and a quarter of that is half of x.
        let halves: Vec<f32> = before.iter::<f32>().map(|x| 0.5 * x).collect();
        assert_eq!(
            tied.left.val().into_data().try_to_vec::<f32>().unwrap(),
            halves
        );
        assert_eq!(tied.left.val().into_data(), tied.right.val().into_data());
        assert_eq!(address(&tied.left), address(&tied.right));
    }
}

#[test]
fn a_step_has_the_same_bits_on_every_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            // Large enough to be shared among threads, and not a multiple of a task.
            let mut layer = LinearConfig::new(300, 333).with_bias(false).init(&device());
            layer.weight = Param::from_tensor(tensor([300, 333], 3));
            let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_max_norm(0.1);
            for step in 0..3 {
                let loss = layer.forward(tensor([4, 300], step)).powi_scalar(2).sum();
                let gradients = LossScaler::none().scale(loss).backward();
                let _ = optimizer.step(1e-2, &mut layer, gradients, &mut LossScaler::none());
            }
            let data = layer.weight.val().into_data();
            data.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(3), one);
}

#[test]
fn every_optimizer_resumes_from_its_record_bit_for_bit() {
    let momentum = MomentumConfig {
        momentum: 0.9,
        dampening: 0.1,
        nesterov: false,
    };
    let updates: [(Update, bool); 5] = [
        (AdamWConfig::new().into(), true),
        (AdamConfig::new().into(), true),
        (SgdConfig::new().with_momentum(Some(momentum)).into(), true),
        (SgdConfig::new().into(), true),
        (optim::AdamWConfig::new().init().into(), false),
    ];
    for (update, fused) in updates {
        let (mut straight, mut scaler) = (Network::new(), LossScaler::none());
        let mut optimizer = MasterOptimizer::new(update.clone());
        train(&mut straight, &mut optimizer, &mut scaler, 0..4);
        let bytes = optimizer.to_record().into_bytes().unwrap();
        let mut resumed = straight.clone();
        train(&mut straight, &mut optimizer, &mut scaler, 4..8);

        let record = if fused {
            OptimizerRecord::Fused(bytes)
        } else {
            OptimizerRecord::from_burn_bytes(bytes).unwrap()
        };
        let mut optimizer = MasterOptimizer::new(update).load_record(record).unwrap();
        train(&mut resumed, &mut optimizer, &mut scaler, 4..8);
        assert_eq!(resumed.bits(), straight.bits());
    }
}

#[test]
fn a_record_of_another_optimizer_is_refused() {
    let error = |optimizer: MasterOptimizer, record| match optimizer.load_record(record) {
        Ok(_) => panic!("a record that does not fit was loaded"),
        Err(error) => error.to_string(),
    };
    let adamw = || MasterOptimizer::new(AdamWConfig::new());
    let burns = || MasterOptimizer::new(ModuleOptimizer::from(optim::SgdConfig::new().build()));
    let text = error(MasterOptimizer::new(SgdConfig::new()), adamw().to_record());
    assert!(
        text.contains("another optimizer (adamw) than the configured one (sgd)"),
        "{text}"
    );
    let text = error(burns(), adamw().to_record());
    assert!(text.contains("mantissa's"), "{text}");
    let text = error(adamw(), burns().to_record());
    assert!(text.contains("one of Burn's"), "{text}");

    let (mut network, mut optimizer) = (Network::new(), adamw());
    train(&mut network, &mut optimizer, &mut LossScaler::none(), 0..1);
    let bytes = optimizer.to_record().into_bytes().unwrap();
    let cut = OptimizerRecord::Fused(bytes[..bytes.len() - 1].to_vec());
    assert!(error(adamw(), cut).contains("cannot be read"));
    assert!(error(adamw(), OptimizerRecord::Fused(Vec::new())).contains("cannot be read"));
}
