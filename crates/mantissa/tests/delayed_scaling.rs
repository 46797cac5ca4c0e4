//! Operands with delayed scaling take their scales from the steps before.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mantissa::Session;
use mantissa::plan::{LossScaling, Plan, PlannedSite, Site, SiteKind, SiteNumerics, Source};

#[derive(Module, Debug)]
struct Nothing {}

fn session(lhs: &str) -> Session {
    let site = Site::new("product", SiteKind::Matmul);
    let mut numerics = SiteNumerics::FP32;
    numerics.forward.left = lhs.parse().unwrap();
    let planned = PlannedSite::unmeasured(&site, numerics);
    let source = Source::Recipe("test".to_owned());
    let plan = Plan::new(source, LossScaling::None, vec![planned]).unwrap();
    Session::bind_with_products(&Nothing {}, &[site], &plan, 5).unwrap()
}

/// `x` as the product of `step` sees it.
fn seen(session: &Session, step: u64, x: f32, training: bool) -> f32 {
    let device = Device::flex().autodiff();
    session.begin_step(step);
    let x = Tensor::<2>::from_floats([[x, 0.0]], &device);
    let x = if training { x.require_grad() } else { x };
    let identity = Tensor::<2>::eye(2, &device);
    let y = session.autocast(|| mantissa::matmul("product", x, identity));
    y.into_data().iter::<f32>().next().unwrap()
}

#[test]
fn a_scale_follows_a_step_later_and_saturates_until_then() {
    let session = session("int8/tensor/delayed1");
    assert_eq!(
        seen(&session, 0, 1.0, true),
        1.0,
        "the first step calibrates"
    );
    assert_eq!(
        seen(&session, 1, 4.0, true),
        1.0,
        "saturates at the amax before"
    );
    assert_eq!(
        seen(&session, 1, 4.0, true),
        1.0,
        "the same when computed again"
    );
    assert_eq!(seen(&session, 2, 4.0, true), 4.0);
    assert_eq!(
        seen(&session, 2, 100.0, false),
        4.0,
        "evaluation uses the scale"
    );
    assert_eq!(seen(&session, 3, 100.0, true), 4.0, "but teaches nothing");
    assert_eq!(seen(&session, 4, f32::INFINITY, true), 100.0);
    assert_eq!(
        seen(&session, 5, 100.0, true),
        100.0,
        "an overflowed step is not remembered"
    );
}

#[test]
fn a_history_holds_its_largest_until_it_is_too_old() {
    let session = session("int8/tensor/delayed2-margin1");
    let amaxes = [8.0, 0.9, 0.9, 0.9];
    let found: Vec<f32> = (0..)
        .zip(amaxes)
        .map(|(step, x)| seen(&session, step, x, true))
        .collect();
    // With a margin of one the codes reach to twice the amax.
    let rounded =
        |amax: f32, x: f32| (x / (2.0 * amax / 127.0)).round_ties_even() * (2.0 * amax / 127.0);
    let expected = [
        rounded(8.0, 8.0),
        rounded(8.0, 0.9),
        rounded(8.0, 0.9),
        rounded(0.9, 0.9),
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-6 * expected,
            "{found} {expected}"
        );
    }
    assert_ne!(expected[2], expected[3]);
}
