//! Several ranks, as threads, train one model: what they share, what they decide, and that it is what one rank does.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use burn::module::Module;
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use mantissa::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use mantissa::optimizer::AdamWConfig;
use mantissa::parallel::{Wire, fingerprint};
use mantissa::plan::{LossScaling, Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, SkipCause, Step, World};

const ROWS: usize = 8;
const LENGTH: usize = 5;
const WIDTH: usize = 16;

fn device() -> Device {
    Device::flex().autodiff()
}

/// The tests draw weights and dropout from the one generator that the device has in a process: each waits here for its turn.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Products with weights, products of activations, and dropout.
#[derive(Module, Debug)]
struct Network {
    first: Linear,
    attention: MultiHeadAttention,
    dropout: Dropout,
    last: Linear,
}

impl Network {
    fn new() -> Self {
        device().seed(3);
        let network = Self {
            first: LinearConfig::new(WIDTH, WIDTH).init(&device()),
            attention: MultiHeadAttentionConfig::new(WIDTH, 2)
                .with_dropout(0.0)
                .init(&device()),
            dropout: DropoutConfig::new(0.25).init(),
            last: LinearConfig::new(WIDTH, 4).init(&device()),
        };
        // Burn draws weights when they are first read.
        let _ = fingerprint(&network);
        network
    }

    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let hidden = self.dropout.forward(gelu(self.first.forward(input)));
        let seen = self.attention.forward(MhaInput::self_attn(hidden)).context;
        self.last.forward(seen)
    }
}

/// Some rows of the batch of a step.
fn rows(step: u64, rows: Range<usize>) -> Tensor<3> {
    let row = LENGTH * WIDTH;
    let value = |i: usize| ((i * 7 + step as usize * 131) as f32 * 0.61).sin();
    let values: Vec<f32> = (rows.start * row..rows.end * row).map(value).collect();
    Tensor::from_data(
        TensorData::new(values, [rows.len(), LENGTH, WIDTH]),
        &device(),
    )
}

fn plan(network: &Network, recipe: &str) -> Plan {
    let recipe = Recipe::preset(recipe).unwrap();
    Plan::from_recipe(&recipe, &mantissa::sites(network)).unwrap()
}

/// A network for each rank, all alike: backward passes in clones of one would wait for each other.
fn networks(ranks: usize) -> Vec<Network> {
    (0..ranks).map(|_| without_dropout()).collect()
}

/// Calls `rank` on each of as many threads, with its world.
fn on_ranks<T: Send>(ranks: usize, rank: impl Fn(World) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let running: Vec<_> = World::threads(ranks)
            .into_iter()
            .map(|world| scope.spawn(|| rank(world)))
            .collect();
        let ended = running.into_iter().map(|rank| rank.join());
        ended.map(|ended| ended.expect("no rank panics")).collect()
    })
}

/// What a rank comes to: the losses of its steps, its weights, and a checksum of them.
#[derive(PartialEq, Debug)]
struct Trained {
    losses: Vec<f32>,
    weights: Vec<f32>,
    fingerprint: String,
}

fn trained(world: &World, network: Network, recipe: &str, wire: Wire) -> Trained {
    trained_by(1.0, world, network, recipe, wire)
}

/// The same with losses times `factor`.
fn trained_by(
    factor: f32,
    world: &World,
    mut network: Network,
    recipe: &str,
    wire: Wire,
) -> Trained {
    let plan = plan(&network, recipe);
    let session = Session::bind(&network, &plan, 11).unwrap();
    session.join(world, wire);
    let mut scaler = LossScaler::for_plan(&plan);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new())
        .with_session(&session)
        .with_max_norm(1.0);
    let losses = (0..6).map(|step| {
        session.begin_step(step);
        let share = session.share(ROWS).unwrap();
        let loss = session.autocast(|| {
            let output = network.forward(rows(step, share.rows()));
            share.part((output - 0.3).powi_scalar(2).mean())
        });
        let gradients = scaler.scale(loss * factor).backward();
        match optimizer.step(1e-2, &mut network, gradients, &mut scaler) {
            Step::Applied { loss, .. } => loss,
            Step::Skipped { cause } => panic!("{cause}"),
        }
    });
    Trained {
        losses: losses.collect(),
        weights: [&network.first, &network.last]
            .into_iter()
            .flat_map(|layer| values(layer.weight.val()))
            .collect(),
        fingerprint: fingerprint(&network),
    }
}

/// How far two trained networks are apart, relative to how far training took the second.
fn distance(one: &[f32], other: &[f32], start: &[f32]) -> f64 {
    let square = |x: f32, y: f32| f64::from(x - y).powi(2);
    let apart: f64 = one.iter().zip(other).map(|(&x, &y)| square(x, y)).sum();
    let moved: f64 = start.iter().zip(other).map(|(&x, &y)| square(x, y)).sum();
    (apart / moved).sqrt()
}

fn start() -> Vec<f32> {
    let network = Network::new();
    [&network.first, &network.last]
        .into_iter()
        .flat_map(|layer| values(layer.weight.val()))
        .collect()
}

/// Dropout draws from the generator of the device, which all threads of a test share: ranks that are threads take steps
/// without it.
fn without_dropout() -> Network {
    Network {
        dropout: DropoutConfig::new(0.0).init(),
        ..Network::new()
    }
}

#[test]
fn ranks_do_what_one_rank_does_up_to_the_order_of_sums() {
    let _turn = turn();
    // Scales of a tensor or a channel are those of the whole batch; `mellempudi` rounds stochastically. `int8` rounds
    // gradients stochastically again for the weights' product, with bits of each rank's own.
    for (recipe, own) in [
        ("fp32", 0.0),
        ("bf16", 0.0),
        ("micikevicius", 0.0),
        ("mellempudi", 0.0),
        ("fp8-hybrid", 0.0),
        ("fp8-delayed", 0.0),
        ("fp8-rowwise", 0.0),
        ("int8", 0.05),
        ("int8-tensor", 0.0),
    ] {
        let alone = |factor| {
            trained_by(
                factor,
                &World::alone(),
                without_dropout(),
                recipe,
                Wire::F32,
            )
        };
        let one = alone(1.0);
        assert!(one.losses[5] < one.losses[0], "{recipe} learns");
        // Where a sum's last bit takes a value to its other neighbour on a coarse grid, so does a rounding of the loss.
        let rounded = [-2.0, -1.0, 1.0, 2.0].map(|ulps| alone(1.0 + ulps * f32::EPSILON));
        let from_one = |other: &Trained| distance(&other.weights, &one.weights, &start());
        let by_rounding = rounded.iter().map(from_one).fold(0.0, f64::max);
        for ranks in [2, 3, 8] {
            let train = || {
                let networks = networks(ranks);
                on_ranks(ranks, |world| {
                    let network = networks[world.rank()].clone();
                    trained(&world, network, recipe, Wire::F32)
                })
            };
            let together = train();
            assert!(together.windows(2).all(|pair| pair[0] == pair[1]));
            let (apart, bound) = (from_one(&together[0]), 1e-3 + 2.0 * by_rounding + own);
            assert!(
                apart < bound,
                "{recipe} on {ranks} ranks: {apart:e}, and by a rounding of the loss {by_rounding:e}"
            );
            let [first, expected] = [&together[0], &one].map(|trained| trained.losses[0]);
            assert!(
                (first - expected).abs() < 1e-6 * expected,
                "{recipe} on {ranks} ranks: {first} for {expected}"
            );
            assert_eq!(train(), together, "the same bits each time");
        }
    }
}

#[test]
fn narrow_wires_train_alike_on_all_ranks_and_near_the_wide_one() {
    let _turn = turn();
    let network = without_dropout();
    let train = |wire| on_ranks(2, |world| trained(&world, network.clone(), "fp32", wire));
    let wide = train(Wire::F32);
    for (wire, near) in [(Wire::Bf16, 0.05), (Wire::E4m3, 0.5)] {
        let narrow = train(wire);
        assert_eq!(narrow[0], narrow[1]);
        let apart = distance(&narrow[0].weights, &wide[0].weights, &start());
        assert!(apart > 0.0 && apart < near, "{wire}: {apart:e}");
        assert_eq!(train(wire), narrow, "the same bits each time");
    }
}

/// What a share's rows come to.
struct Passed {
    output: Vec<f32>,
    /// The input's gradient.
    gradient: Vec<f32>,
    /// The first weight's gradient, a summand of the whole batch's.
    summand: Vec<f32>,
}

fn passed(network: &Network, recipe: &str, world: &World) -> Passed {
    let session = Session::bind(network, &plan(network, recipe), 11).unwrap();
    session.join(world, Wire::F32);
    session.begin_step(4);
    device().seed(8);
    let share = session.share(ROWS).unwrap();
    let input = rows(4, share.rows()).require_grad();
    let output = session.autocast(|| network.forward(input.clone()));
    let loss = share.part(output.clone().powi_scalar(2).mean());
    let gradients = loss.backward();
    let gradient = input.grad(&gradients).expect("an input is a leaf");
    let weight = network.first.weight.val();
    let summand = weight.grad(&gradients).expect("a weight is a leaf");
    Passed {
        output: values(output.detach().inner()),
        gradient: values(gradient),
        summand: values(summand),
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Asserts that shares have the bits that their rows have in the whole batch.
fn assert_same_bits(shares: &[Passed], whole: &Passed, context: &str) {
    let rows_of: [fn(&Passed) -> &[f32]; 2] = [|passed| &passed.output, |passed| &passed.gradient];
    for of in rows_of {
        let whole = of(whole);
        let len = whole.len() / shares.len();
        for (place, (share, whole)) in shares.iter().zip(whole.chunks(len)).enumerate() {
            assert_eq!(of(share), whole, "{context}, rank {place}");
        }
    }
}

#[test]
fn the_scales_of_a_row_do_not_depend_on_its_rank() {
    let _turn = turn();
    for recipe in ["fp8-hybrid", "int8-tensor", "fp8-delayed", "fp8-rowwise"] {
        let whole = passed(&without_dropout(), recipe, &World::alone());
        let networks = networks(4);
        let shares = on_ranks(4, |world| passed(&networks[world.rank()], recipe, &world));
        assert_same_bits(&shares, &whole, recipe);
        let largest = whole
            .summand
            .iter()
            .fold(0.0, |most: f32, x| most.max(x.abs()));
        for (i, expected) in whole.summand.iter().enumerate() {
            let sum: f32 = shares.iter().map(|share| share.summand[i]).sum();
            let apart = (sum - expected).abs();
            assert!(apart < 1e-6 * largest, "{recipe}: {sum} for {expected}");
        }
    }
}

#[test]
fn ranks_that_compute_different_products_end_with_an_error() {
    let _turn = turn();
    let networks = networks(2);
    let ended = thread::scope(|scope| {
        let ranks = World::threads(2).into_iter().map(|world| {
            let network = &networks[world.rank()];
            scope.spawn(move || {
                let session = Session::bind(network, &plan(network, "fp8-hybrid"), 1).unwrap();
                session.join(&world, Wire::F32);
                let layers = [&network.first, &network.last];
                let input = rows(0, 0..1);
                session.autocast(|| layers[world.rank()].forward(input))
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks
            .into_iter()
            .map(|rank| rank.join())
            .collect::<Vec<_>>()
    });
    let panics = ended
        .into_iter()
        .map(|ended| ended.expect_err("they differ"));
    let messages: Vec<String> = panics
        .map(|panic| panic.downcast_ref::<String>().expect("a message").clone())
        .collect();
    let names = |site: &str| messages.iter().any(|message| message.contains(site));
    assert!(
        names("lhs of first (forward)") || names("lhs of last (forward)"),
        "{messages:?}"
    );
}

#[test]
fn the_random_bits_of_a_row_do_not_depend_on_its_rank() {
    let _turn = turn();
    let network = Network::new();
    let whole = passed(&network, "mellempudi", &World::alone());
    let other_seed = {
        device().seed(9);
        let session = Session::bind(&network, &plan(&network, "mellempudi"), 12).unwrap();
        session.begin_step(4);
        values(session.autocast(|| network.forward(rows(4, 0..ROWS))))
    };
    assert_ne!(whole.output, other_seed, "bits matter");
    // One rank after the other: threads of a test share the generator that dropout draws its stream from.
    let worlds = World::threads(4);
    let shares: Vec<_> = worlds
        .iter()
        .map(|world| passed(&network, "mellempudi", world))
        .collect();
    assert_same_bits(&shares, &whole, "mellempudi");
}

/// One step on inputs of which one row of the whole batch is `fault`; the scaler that it leaves, and the cause.
fn faulty_step(
    world: &World,
    mut network: Network,
    recipe: &str,
    fault: f32,
) -> (LossScaler, SkipCause, String) {
    let session = Session::bind(&network, &plan(&network, recipe), 1).unwrap();
    session.join(world, Wire::E4m3);
    let scaling: LossScaling = "torch-amp".parse().unwrap();
    let mut scaler = LossScaler::new(&scaling).unwrap();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
    session.begin_step(0);
    let share = session.share(ROWS).unwrap();
    let mut input = rows(0, share.rows());
    if share.rows().contains(&5) {
        let row = 5 - share.rows().start;
        input = input.slice_fill([row..row + 1, 0..1, 0..1], fault);
    }
    let loss = session.autocast(|| share.part(network.forward(input).powi_scalar(2).mean()));
    let gradients = scaler.scale(loss).backward();
    match optimizer.step(1e-2, &mut network, gradients, &mut scaler) {
        Step::Applied { .. } => panic!("a fault on one rank was overlooked"),
        Step::Skipped { cause } => (scaler, cause, fingerprint(&network)),
    }
}

#[test]
fn a_fault_on_one_rank_skips_the_step_on_all_for_the_same_cause() {
    let _turn = turn();
    let network = without_dropout();
    // FP8 takes an infinite element for its largest, and `int8-tensor` has no code for NaN.
    for (recipe, fault) in [
        ("fp16", f32::INFINITY),
        ("fp16", f32::NAN),
        ("fp8-hybrid", f32::NAN),
        ("int8-tensor", f32::NAN),
    ] {
        let (_, alone, _) = faulty_step(&World::alone(), network.clone(), recipe, fault);
        let networks = networks(3);
        let together = on_ranks(3, |world| {
            let network = networks[world.rank()].clone();
            faulty_step(&world, network, recipe, fault)
        });
        for (scaler, cause, weights) in &together {
            // The loss is NaN, which equals nothing.
            assert_eq!(format!("{cause:?}"), format!("{:?}", together[0].1));
            assert_eq!(
                cause.to_string(),
                alone.to_string().replace("of 80 ", "of 240 ")
            );
            assert!(!cause.faults.is_empty() && !cause.parameters.is_empty());
            assert_eq!(cause.verdict(), alone.verdict(), "{recipe}, {fault}");
            assert_eq!(scaler, &together[0].0);
            assert!(scaler.loss_scale() < LossScaler::new(&scaler.scaling()).unwrap().loss_scale());
            assert_eq!(*weights, fingerprint(&network), "nothing changed");
        }
    }
}

#[test]
fn ranks_of_different_models_end_with_an_error() {
    let _turn = turn();
    let ended = thread::scope(|scope| {
        let ranks = World::threads(2).into_iter().map(|world| {
            scope.spawn(move || {
                let d_output = 3 + world.rank();
                let mut layer = LinearConfig::new(4, d_output).init(&device());
                let recipe = Recipe::preset("fp32").unwrap();
                let plan = Plan::from_recipe(&recipe, &mantissa::sites(&layer)).unwrap();
                let session = Session::bind(&layer, &plan, 1).unwrap();
                session.join(&world, Wire::F32);
                let mut scaler = LossScaler::none();
                let loss =
                    session.autocast(|| layer.forward(Tensor::<2>::ones([2, 4], &device())).mean());
                let gradients = scaler.scale(loss).backward();
                let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
                optimizer.step(1e-2, &mut layer, gradients, &mut scaler)
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks
            .into_iter()
            .map(|rank| rank.join())
            .collect::<Vec<_>>()
    });
    for ended in ended {
        let panic = ended.expect_err("different models");
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("different models"), "{message}");
    }
}

#[test]
fn a_batch_too_small_for_the_ranks_is_an_error() {
    let _turn = turn();
    let network = Network::new();
    for error in on_ranks(3, |world| {
        let session = Session::bind(&network.clone(), &plan(&network, "fp32"), 0).unwrap();
        session.join(&world, Wire::F32);
        session.share(2).unwrap_err()
    }) {
        assert!(error.to_string().contains("2 rows"), "{error}");
    }
}
