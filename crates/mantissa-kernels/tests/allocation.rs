//! Operations allocate nothing once their threads have their scratch memory. Attention is not here: the products of the `gemm` crate
//! allocate memory to pack into.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use mantissa_formats::RandomBits;
use mantissa_kernels::activation::Activation;
use mantissa_kernels::dropout::dropout_add;
use mantissa_kernels::embedding::embedding_gradient;
use mantissa_kernels::loss::{cross_entropy, cross_entropy_backward};
use mantissa_kernels::norm::{RowMoments, layer_norm, layer_norm_backward};
use mantissa_kernels::optimizer::{Adam, WeightDecay};
use mantissa_kernels::reduce::{column_sums, scan};
use mantissa_kernels::softmax::{softmax, softmax_backward};
use mantissa_kernels::state::{Moment, StateBuffer};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

const ROWS: usize = 256;
const WIDTH: usize = 256;

#[test]
fn the_second_time_nothing_is_allocated() {
    let x: Vec<f32> = (0..ROWS * WIDTH).map(|i| (i % 17) as f32 * 0.1).collect();
    let [mut out, mut grad] = [0; 2].map(|_| x.clone());
    let row = vec![1.0; WIDTH];
    let [mut sums, mut more_sums] = [0; 2].map(|_| vec![0.0; WIDTH]);
    let mut moments = vec![RowMoments::default(); ROWS];
    let ids = vec![3; ROWS];
    let mut log_sum_exp = vec![0.0; ROWS];
    let format = "dynamic8".parse().expect("a state format");
    let mut states = [Moment::First, Moment::Second]
        .map(|moment| StateBuffer::zeros(format, moment, ROWS * WIDTH));
    let adam = Adam::new([0.9, 0.999], 1e-8, WeightDecay::Decoupled(0.0), 1e-3, 1);
    // One thread, so that it is certain which one has its scratch memory.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let counts = pool.expect("a thread").install(|| {
        [0; 3].map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            layer_norm(&x, &row, None, 1e-5, &mut out, &mut moments);
            layer_norm_backward(
                &x,
                &moments,
                &row,
                &mut grad,
                &mut sums,
                Some(&mut more_sums),
            );
            Activation::Gelu.bias_forward(&mut grad, &row, &mut out);
            Activation::Gelu.bias_backward(&x, &mut grad, &mut sums);
            softmax(&mut out, WIDTH, 1.0, None);
            softmax_backward(&out, &mut grad, WIDTH, 1.0);
            cross_entropy(&x, WIDTH, &ids, &mut log_sum_exp);
            cross_entropy_backward(&mut out, WIDTH, &ids, &log_sum_exp, 1.0);
            dropout_add(&x, &mut out, 0.1, RandomBits::new(1, 2));
            embedding_gradient(&ids, &x, WIDTH, &mut out);
            column_sums(&x, WIDTH, &mut sums);
            scan(&x);
            let views = states.each_mut().map(|state| state.view(RandomBits::NONE));
            adam.update(1.0, &x, &mut out, views);
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
    });
    assert!(counts[0] > 0, "the count does not count");
    assert_eq!(counts[2], 0, "{counts:?}");
}
