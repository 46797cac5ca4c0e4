//! After its first steps, a training step whose layers are ours asks the allocator for no more memory of tensor size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use mantissa::optimizer::AdamWConfig;
use mantissa::plan::{Plan, Recipe};
use mantissa::{LossScaler, MasterOptimizer, Session, Step, nn};

/// Smaller requests are those of graphs, shapes and lists.
const TENSOR_SIZE: usize = 1 << 14;

struct Counting;

static LARGE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= TENSOR_SIZE {
            LARGE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Module, Debug)]
struct Network {
    inner: nn::Linear,
    norm: nn::LayerNorm,
    gelu: nn::Gelu,
    outer: nn::Linear,
    loss: nn::loss::CrossEntropyLoss,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            inner: nn::LinearConfig::new(96, 160).init(device),
            norm: nn::LayerNormConfig::new(160).init(device),
            gelu: nn::Gelu::new(),
            outer: nn::LinearConfig::new(160, 128).init(device),
            loss: nn::loss::CrossEntropyLossConfig::new().init(device),
        }
    }

    fn loss(&self, x: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let x = self.gelu.forward(self.norm.forward(self.inner.forward(x)));
        self.loss.forward(self.outer.forward(x), targets)
    }
}

/// On one thread: the scratch memory of another comes with its first task, which may be in any step.
#[test]
fn steps_after_the_first_allocate_no_tensors() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.unwrap().install(count_allocations);
}

fn count_allocations() {
    const ROWS: usize = 64;
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::random([ROWS, 96], Distribution::Default, &device);
    let targets: Vec<i64> = (0..ROWS as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [ROWS]), &device);
    for recipe in ["fp32", "bf16", "fp16", "fp8-hybrid", "mxfp8", "int8"] {
        let mut network = Network::new(&device);
        let recipe_plan = Recipe::preset(recipe).unwrap();
        let plan = Plan::from_recipe(&recipe_plan, &mantissa::sites(&network)).unwrap();
        let session = Session::bind(&network, &plan, 0).unwrap();
        let mut scaler = LossScaler::none();
        let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
        let mut step = |number| {
            session.begin_step(number);
            let loss = session.autocast(|| network.loss(x.clone(), targets.clone()));
            let gradients = scaler.scale(loss).backward();
            let step = optimizer.step(1e-3, &mut network, gradients, &mut scaler);
            assert!(matches!(step, Step::Applied { .. }));
        };
        (0..3).for_each(&mut step);
        let before = LARGE.load(Ordering::Relaxed);
        (3..6).for_each(&mut step);
        let asked = LARGE.load(Ordering::Relaxed) - before;
        assert_eq!(asked, 0, "{recipe}");
    }
}
