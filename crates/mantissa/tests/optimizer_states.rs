//! Optimizer states in few bits, parameter groups, gradient accumulation and schedules, through `MasterOptimizer`.

use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::{Module, Param};
use burn::optim;
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::{Linear, LinearConfig};
use mantissa::optimizer::{
    AdafactorConfig, AdamConfig, AdamWConfig, AppliedSchedule, GradientAccumulator, LambConfig,
    MasterOptimizer, MomentumConfig, OptimizerRecord, ParameterGroup, ParameterGroups,
    ParameterGroupsError, SgdConfig, StateFormat, StateFormats, Step, Update,
};
use mantissa::scaler::LossScaler;

fn device() -> Device {
    Device::flex().autodiff()
}

/// A weight large enough for states in few bits, and small parameters beside it.
#[derive(Module, Debug)]
struct Network {
    inner: Linear,
    outer: Linear,
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len)
        .map(|i| ((i * 7 + seed * 13) as f32 * 0.61).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

struct Deterministic(usize);

impl burn::module::ModuleMapper for Deterministic {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        param.map(|value| {
            let start = tensor(value.dims(), self.0).mul_scalar(0.2);
            start.detach().require_grad()
        })
    }
}

const INPUT: usize = 48;
const HIDDEN: usize = 96;

impl Network {
    fn new() -> Self {
        let network = Self {
            inner: LinearConfig::new(INPUT, HIDDEN).init(&device()),
            outer: LinearConfig::new(HIDDEN, 3).init(&device()),
        };
        network.map(&mut Deterministic(0))
    }

    fn loss_of(&self, input: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
        let hidden = gelu(self.inner.forward(input));
        (self.outer.forward(hidden) - target).powi_scalar(2).mean()
    }

    fn loss(&self, step: usize) -> Tensor<1> {
        let input = tensor::<2>([8, INPUT], step);
        self.loss_of(input.clone(), input.slice([0..8, 0..3]))
    }

    fn values(&self) -> Vec<f32> {
        let layers = [&self.inner, &self.outer];
        let biases = layers.map(|layer| layer.bias.as_ref().unwrap().val());
        let weights = layers.map(|layer| layer.weight.val().flatten(0, 1));
        let tensors = biases.into_iter().chain(weights);
        tensors
            .flat_map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<_>>())
            .collect()
    }

    fn bits(&self) -> Vec<u32> {
        self.values().iter().map(|x| x.to_bits()).collect()
    }
}

fn train(network: &mut Network, optimizer: &mut MasterOptimizer, steps: std::ops::Range<usize>) {
    let mut scaler = LossScaler::constant(1024.0);
    for step in steps {
        let gradients = scaler.scale(network.loss(step)).backward();
        let outcome = optimizer.step(1e-2, network, gradients, &mut scaler);
        assert!(matches!(outcome, Step::Applied { .. }));
    }
}

fn with_states(update: impl Into<Update>, states: &str, network: &Network) -> MasterOptimizer {
    let groups = ParameterGroups::with_states(states.parse().unwrap());
    MasterOptimizer::new(update)
        .with_groups(&groups, network)
        .unwrap()
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    let squares = left.iter().zip(right).map(|(l, r)| (l - r).powi(2));
    (squares.sum::<f32>() / left.len() as f32).sqrt()
}

fn rules() -> [Update; 4] {
    let momentum = MomentumConfig {
        momentum: 0.9,
        dampening: 0.0,
        nesterov: false,
    };
    [
        AdamWConfig::new().into(),
        AdamConfig::new().into(),
        LambConfig::new().into(),
        SgdConfig::new().with_momentum(Some(momentum)).into(),
    ]
}

#[test]
fn states_in_few_bits_learn_what_f32_learns() {
    let mean_loss = |network: &Network| {
        let losses = (0..4).map(|step| network.loss(step).into_scalar::<f32>());
        losses.sum::<f32>() / 4.0
    };
    // LAMB's steps are as long as they would be with f32 states, whatever their direction, so that it ends farther away.
    for (rule, farther) in rules().into_iter().zip([1.0, 1.0, 4.0, 1.0]) {
        let mut plain = Network::new();
        let (start, start_loss) = (plain.values(), mean_loss(&plain));
        train(&mut plain, &mut MasterOptimizer::new(rule.clone()), 0..60);
        let loss = mean_loss(&plain);
        println!("loss from {start_loss} to {loss}");
        assert!(loss < 0.7 * start_loss, "from {start_loss} to {loss}");
        let way = distance(&plain.values(), &start);
        // How far from f32's end, as a share of the way there.
        for (states, tolerance) in [
            ("bf16", 0.03),
            ("bf16/stochastic", 0.03),
            ("e4m3/tensor,fp16/tensor", 0.2),
            ("e4m3/block128/expanded", 0.1),
            ("e5m2/block128/expanded", 0.1),
            ("dynamic8", 0.2),
            ("dynamic4", 0.6),
        ] {
            let mut network = Network::new();
            let mut optimizer = with_states(rule.clone(), states, &network);
            train(&mut network, &mut optimizer, 0..60);
            let share = distance(&network.values(), &plain.values()) / way;
            println!("{states:<24} {share}");
            assert!(share < farther * tolerance, "{states}: {share}");
            assert!(share > 0.0, "{states} is not f32");
        }
    }
}

#[test]
fn lamb_and_adafactor_go_where_burns_go() {
    let runs: [(Update, Update); 5] = [
        (
            LambConfig::new().with_weight_decay(0.1).into(),
            optim::LambConfig::new()
                .with_weight_decay(0.1)
                .init()
                .into(),
        ),
        (
            LambConfig::new().with_use_trust_ratio(false).into(),
            optim::LambConfig::new()
                .with_use_trust_ratio(false)
                .init()
                .into(),
        ),
        (
            AdafactorConfig::new().into(),
            optim::AdafactorConfig::new().init().into(),
        ),
        (
            AdafactorConfig::new()
                .with_weight_decay(0.1)
                .with_clip_threshold(0.5)
                .into(),
            optim::AdafactorConfig::new()
                .with_weight_decay(0.1)
                .with_clip_threshold(0.5)
                .init()
                .into(),
        ),
        (
            AdafactorConfig::new()
                .with_relative_step(false)
                .with_scale_parameter(false)
                .into(),
            optim::AdafactorConfig::new()
                .with_relative_step(false)
                .with_scale_parameter(false)
                .init()
                .into(),
        ),
    ];
    for (index, (ours, burns)) in runs.into_iter().enumerate() {
        let [ours, burns] = [ours, burns].map(|update| {
            let mut network = Network::new();
            train(&mut network, &mut MasterOptimizer::new(update), 0..30);
            network.values()
        });
        let start = Network::new().values();
        let (off, way) = (distance(&ours, &burns), distance(&ours, &start));
        assert!(way > 1e-3, "{index}: nothing was learnt, {way}");
        assert!(off < 1e-4 * way, "{index}: {off} of {way}");
    }
}

#[test]
fn adafactor_takes_tensors_of_more_than_two_axes_as_burn_does() {
    let step = |update: Update| {
        let mut model = Param::from_tensor(tensor([3, 5, 7, 2], 1).require_grad());
        let mut optimizer = MasterOptimizer::new(update);
        for step in 0..5 {
            let loss = (model.val() * tensor([3, 5, 7, 2], step))
                .powi_scalar(2)
                .sum();
            let gradients = LossScaler::none().scale(loss).backward();
            let _ = optimizer.step(1e-2, &mut model, gradients, &mut LossScaler::none());
        }
        model.val().into_data().iter::<f32>().collect::<Vec<_>>()
    };
    let ours = step(AdafactorConfig::new().into());
    let burns = step(optim::AdafactorConfig::new().init().into());
    let start: Vec<f32> = tensor([3, 5, 7, 2], 1).into_data().iter::<f32>().collect();
    assert!(distance(&ours, &burns) < 1e-5 * distance(&ours, &start));
}

#[test]
fn resume_has_the_same_bits_in_every_format() {
    for rule in rules() {
        for (states, _) in StateFormat::PUBLISHED {
            let states = [states, "e4m3/block128/expanded/stochastic,bf16/stochastic"];
            for states in states {
                let mut straight = Network::new();
                let mut optimizer = with_states(rule.clone(), states, &straight).with_seed(3);
                train(&mut straight, &mut optimizer, 0..3);
                let bytes = optimizer.to_record().into_bytes().unwrap();
                assert_eq!(bytes, optimizer.to_record().into_bytes().unwrap());
                let mut resumed = straight.clone();
                train(&mut straight, &mut optimizer, 3..6);

                let mut optimizer = with_states(rule.clone(), states, &resumed)
                    .with_seed(3)
                    .load_record(OptimizerRecord::Fused(bytes))
                    .unwrap();
                train(&mut resumed, &mut optimizer, 3..6);
                assert_eq!(resumed.bits(), straight.bits(), "{states}");
            }
        }
    }
    let mut straight = Network::new();
    let mut optimizer = MasterOptimizer::new(AdafactorConfig::new());
    train(&mut straight, &mut optimizer, 0..3);
    let record = optimizer.to_record();
    let mut resumed = straight.clone();
    train(&mut straight, &mut optimizer, 3..6);
    let optimizer = MasterOptimizer::new(AdafactorConfig::new());
    train(
        &mut resumed,
        &mut optimizer.load_record(record).unwrap(),
        3..6,
    );
    assert_eq!(resumed.bits(), straight.bits());
}

#[test]
fn stochastic_states_follow_their_seed() {
    let run = |seed| {
        let mut network = Network::new();
        let optimizer = with_states(AdamWConfig::new(), "bf16/stochastic", &network);
        train(&mut network, &mut optimizer.with_seed(seed), 0..5);
        network.bits()
    };
    // The parameters' ids differ from network to network, and do not matter.
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_record_in_other_formats_is_refused_unless_it_is_to_be_converted() {
    let mut network = Network::new();
    let mut optimizer = with_states(AdamWConfig::new(), "dynamic8", &network);
    train(&mut network, &mut optimizer, 0..20);
    let bytes = optimizer.to_record().into_bytes().unwrap();
    let record = || OptimizerRecord::Fused(bytes.clone());
    let other = || with_states(AdamWConfig::new(), "e4m3/block128/expanded", &network);
    let Err(error) = other().load_record(record()) else {
        panic!("dynamic8 is not e4m3");
    };
    assert_eq!(
        error.to_string(),
        "the record has the first_moment of inner.weight as dynamic8/block256, and e4m3/block128/expanded is configured; \
         configure what was saved, or convert the record, which rounds the moments once"
    );
    let plain = MasterOptimizer::new(AdamWConfig::new());
    assert!(plain.load_record(record()).is_err());

    // What is converted goes on near to where it would have gone.
    let mut converted = network.clone();
    let mut continued = other().convert_record(record()).unwrap();
    let before = network.values();
    train(&mut converted, &mut continued, 20..40);
    train(&mut network, &mut optimizer, 20..40);
    let way = distance(&network.values(), &before);
    let off = distance(&network.values(), &converted.values());
    assert!(off < 0.2 * way, "{off} of {way}");

    let cut = OptimizerRecord::Fused(bytes[..bytes.len() - 1].to_vec());
    let optimizer = with_states(AdamWConfig::new(), "dynamic8", &network);
    assert!(optimizer.load_record(cut).is_err());
}

#[test]
fn groups_decide_by_path() {
    let network = Network::new();
    let states = |text: &str| text.parse::<StateFormats>().unwrap();
    let mut groups = ParameterGroups::with_states(states("dynamic8"));
    groups.groups = vec![
        ParameterGroup {
            states: Some(states("dynamic4")),
            ..ParameterGroup::of("outer.weight")
        },
        ParameterGroup {
            learning_rate_factor: 0.0,
            weight_decay: Some(0.0),
            ..ParameterGroup::of("*bias")
        },
    ];
    let optimizer = MasterOptimizer::new(AdamWConfig::new());
    let mut optimizer = optimizer.with_groups(&groups, &network).unwrap();
    let (inner, outer) = (INPUT * HIDDEN, HIDDEN * 3);
    let expected = 2 * (inner + 4 * inner.div_ceil(256))
        + 2 * (outer / 2 + 4 * outer.div_ceil(128))
        + 2 * 4 * (HIDDEN + 3);
    let states = optimizer.expected_states(&network);
    assert_eq!(
        states.iter().map(|(_, bytes)| bytes).sum::<usize>(),
        expected
    );
    assert_eq!(optimizer.state_bytes(), Some(0));
    let mut trained = network.clone();
    train(&mut trained, &mut optimizer, 0..3);
    assert_eq!(optimizer.state_bytes(), Some(expected));
    // A rate of zero keeps the biases.
    let biases = HIDDEN + 3;
    assert_eq!(trained.bits()[..biases], network.bits()[..biases]);
    assert_ne!(trained.bits()[biases..], network.bits()[biases..]);

    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    train(&mut trained, &mut optimizer, 0..1);
    let late = optimizer.with_groups(&groups, &network).err();
    assert_eq!(late, Some(ParameterGroupsError::TooLate));
    let burns = MasterOptimizer::new(optim::AdamWConfig::new().init());
    assert_eq!(
        burns.with_groups(&groups, &network).err(),
        Some(ParameterGroupsError::Burn)
    );
}

#[test]
fn factors_of_the_learning_rate_are_learning_rates() {
    let run = |factor, rate| {
        let mut network = Network::new();
        let group = ParameterGroup {
            learning_rate_factor: factor,
            weight_decay: Some(0.5),
            ..ParameterGroup::of("*")
        };
        let groups = ParameterGroups {
            groups: vec![group],
            ..ParameterGroups::default()
        };
        let mut optimizer = MasterOptimizer::new(AdamWConfig::new())
            .with_groups(&groups, &network)
            .unwrap();
        let mut scaler = LossScaler::none();
        for step in 0..3 {
            let gradients = scaler.scale(network.loss(step)).backward();
            let _ = optimizer.step(rate, &mut network, gradients, &mut scaler);
        }
        network.bits()
    };
    assert_eq!(run(0.25, 0.04), run(1.0, 0.01));
    let mut network = Network::new();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new().with_weight_decay(0.5));
    train(&mut network, &mut optimizer, 0..3);
    assert_eq!(network.bits(), run(1.0, 0.01));
}

#[test]
fn groups_that_decide_nothing_are_refused() {
    let network = Network::new();
    let error = |groups: &[&str]| {
        let groups = ParameterGroups {
            groups: groups.iter().map(|glob| ParameterGroup::of(glob)).collect(),
            ..ParameterGroups::default()
        };
        let optimizer = MasterOptimizer::new(AdamWConfig::new());
        optimizer
            .with_groups(&groups, &network)
            .err()
            .expect("nothing is decided")
            .to_string()
    };
    assert_eq!(
        error(&["*bias", "iner.weight"]),
        "parameter group 2: `iner.weight` decides no parameter: did you mean `inner.weight`?"
    );
    assert_eq!(
        error(&["*", "inner.*"]),
        "parameter group 2: `inner.*` decides no parameter: group 1 decides all that it matches; put it first"
    );
    assert!(error(&["[a"]).contains("`[a` is not a glob"));
    let groups = ParameterGroups {
        groups: vec![ParameterGroup {
            learning_rate_factor: f64::NAN,
            ..ParameterGroup::of("*")
        }],
        ..ParameterGroups::default()
    };
    let optimizer = MasterOptimizer::new(AdamWConfig::new());
    let error = optimizer
        .with_groups(&groups, &network)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("learning_rate_factor must be finite"),
        "{error}"
    );
}

#[test]
fn micro_batches_add_up_to_their_batch() {
    let rows = |from: usize, len: usize| {
        let input = tensor::<2>([8, INPUT], 1).slice([from..from + len, 0..INPUT]);
        (
            input,
            tensor::<2>([8, 3], 2).slice([from..from + len, 0..3]),
        )
    };
    let step = |parts: &[(usize, usize)]| {
        let mut network = Network::new();
        let mut scaler = LossScaler::constant(1024.0);
        let mut accumulator = GradientAccumulator::new();
        for &(from, len) in parts {
            let (input, target) = rows(from, len);
            let loss = network.loss_of(input, target);
            accumulator.push(&network, scaler.scale(loss).backward());
        }
        assert_eq!(accumulator.count() as usize, parts.len());
        let gradients = accumulator.finish(&network).unwrap();
        assert_eq!(accumulator.count(), 0);
        assert!(accumulator.finish(&network).is_none());
        let mut optimizer = MasterOptimizer::new(SgdConfig::new());
        let Step::Applied { gradient_norm, .. } =
            optimizer.step(0.1, &mut network, gradients, &mut scaler)
        else {
            panic!("all is finite");
        };
        (network.values(), gradient_norm)
    };
    let (whole, whole_norm) = step(&[(0, 8)]);
    for parts in [&[(0, 4), (4, 4)][..], &[(0, 2), (2, 2), (4, 2), (6, 2)]] {
        let (values, norm) = step(parts);
        let off = distance(&values, &whole);
        let way = distance(&whole, &Network::new().values());
        assert!(off < 1e-6 * way.max(1e-3), "{off} of {way}");
        assert!((norm / whole_norm - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_micro_batch_that_is_not_finite_skips_the_step() {
    for broken in 0..3 {
        let mut network = Network::new();
        let before = network.bits();
        let mut scaler = LossScaler::constant(4.0);
        let mut accumulator = GradientAccumulator::new();
        for part in 0..3 {
            let factor = if part == broken { f32::INFINITY } else { 1.0 };
            let loss = network.loss(part).mul_scalar(factor);
            accumulator.push(&network, scaler.scale(loss).backward());
        }
        let gradients = accumulator.finish(&network).unwrap();
        let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
        let step = optimizer.step(0.1, &mut network, gradients, &mut scaler);
        assert!(matches!(step, Step::Skipped { .. }), "{broken}");
        assert_eq!(network.bits(), before);
    }
}

#[test]
#[should_panic(expected = "the micro-batches of a step have one loss scale")]
fn micro_batches_of_different_scales_do_not_add_up() {
    let network = Network::new();
    let mut accumulator = GradientAccumulator::new();
    for scale in [1.0, 2.0] {
        let loss = LossScaler::constant(scale).scale(network.loss(0));
        accumulator.push(&network, loss.backward());
    }
}

#[test]
fn a_schedule_does_not_advance_on_skipped_steps() {
    let cosine = || {
        CosineAnnealingLrSchedulerConfig::new(0.1, 20)
            .init()
            .unwrap()
    };
    let mut burns = cosine();
    let expected: Vec<f64> = (0..6).map(|_| burns.step().base()).collect();
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]));

    let mut network = Network::new();
    let mut scaler = LossScaler::constant(4.0);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    let mut schedule = AppliedSchedule::new(cosine());
    let mut applied = Vec::new();
    for step in 0..9 {
        if step == 4 {
            let record = schedule.into_record();
            schedule = AppliedSchedule::new(cosine()).load_record(record);
        }
        let factor = if step % 3 == 1 { f32::NAN } else { 1.0 };
        let loss = network.loss(step).mul_scalar(factor);
        let gradients = scaler.scale(loss).backward();
        let rate = schedule.rate();
        let outcome = optimizer.step(rate.clone(), &mut network, gradients, &mut scaler);
        if matches!(outcome, Step::Applied { .. }) {
            applied.push(rate.base());
        }
        schedule.observe(&outcome);
    }
    assert_eq!(applied, expected);
}

#[test]
fn clipping_comes_after_unscaling_whatever_the_states() {
    let run = |scale: f32| {
        let mut network = Network::new();
        let mut optimizer =
            with_states(AdamWConfig::new(), "dynamic8", &network).with_max_norm(0.01);
        let mut scaler = LossScaler::constant(scale);
        for step in 0..3 {
            let gradients = scaler.scale(network.loss(step)).backward();
            let _ = optimizer.step(1e-2, &mut network, gradients, &mut scaler);
        }
        network.bits()
    };
    assert_eq!(run(1.0), run(65536.0));
}
