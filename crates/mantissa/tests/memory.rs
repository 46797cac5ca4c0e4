//! What training keeps in memory for each parameter, as the allocator counts it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use mantissa::nn::{Linear, LinearConfig};
use mantissa::optimizer::{AdamWConfig, ParameterGroups};
use mantissa::plan::{Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, Step, storage};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WIDTH: usize = 384;
const LAYERS: usize = 128;
const PARAMETERS: usize = LAYERS * WIDTH * WIDTH;

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    fn new(device: &Device) -> Self {
        let layer = LinearConfig::new(WIDTH, WIDTH).with_bias(false);
        Self {
            layers: (0..LAYERS).map(|_| layer.init(device)).collect(),
        }
    }

    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let layers = self.layers.iter();
        let y = layers.fold(x, |x, layer| layer.forward(x.clone()) + x);
        y.powi_scalar(2).mean()
    }
}

/// Bytes for each parameter.
#[derive(Debug)]
struct Memory {
    model: f64,
    gradients: f64,
    states: f64,
    /// The most that is alive at any time of a step, with activations and what is widened for a moment.
    peak: f64,
}

impl Memory {
    fn sum(&self) -> f64 {
        self.model + self.gradients + self.states
    }
}

/// Gives back to the allocator what was kept for the next step.
fn release(device: &Device) {
    let layer = LinearConfig::new(1, 1).init(device);
    let recipe = Recipe::preset("fp32").unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(&layer)).unwrap();
    let session = Session::bind(&layer, &plan, 0).unwrap();
    // Memory that a whole step has not used is freed when the next begins.
    session.begin_step(0);
    session.begin_step(1);
}

/// Trains for some steps and measures the last.
fn measured(recipe: &str) -> Memory {
    let device = Device::flex().autodiff();
    // Few rows, so that activations are small beside the parameters.
    let x = Tensor::<2>::random([2, WIDTH], Distribution::Default, &device);
    release(&device);
    let before = LIVE.load(Ordering::Relaxed);
    let per_parameter = |bytes: usize| bytes as f64 / PARAMETERS as f64;
    let model = Stack::new(&device);
    let recipe = Recipe::preset(recipe).unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(&model)).unwrap();
    let mut model = storage::store(model, &plan).unwrap();
    let session = Session::bind(&model, &plan, 0).unwrap();
    let live = || {
        release(&device);
        LIVE.load(Ordering::Relaxed) - before
    };
    let only_model = live();

    let groups = ParameterGroups::with_states(plan.states);
    let optimizer = MasterOptimizer::new(AdamWConfig::new());
    let mut optimizer = optimizer.with_groups(&groups, &model).unwrap();
    let mut scaler = LossScaler::none();
    let mut step = |number: u64, model: &mut Stack| {
        session.begin_step(number);
        PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        let loss = session.autocast(|| model.loss(x.clone()));
        let gradients = scaler.scale(loss).backward();
        let step = optimizer.step(1e-4, model, gradients, &mut scaler);
        assert!(matches!(step, Step::Applied { .. }), "{step:?}");
        PEAK.load(Ordering::Relaxed) - before
    };
    step(0, &mut model);
    step(1, &mut model);
    let peak = step(2, &mut model);

    let with_states = live();
    session.begin_step(3);
    let loss = session.autocast(|| model.loss(x.clone()));
    let gradients = loss.backward();
    let with_gradients = live();
    drop(gradients);
    Memory {
        model: per_parameter(only_model),
        gradients: per_parameter(with_gradients - with_states),
        states: per_parameter(with_states - only_model),
        peak: per_parameter(peak),
    }
}

#[test]
fn the_16_bytes_of_f32_adam_come_down_to_6_under_fp8_lm() {
    let plain = measured("fp32");
    let lean = measured("fp8-lm-o3");
    println!(
        "{PARAMETERS} parameters, bytes for each:\nfp32:      {plain:.3?}\nfp8-lm-o3: {lean:.3?}"
    );
    assert!((15.9..16.1).contains(&plain.sum()), "{plain:?}");
    assert!(lean.sum() <= 6.1, "{lean:?}");
    assert!(lean.peak <= 6.3, "{lean:?}");
    // Nothing is counted for less than it must take.
    assert!((1.95..2.1).contains(&lean.model), "{lean:?}");
    assert!((0.95..1.1).contains(&lean.gradients), "{lean:?}");
    assert!((2.95..3.1).contains(&lean.states), "{lean:?}");
}
