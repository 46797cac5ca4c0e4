//! The guard on operands of known distributions and on losses of known shape.

use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::decision::{Change, Decision};
use mantissa_plan::evidence::OperandEvidence;
use mantissa_plan::guard::{
    Divergence, Fault, Guard, Measurement, Outcome, Sample, Settings, Skip, State, Verdict,
};
use mantissa_plan::{Evidence, Pass, PassSample, Plan, Recipe, Role, Site, SiteKind, Thresholds};

const ROWS: usize = 32;
const DEPTH: usize = 256;
const SEED: u64 = 7;

fn sites() -> Vec<Site> {
    ["inner", "outer"]
        .map(|name| Site::new(name, SiteKind::Linear))
        .to_vec()
}

fn plan(numerics: &str) -> Plan {
    let text = format!(
        "schema = 1\nname = \"test\"\n[[rules]]\nsites = \"*\"\nlhs = \"{numerics}\"\nrhs = \"{numerics}\"\n\
         grad = \"{numerics}\"\n"
    );
    Plan::from_recipe(&Recipe::from_toml(&text).unwrap(), &sites()).unwrap()
}

/// Gaussian operands; one feature of the left one of `inner` in the forward pass is `outlier` times as large.
fn samples(step: u64, outlier: f32) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (index, site) in sites().into_iter().enumerate() {
        for pass in Pass::ALL {
            let draw = |side: u64| {
                let stream = side + 2 * pass as u64 + 10 * index as u64;
                student_t(f64::INFINITY, RandomBits::new(step, stream), ROWS * DEPTH)
            };
            let (mut left, right) = (draw(0), draw(1));
            if index == 0 && pass == Pass::Forward {
                left.iter_mut().step_by(DEPTH).for_each(|x| *x *= outlier);
            }
            let amax = |rows: &[f32]| rows.iter().fold(0.0, |top: f32, x| top.max(x.abs()));
            samples.push(Sample {
                site: site.name.clone(),
                pass,
                rows: PassSample {
                    step,
                    batch: 1,
                    outer_left: ROWS,
                    outer_right: ROWS,
                    depth: DEPTH,
                    left_amax: amax(&left),
                    right_amax: amax(&right),
                    left,
                    right,
                },
            });
        }
    }
    samples
}

fn measure(
    guard: &mut Guard,
    plan: &mut Plan,
    step: u64,
    outlier: f32,
) -> (Vec<Measurement>, Vec<Decision>) {
    guard.measure(plan, &samples(step, outlier), SEED)
}

fn applied(loss: f64) -> Outcome {
    Outcome::Applied { loss }
}

/// A guard that has seen a quiet run.
fn quiet(settings: Settings, steps: u64) -> Guard {
    let mut guard = Guard::new(settings);
    for step in 0..steps {
        let verdict = guard.see_step(step, applied(2.0 + 0.01 * (step % 7) as f64));
        assert_eq!(verdict, Verdict::GoOn);
    }
    guard
}

/// Steps of this outcome until the guard wants more than to go on.
fn until_verdict(guard: &mut Guard, from: u64, outcome: &Outcome) -> (u64, Verdict) {
    for step in from..from + 1000 {
        match guard.see_step(step, outcome.clone()) {
            Verdict::GoOn => {}
            verdict => return (step, verdict),
        }
    }
    panic!("nothing happened");
}

fn divergence(verdict: Verdict) -> Divergence {
    match verdict {
        Verdict::Diverged(divergence) => divergence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn operands_in_budget_are_measured_and_left_alone() {
    let (mut guard, mut plan) = (Guard::new(Settings::default()), plan("int8/tensor"));
    let before = plan.clone();
    for step in 0..5 {
        let (measurements, decisions) = measure(&mut guard, &mut plan, 50 * step, 1.0);
        assert_eq!(decisions, []);
        assert_eq!(measurements.len(), 6);
        let first = &measurements[0];
        assert_eq!(
            (first.step, first.site.as_str(), first.pass),
            (50 * step, "inner", Pass::Forward)
        );
        // Two Gaussian operands of INT8 with one scale each: 1e-3 at this depth, and the bound is 4e-3 * sqrt(512 / 256).
        assert!(
            (5e-4..2e-3).contains(&first.backward_error.unwrap()),
            "{first:?}"
        );
        assert!(first.backward_error_high >= first.backward_error);
        assert!((first.backward_error_bound.unwrap() - 5.657e-3).abs() < 1e-5);
        let lhs = &first.operands[&Role::Lhs];
        assert!(
            lhs.nu.unwrap() > 15.0 && lhs.underflow.unwrap() < 0.05,
            "{lhs:?}"
        );
        assert_eq!(lhs.saturation, Some(0.0));
    }
    assert_eq!(plan, before);
}

#[test]
fn what_a_budget_accepted_is_in_budget() {
    let strict = Settings {
        thresholds: Thresholds {
            forward_backward_error: 1e-4,
            gradient_backward_error: 1e-4,
            underflow: 1e-3,
            gradient_underflow: 1e-3,
            ..Thresholds::default()
        },
        ..Settings::default()
    };
    let promotes = |plan: &mut Plan| {
        let (measurements, decisions) = measure(&mut Guard::new(strict.clone()), plan, 0, 1.0);
        (measurements, !decisions.is_empty())
    };
    let (measurements, promoted) = promotes(&mut plan("int8/tensor"));
    assert!(promoted);

    // Over all sampled steps less than in the worst one.
    let of_operand = |underflow: f64| OperandEvidence {
        underflow: underflow / 5.0,
        underflow_worst_step: Some(underflow),
        saturation: 0.0,
        bias: 0.0,
    };
    let mut accepted = plan("int8/tensor");
    for measured in &measurements {
        let site = accepted
            .sites
            .iter_mut()
            .find(|site| site.name == measured.site);
        let evidence = Evidence {
            samples: 1,
            first_step: 0,
            last_step: 0,
            outputs: 1024,
            depth: DEPTH as u64,
            cost: 0.5,
            cost_share: None,
            quality_loss: None,
            quality_loss_high: None,
            backward_error: measured.backward_error.unwrap() / 5.0,
            backward_error_high: measured.backward_error_high.unwrap() / 5.0,
            backward_error_worst_step: measured.backward_error_high,
            // A budget bounds no single product.
            backward_error_bound: f64::INFINITY,
            margin: 0.0,
            tightest: "backward error".to_string(),
            rule: String::new(),
            operands: measured
                .operands
                .iter()
                .map(|(&role, operand)| (role, of_operand(operand.underflow.unwrap())))
                .collect(),
            runner_up: None,
            rejected: None,
            promotion: None,
        };
        site.unwrap().evidence.insert(measured.pass, evidence);
    }
    let promotes_with = |change: fn(&mut Evidence)| {
        let mut changed = accepted.clone();
        let sites = changed.sites.iter_mut();
        sites
            .flat_map(|site| site.evidence.values_mut())
            .for_each(change);
        promotes(&mut changed).1
    };
    assert!(promotes_with(|evidence| evidence.operands.clear()));
    assert!(promotes_with(|evidence| {
        evidence.backward_error_worst_step = None;
    }));
    assert!(promotes_with(|evidence| {
        for operand in evidence.operands.values_mut() {
            operand.underflow_worst_step = None;
        }
    }));
    let (again, promoted) = promotes(&mut accepted);
    assert!(!promoted);
    for measured in again {
        assert_eq!(measured.backward_error_bound, measured.backward_error_high);
    }
}

#[test]
fn an_outlier_promotes_the_operand_that_has_it() {
    let (mut guard, mut plan) = (Guard::new(Settings::default()), plan("int8/tensor"));
    measure(&mut guard, &mut plan, 0, 1.0);
    let (measurements, decisions) = measure(&mut guard, &mut plan, 50, 1000.0);
    let [decision] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    let Change::Promoted(change) = &decision.change else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (change.site.as_str(), change.pass, decision.step),
        ("inner", Pass::Forward, 50)
    );
    assert_eq!(change.from[&Role::Lhs].to_string(), "int8/tensor");
    assert_ne!(change.to[&Role::Lhs], change.from[&Role::Lhs]);
    // A channel is a row here, and every row has the outlier: only blocks or a wider format help.
    assert_ne!(change.to[&Role::Lhs].to_string(), "int8/channel");
    assert_eq!(
        plan.site("inner")
            .unwrap()
            .numerics
            .forward
            .by_role(Pass::Forward),
        change.to
    );
    let evidence = decision.evidence.as_ref().unwrap();
    assert!(evidence.value > 4.0 * evidence.bound, "{decision}");
    assert!(
        measurements[0].backward_error > Some(0.01),
        "{:?}",
        measurements[0]
    );
    // What was promoted to is in budget.
    let (_, decisions) = measure(&mut guard, &mut plan, 100, 1000.0);
    assert_eq!(decisions, []);
}

#[test]
fn what_was_promoted_goes_back_when_the_outlier_is_gone() {
    let settings = Settings {
        demote_after: 4,
        ..Settings::default()
    };
    let (mut guard, mut plan) = (Guard::new(settings), plan("int8/tensor"));
    let before = plan.clone();
    measure(&mut guard, &mut plan, 0, 1000.0);
    assert_ne!(plan, before);
    let mut demoted = Vec::new();
    for step in 1..10 {
        let (_, decisions) = measure(&mut guard, &mut plan, step, 1.0);
        demoted.extend(decisions);
    }
    let [decision] = &demoted[..] else {
        panic!("{demoted:?}")
    };
    assert_eq!(decision.step, 4);
    assert!(matches!(&decision.change, Change::Demoted(change) if change.site == "inner"));
    assert_eq!(plan, before);
}

#[test]
fn a_guard_goes_on_from_its_state_as_it_would_have() {
    let mut plan_1 = plan("e4m3/tensor");
    let mut plan_2 = plan_1.clone();
    let settings = Settings {
        demote_after: 3,
        dwell: 1,
        ..Settings::default()
    };
    let mut whole = Guard::new(settings.clone());
    let mut parts = Guard::new(settings.clone());
    for step in 0..30 {
        let outlier = if step % 13 < 6 { 1.0 } else { 3e4 };
        let loss = 2.0 + (step as f64).sin() * if step > 20 { 3.0 } else { 0.1 };
        let one = (
            whole.see_step(step, applied(loss)),
            measure(&mut whole, &mut plan_1, step, outlier),
        );
        let text = serde_json::to_string(parts.state()).unwrap();
        let state: State = serde_json::from_str(&text).unwrap();
        assert_eq!(&state, parts.state());
        parts = Guard::from_state(settings.clone(), state);
        let other = (
            parts.see_step(step, applied(loss)),
            measure(&mut parts, &mut plan_2, step, outlier),
        );
        assert_eq!(one, other);
        assert_eq!((&plan_1, &whole), (&plan_2, &parts));
    }
}

#[test]
fn a_loss_that_stays_high_is_a_divergence_and_a_single_spike_is_none() {
    let mut guard = quiet(Settings::default(), 100);
    assert_eq!(guard.see_step(100, applied(9.0)), Verdict::GoOn);
    assert!(guard.is_in_trouble() && guard.is_due(101));
    assert_eq!(guard.see_step(101, applied(2.0)), Verdict::GoOn);
    assert!(!guard.is_in_trouble() && !guard.is_due(102));
    let (step, verdict) = until_verdict(&mut guard, 102, &applied(9.0));
    let found = divergence(verdict);
    assert_eq!((step, found.step, found.since), (105, 105, 102));
    assert_eq!(found.evidence.metric, "loss");
    assert!(found.evidence.value == 9.0 && found.evidence.bound < 3.0);
}

#[test]
fn streaks_of_skips_are_divergences() {
    let skipped = |kind| Outcome::Skipped { kind, fault: None };
    for (kind, steps) in [
        (Skip::Backward, 20),
        (Skip::Forward, 4),
        (Skip::Weights, 1),
        (Skip::Exhausted, 1),
    ] {
        let mut guard = quiet(Settings::default(), 50);
        let (step, verdict) = until_verdict(&mut guard, 50, &skipped(kind));
        assert_eq!(step, 50 + steps - 1, "{kind:?}");
        assert_eq!(divergence(verdict).since, 50);
        // A step that succeeds ends the streak.
        let mut guard = quiet(Settings::default(), 50);
        for step in 50..300 {
            let outcome =
                if step % steps == 0 && steps > 1 || kind == Skip::Backward && step % 7 == 0 {
                    applied(2.0)
                } else {
                    skipped(kind)
                };
            if steps > 1 {
                assert_eq!(guard.see_step(step, outcome), Verdict::GoOn);
            }
        }
    }
}

#[test]
fn a_rollback_promotes_what_grew() {
    let (mut guard, mut plan) = (quiet(Settings::default(), 60), plan("int8/tensor"));
    measure(&mut guard, &mut plan, 50, 1.0);
    let state = guard.state().clone();
    guard.see_step(60, applied(9.0));
    // The whole operand grows: nothing of its quantization error tells.
    let mut grown = samples(61, 1.0);
    let rows = &mut grown[3].rows;
    rows.right.iter_mut().for_each(|x| *x *= 4096.0);
    rows.right_amax *= 4096.0;
    let (_, decisions) = guard.measure(&mut plan, &grown, SEED);
    assert_eq!(decisions, []);
    let (_, verdict) = until_verdict(&mut guard, 61, &applied(9.0));
    let found = divergence(verdict);
    assert_eq!(guard.go_back_before(&found), 60);
    let decisions = guard.roll_back(&mut plan, &found, 55, Some(&state));
    let [rolled_back, promoted] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    assert_eq!(rolled_back.change, Change::RolledBack { to_step: 55 });
    assert!(
        rolled_back
            .reason
            .contains("outer (forward): growth of the amax of rhs"),
        "{rolled_back}"
    );
    assert!(matches!(&promoted.change, Change::Promoted(change) if change.site == "outer"));
    assert_eq!(
        plan.site("outer")
            .unwrap()
            .numerics
            .forward
            .right
            .to_string(),
        "int8/channel"
    );
    assert!(!guard.is_in_trouble());
    assert_eq!(guard.rollbacks(), 1);
}

#[test]
fn a_rollback_promotes_what_overflowed() {
    let (mut guard, mut plan) = (quiet(Settings::default(), 60), plan("e5m2/unscaled"));
    let outcome = Outcome::Skipped {
        kind: Skip::Forward,
        fault: Some(Fault {
            site: "outer".into(),
            pass: Pass::Forward,
            operand: Role::Lhs,
            count: 12,
        }),
    };
    let (_, verdict) = until_verdict(&mut guard, 60, &outcome);
    let decisions = guard.roll_back(&mut plan, &divergence(verdict), 50, None);
    assert_eq!(decisions.len(), 2, "{decisions:?}");
    assert!(
        decisions[1].reason.contains("non-finite elements of lhs"),
        "{}",
        decisions[1]
    );
    assert_eq!(
        plan.site("outer")
            .unwrap()
            .numerics
            .forward
            .left
            .to_string(),
        "e5m2/tensor"
    );
    assert_eq!(
        plan.site("inner")
            .unwrap()
            .numerics
            .forward
            .left
            .to_string(),
        "e5m2/unscaled"
    );
}

#[test]
fn a_rollback_promotes_all_where_nothing_stands_out_and_ends_after_some() {
    let (mut guard, mut plan) = (quiet(Settings::default(), 60), plan("int8/tensor"));
    measure(&mut guard, &mut plan, 50, 1.0);
    let state = guard.state().clone();
    let mut before = Vec::new();
    for rollback in 0..3 {
        let (_, verdict) = until_verdict(&mut guard, 60, &applied(9.0));
        let found = divergence(verdict);
        before.push(guard.go_back_before(&found));
        let to_step = 50 - 10 * rollback;
        let decisions = guard.roll_back(&mut plan, &found, to_step, Some(&state));
        assert_eq!(decisions.len(), 7, "{decisions:?}");
        assert!(
            decisions[0].reason.contains("no pass stands out"),
            "{}",
            decisions[0]
        );
    }
    // Each time further back, since the trouble began at the same step again.
    assert_eq!(before, [60, 50, 40]);
    assert_eq!(
        plan.site("outer")
            .unwrap()
            .numerics
            .grad_rhs
            .left
            .to_string(),
        "bf16"
    );
    let (_, verdict) = until_verdict(&mut guard, 60, &applied(9.0));
    assert!(matches!(verdict, Verdict::GiveUp(_)));
}

#[test]
fn decisions_are_flat_json() {
    let (mut guard, mut plan) = (Guard::new(Settings::default()), plan("int8/tensor"));
    let (measurements, decisions) = measure(&mut guard, &mut plan, 50, 1000.0);
    let text = serde_json::to_string(&decisions[0]).unwrap();
    for part in [
        r#"{"step":50,"kind":"promoted","site":"inner","pass":"forward","from":{"lhs":"int8/tensor","rhs":"int8/tensor"},"to":{"lhs":""#,
        r#""reason":"underflow of lhs may be 9."#,
        r#""metric":"underflow of lhs","value":0.9"#,
        r#","bound":0.1}"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(
        serde_json::from_str::<Decision>(&text).unwrap(),
        decisions[0]
    );
    let text = serde_json::to_string(&measurements[1]).unwrap();
    assert!(
        text.starts_with(r#"{"step":50,"site":"inner","pass":"grad_lhs","backward_error":"#),
        "{text}"
    );
    assert_eq!(
        serde_json::from_str::<Measurement>(&text).unwrap(),
        measurements[1]
    );

    let text = r#"{"step":9,"kind":"rolled_back","to_step":3,"reason":"why"}"#;
    let decision: Decision = serde_json::from_str(text).unwrap();
    assert_eq!(decision.change, Change::RolledBack { to_step: 3 });
    assert_eq!(serde_json::to_string(&decision).unwrap(), text);
}

#[test]
fn senseless_settings_are_refused() {
    assert_eq!(Settings::default().check(), Ok(()));
    let refused = |settings: Settings| settings.check().unwrap_err();
    assert!(
        refused(Settings {
            every: 0,
            ..Settings::default()
        })
        .contains("guard.every")
    );
    assert!(
        refused(Settings {
            tolerance: 0.5,
            ..Settings::default()
        })
        .contains("guard.tolerance")
    );
    assert!(
        refused(Settings {
            far_out: 1.1,
            ..Settings::default()
        })
        .contains("guard.far_out")
    );
    assert!(
        refused(Settings {
            demote_below: 2.0,
            ..Settings::default()
        })
        .contains("guard.demote_below")
    );
}
