//! Products under quantized numerics equal a reference that quantizes with the scalar codec and multiplies in f64.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::Session;
use mantissa::plan::{
    LossScaling, Pass, PassNumerics, Plan, PlannedSite, Site, SiteKind, SiteNumerics, Source,
};
use mantissa_quant::Numerics;

const SITE: &str = "product";
const BATCH: [usize; 2] = [2, 3];
const ROWS: usize = 5;
const DEPTH: usize = 70;
const COLUMNS: usize = 33;

mod reference;

use reference::{Matrices, product as reference, values};

#[derive(Module, Debug)]
struct Nothing {}

fn session(numerics: SiteNumerics) -> Session {
    let site = Site::new(SITE, SiteKind::Matmul);
    let planned = PlannedSite::unmeasured(&site, numerics);
    let source = Source::Recipe("test".to_owned());
    let plan = Plan::new(source, LossScaling::None, vec![planned]).unwrap();
    Session::bind_with_products(&Nothing {}, &[site], &plan, 5).unwrap()
}

fn tensor(values: &[f32], [rows, columns]: [usize; 2]) -> Tensor<4> {
    let shape = [BATCH[0], BATCH[1], rows, columns];
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        &Device::flex().autodiff(),
    )
}

fn assert_within_rounding(what: &str, actual: Tensor<4>, expected: &[(f64, f64)], depth: usize) {
    let actual: Vec<f32> = actual.into_data().iter::<f32>().collect();
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (actual, (exact, magnitude))) in actual.iter().zip(expected).enumerate() {
        let bound = (depth as f64 + 4.0) * f64::from(f32::EPSILON) * magnitude;
        let error = (f64::from(*actual) - exact).abs();
        assert!(
            error <= bound,
            "{what}[{i}]: {actual} instead of {exact}, bound {bound}"
        );
    }
}

#[test]
fn all_three_passes_equal_the_scalar_reference() {
    let left = Matrices {
        values: values(6 * ROWS * DEPTH, 1),
        outer: ROWS,
        depth: DEPTH,
    };
    let right = Matrices {
        values: values(6 * DEPTH * COLUMNS, 2),
        outer: DEPTH,
        depth: COLUMNS,
    };
    let grad = Matrices {
        values: values(6 * ROWS * COLUMNS, 3),
        outer: ROWS,
        depth: COLUMNS,
    };
    let pairs = [
        ("int8/tensor", "int8/tensor"),
        ("int8/channel", "int8/channel"),
        ("int8/block32", "int8/channel"),
        ("e4m3/tensor", "e5m2/tensor"),
        ("e5m2/unscaled", "e4m3/channel"),
        ("mxfp8", "mxfp8"),
        ("bf16", "fp16"),
        ("e4m3/channel", "fp32"),
        ("int4/tensor", "e2m1/block32"),
    ];
    for (first, second) in pairs {
        let numerics = |text: &str| text.parse::<Numerics>().unwrap();
        let pass = PassNumerics {
            left: numerics(first),
            right: numerics(second),
        };
        // Different numerics in each pass, so that a mix-up of passes or operands shows.
        let swapped = PassNumerics {
            left: pass.right,
            right: pass.left,
        };
        let session = session(SiteNumerics {
            forward: pass,
            grad_lhs: swapped,
            grad_rhs: pass,
        });
        let (lhs, rhs) = (
            tensor(&left.values, [ROWS, DEPTH]).require_grad(),
            tensor(&right.values, [DEPTH, COLUMNS]).require_grad(),
        );
        session.begin_step(0);
        let output = session.autocast(|| mantissa::matmul(SITE, lhs.clone(), rhs.clone()));
        let expected = reference(&left, &right.transposed(), &pass);
        assert_within_rounding(
            &format!("{first} x {second} {}", Pass::Forward),
            output.clone(),
            &expected,
            DEPTH,
        );

        let upstream = tensor(&grad.values, [ROWS, COLUMNS]);
        let gradients = (output * upstream).sum().backward();
        let device = Device::flex().autodiff();
        let lhs_grad = Tensor::from_data(lhs.grad(&gradients).unwrap().into_data(), &device);
        let rhs_grad = Tensor::from_data(rhs.grad(&gradients).unwrap().into_data(), &device);
        let expected = reference(&grad, &right, &swapped);
        assert_within_rounding(
            &format!("{first} x {second} {}", Pass::GradLhs),
            lhs_grad,
            &expected,
            COLUMNS,
        );
        let expected = reference(&left.transposed(), &grad.transposed(), &pass);
        assert_within_rounding(
            &format!("{first} x {second} {}", Pass::GradRhs),
            rhs_grad,
            &expected,
            ROWS,
        );
    }
}

#[test]
fn batch_axes_broadcast_and_transposed_operands_need_no_copy() {
    let numerics = PassNumerics::both("int8/channel".parse().unwrap());
    let session = session(SiteNumerics {
        forward: numerics,
        grad_lhs: numerics,
        grad_rhs: numerics,
    });
    let device = Device::flex().autodiff();
    let lhs = tensor(&values(6 * ROWS * DEPTH, 1), [ROWS, DEPTH]);
    let one = Tensor::<4>::from_data(
        TensorData::new(values(COLUMNS * DEPTH, 2), [1, 1, COLUMNS, DEPTH]),
        &device,
    )
    .require_grad();
    let many = one.clone().repeat(&[BATCH[0], BATCH[1], 1, 1]);
    let product = |rhs: Tensor<4>| session.autocast(|| mantissa::matmul(SITE, lhs.clone(), rhs));
    let broadcast = product(one.clone().transpose());
    let copied = product(many.swap_dims(2, 3));
    assert_eq!(broadcast.clone().into_data(), copied.into_data());
    let gradients = broadcast.sum().backward();
    assert_eq!(one.grad(&gradients).unwrap().dims(), [1, 1, COLUMNS, DEPTH]);
}

#[test]
fn stochastic_bits_depend_on_seed_step_and_use_alone() {
    let numerics = PassNumerics::both("e4m3/tensor/stochastic".parse().unwrap());
    let all = SiteNumerics {
        forward: numerics,
        grad_lhs: numerics,
        grad_rhs: numerics,
    };
    let lhs = || tensor(&values(6 * ROWS * DEPTH, 1), [ROWS, DEPTH]);
    let rhs = || tensor(&values(6 * DEPTH * COLUMNS, 2), [DEPTH, COLUMNS]);
    let run = |session: &Session, step| {
        session.begin_step(step);
        session
            .autocast(|| mantissa::matmul(SITE, lhs(), rhs()))
            .into_data()
    };
    let first = session(all);
    let drawn = run(&first, 3);
    assert_eq!(drawn, run(&first, 3), "the same step again");
    assert_eq!(drawn, run(&session(all), 3), "another session");
    assert_ne!(drawn, run(&first, 4), "another step");

    first.begin_step(3);
    let twice =
        first.autocast(|| [(); 2].map(|()| mantissa::matmul(SITE, lhs(), rhs()).into_data()));
    assert_eq!(twice[0], drawn);
    assert_ne!(twice[1], drawn, "a site used twice in a step draws twice");
}

#[test]
fn a_fault_names_the_operand() {
    let numerics = PassNumerics::both("fp16".parse().unwrap());
    let session = session(SiteNumerics {
        forward: numerics,
        grad_lhs: numerics,
        grad_rhs: numerics,
    });
    let mut broken = values(6 * ROWS * DEPTH, 1);
    broken[17] = 1e30;
    session.begin_step(0);
    let rhs = tensor(&values(6 * DEPTH * COLUMNS, 2), [DEPTH, COLUMNS]);
    let _ = session.autocast(|| mantissa::matmul(SITE, tensor(&broken, [ROWS, DEPTH]), rhs));
    let faults = session.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(
        faults[0].to_string(),
        "1 non-finite in operand lhs of product (forward)"
    );
    session.begin_step(1);
    assert!(session.faults().is_empty());
}
