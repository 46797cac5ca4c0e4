//! Predicted quality loss, the choice within a budget, and what is said about plans: on profiles of small networks whose
//! operands and gradients are known.

use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::evaluate::{Evaluator, Excerpt};
use mantissa_plan::noise::Examples;
use mantissa_plan::quality::PERSISTENCE;
use mantissa_plan::{
    Candidates, Choice, OperandStatistics, Pass, PassNumerics, PassSample, Plan, Policy, Profile,
    Recipe, Role, Site, SiteKind, Source, Target, choose, choose_after, explain, predict,
    predict_cost, sensitivity, violations,
};
use mantissa_quant::Numerics;

const ROWS: usize = 96;
const DEPTH: usize = 48;
const COLUMNS: usize = 64;

fn numerics(text: &str) -> Numerics {
    text.parse().unwrap()
}

fn both(text: &str) -> PassNumerics {
    PassNumerics::both(numerics(text))
}

fn normal(stream: u64, count: usize, nu: f64, unit: f32) -> Vec<f32> {
    let drawn = student_t(nu, RandomBits::new(77, stream), count);
    drawn.iter().map(|x| x * unit).collect()
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column]))
        .collect()
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, x| top.max(x.abs()))
}

/// All three passes of a site in a step: L is `[rows, depth]`, R `[depth, columns]`, G `[rows, columns]`.
struct Measured {
    rows: usize,
    depth: usize,
    columns: usize,
    left: Vec<f32>,
    right: Vec<f32>,
    gradient: Vec<f32>,
}

impl Measured {
    fn record(&self, profile: &mut Profile, site: &str, step: u64) {
        let &Measured {
            rows,
            depth,
            columns,
            ..
        } = self;
        let left_t = transposed(&self.left, rows, depth);
        let right_t = transposed(&self.right, depth, columns);
        let gradient_t = transposed(&self.gradient, rows, columns);
        let passes = [
            (Pass::Forward, &self.left, rows, &right_t, columns, depth),
            (
                Pass::GradLhs,
                &self.gradient,
                rows,
                &self.right,
                depth,
                columns,
            ),
            (Pass::GradRhs, &left_t, depth, &gradient_t, columns, rows),
        ];
        for (pass, left, outer_left, right, outer_right, depth) in passes {
            let sample = PassSample {
                step,
                batch: 1,
                outer_left,
                outer_right,
                depth,
                left: left.clone(),
                right: right.clone(),
                left_amax: amax(left),
                right_amax: amax(right),
            };
            let of = |outer, values: &[f32]| {
                OperandStatistics::of(step, [1, outer, depth], amax(values), values)
            };
            let (left, right) = (of(outer_left, left), of(outer_right, right));
            profile.record(site, pass, sample, left, right).unwrap();
        }
    }
}

/// A table, two linear layers that read the same tensor, a product of activations, and a head. `heads_unit` is the magnitude of
/// the head's inputs, `gradients` that of all gradients.
fn network(tails: f64, heads_unit: f32, gradients: f32) -> Profile {
    let sites = [
        Site::new("token", SiteKind::Embedding),
        Site::new("layer.query", SiteKind::Linear),
        Site::new("layer.key", SiteKind::Linear),
        Site::new("layer.scores", SiteKind::Matmul),
        Site::new("head", SiteKind::Linear),
    ];
    let mut profile = Profile::new(&sites);
    for step in 0..2 {
        for (index, site) in sites
            .iter()
            .enumerate()
            .filter(|(_, site)| site.kind.is_product())
        {
            let reader = if index == 2 { 1 } else { index as u64 };
            let stream = 100 * step + 10 * reader;
            let unit = if site.name == "head" { heads_unit } else { 1.0 };
            let own = 100 * step + 10 * index as u64;
            let measured = Measured {
                rows: ROWS,
                depth: DEPTH,
                columns: COLUMNS,
                left: normal(stream, ROWS * DEPTH, tails, unit),
                right: normal(own + 1, DEPTH * COLUMNS, f64::INFINITY, 0.1),
                gradient: normal(own + 2, ROWS * COLUMNS, 4.0, 1e-3 * gradients),
            };
            measured.record(&mut profile, &site.name, step);
        }
    }
    profile
}

fn uniform(text: &str, profile: &Profile) -> Plan {
    let recipe = format!(
        "schema = 1\nname = \"uniform\"\n[[rules]]\nsites = \"*\"\nlhs = \"{text}\"\nrhs = \"{text}\"\ngrad = \"{text}\"\n"
    );
    bound(&recipe, profile)
}

fn bound(recipe: &str, profile: &Profile) -> Plan {
    let sites: Vec<Site> = profile.sites.iter().map(|site| site.site.clone()).collect();
    Plan::from_recipe(&Recipe::from_toml(recipe).unwrap(), &sites).unwrap()
}

fn loss(plan: &Plan, profile: &Profile) -> f64 {
    let prediction = predict(plan, profile, &Policy::default()).unwrap();
    let loss = prediction.quality_loss;
    assert!(loss.low() <= loss.estimate() && loss.estimate() <= loss.high());
    loss.estimate()
}

fn within(budget: f64) -> Policy {
    Policy {
        choice: Choice::Budget(budget),
        ..Policy::default()
    }
}

/// The prediction for the last product against what noise there does to a cross-entropy loss.
#[test]
fn noise_of_the_logits_raises_the_loss_as_predicted() {
    const CLASSES: usize = 8;
    const EXAMPLES: usize = 4096;
    let left = normal(1, EXAMPLES * DEPTH, f64::INFINITY, 1.0);
    let right = normal(2, DEPTH * CLASSES, f64::INFINITY, 0.15);
    let logits: Vec<f64> = (0..EXAMPLES * CLASSES)
        .map(|index| {
            let (row, class) = (index / CLASSES, index % CLASSES);
            let terms = (0..DEPTH)
                .map(|k| f64::from(left[row * DEPTH + k]) * f64::from(right[k * CLASSES + class]));
            terms.sum()
        })
        .collect();
    // Labels are drawn from the model itself, so that its Fisher information is the curvature of the loss.
    let probabilities = |logits: &[f64]| -> Vec<f64> {
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        logits.iter().map(|x| x.exp() / total).collect()
    };
    let uniform_bits = RandomBits::new(5, 5);
    let mut labels = Vec::new();
    let mut gradient = Vec::new();
    for (row, logits) in logits.chunks(CLASSES).enumerate() {
        let p = probabilities(logits);
        let mut rest = f64::from(uniform_bits.at(row as u64)) / 2f64.powi(32);
        let label = p.iter().position(|p| {
            rest -= p;
            rest < 0.0
        });
        let label = label.unwrap_or(CLASSES - 1);
        let target = |class| f64::from(u8::from(class == label));
        gradient.extend(
            (0..CLASSES).map(|class| ((p[class] - target(class)) / EXAMPLES as f64) as f32),
        );
        labels.push(label);
    }
    let cross_entropy = |logits: &[f64]| -> f64 {
        let terms = logits.chunks(CLASSES).zip(&labels);
        terms
            .map(|(logits, &label)| -probabilities(logits)[label].ln())
            .sum::<f64>()
            / EXAMPLES as f64
    };
    let squared: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();

    let mut profile = Profile::new(&[Site::new("head", SiteKind::Linear)]);
    let measured = Measured {
        rows: EXAMPLES,
        depth: DEPTH,
        columns: CLASSES,
        left,
        right,
        gradient,
    };
    measured.record(&mut profile, "head", 0);
    let sample = &profile.sites[0].passes[&Pass::Forward].samples[0];
    let excerpts = [Excerpt::new(sample, EXAMPLES * CLASSES)];
    let policy = Policy {
        outputs: EXAMPLES * CLASSES,
        ..Policy::default()
    };
    for token in ["e4m3/tensor", "e5m2/tensor/stochastic", "nvfp4"] {
        let mut evaluator = Evaluator::new(&excerpts, 0, 0).with_noise(Examples::None);
        let noise = evaluator.pair(both(token)).noise.unwrap();
        let deviation = noise.power.value.sqrt();
        // The mean over noise of either sign is what is of second order.
        let noise = normal(9, logits.len(), f64::INFINITY, 1.0);
        let moved = |sign: f64| -> f64 {
            let moved: Vec<f64> = logits
                .iter()
                .zip(&noise)
                .map(|(logit, &e)| logit + sign * deviation * f64::from(e))
                .collect();
            cross_entropy(&moved)
        };
        let raised = 0.5 * (moved(1.0) + moved(-1.0)) - cross_entropy(&logits);
        let plan = uniform(token, &profile);
        let prediction = predict(&plan, &profile, &policy).unwrap();
        let forward = prediction.passes[0].quality_loss.unwrap();
        // The loss in nats is half the predicted share, times the mean squared gradient of an example.
        let predicted = 0.5 * forward.estimate() * squared * EXAMPLES as f64;
        assert!(
            (predicted / raised - 1.0).abs() < 0.1,
            "{token}: {predicted:e} predicted, {raised:e} found"
        );
    }
}

/// Probabilities of rare classes are the gradients that are too small for a format with one scale. They are small, and all of
/// one sign: what is lost of them is lost for every example, which the products of two batches' errors show.
#[test]
fn bias_is_what_batches_have_in_common() {
    const CLASSES: usize = 32;
    const EXAMPLES: usize = 256;
    let mean = normal(40, DEPTH, f64::INFINITY, 1.0);
    let batch = |step: u64| {
        let noise = normal(50 + step, EXAMPLES * DEPTH, f64::INFINITY, 1.0);
        let left = (0..noise.len()).map(|i| noise[i] + mean[i % DEPTH]);
        let labels = RandomBits::new(6, step);
        let gradient = (0..EXAMPLES * CLASSES).map(|i| {
            // Each rare class is one label in a thousand, and the model knows.
            let label = u64::from(labels.at((i / CLASSES) as u64) % 1000);
            let class = (i % CLASSES) as u64;
            let p = if class < 31 { 1e-3 } else { 1.0 - 31e-3 };
            p - f32::from(u8::from(class == label.min(31)))
        });
        let (left, gradient): (Vec<f32>, Vec<f32>) = (left.collect(), gradient.collect());
        PassSample {
            step,
            batch: 1,
            outer_left: DEPTH,
            outer_right: CLASSES,
            depth: EXAMPLES,
            left: transposed(&left, EXAMPLES, DEPTH),
            right: transposed(&gradient, EXAMPLES, CLASSES),
            left_amax: amax(&left),
            right_amax: 1.0,
        }
    };
    let samples: Vec<PassSample> = (0..16).map(batch).collect();
    let excerpts: Vec<Excerpt> = samples
        .iter()
        .map(|sample| Excerpt::new(sample, DEPTH * CLASSES))
        .collect();
    let noise = |grad: &str| {
        let pair = PassNumerics {
            left: numerics("fp32"),
            right: numerics(grad),
        };
        let mut evaluator = Evaluator::new(&excerpts, 3, 0).with_noise(Examples::Depth);
        evaluator.pair(pair).noise.unwrap()
    };

    // Σ x f(g) of every batch.
    let products = |f: &dyn Fn(f32) -> f64| -> Vec<Vec<f64>> {
        let of_batch = |sample: &PassSample| {
            let row = |of: &[f32], row: usize| of[row * EXAMPLES..][..EXAMPLES].to_vec();
            let outputs = (0..DEPTH * CLASSES).map(|i| {
                let left = row(&sample.left, i / CLASSES);
                let right = row(&sample.right, i % CLASSES);
                left.iter()
                    .zip(right)
                    .map(|(&x, g)| f64::from(x) * f(g))
                    .sum()
            });
            outputs.collect()
        };
        samples.iter().map(of_batch).collect()
    };
    // What rare classes lose is −p; the rest is rounded.
    let errors = products(&|g| {
        let steps = f64::from(g) * 127.0;
        (steps.round_ties_even() - steps) / 127.0
    });
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let pairs = (0..16).flat_map(|i| (0..i).map(move |j| (i, j)));
    let common: f64 = pairs.map(|(i, j)| dot(&errors[i], &errors[j])).sum::<f64>() / 120.0;
    let all: f64 = errors.iter().map(|error| dot(error, error)).sum::<f64>() / 16.0;

    let signal: f64 = products(&|x| f64::from(x))
        .iter()
        .map(|product| dot(product, product))
        .sum::<f64>()
        / 16.0;
    assert!(common > 0.9 * all, "{common} of {all}");

    let nearest = noise("int8/tensor");
    let deviation = nearest.bias.variance.unwrap().sqrt();
    assert!(
        (nearest.bias.value + 1.96 * deviation - common / signal).abs() < deviation,
        "{nearest:?}"
    );
    assert!(deviation < 0.2 * common / signal);
    // Rounding that is right on average has none, and adds up to less even in one step.
    let stochastic = noise("int8/tensor/stochastic");
    assert!(
        stochastic.angle.value < 0.1 * nearest.angle.value,
        "{stochastic:?}"
    );
    assert!(
        stochastic.bias.value < 0.1 * stochastic.angle.value,
        "{stochastic:?}"
    );
    // A format with exponents of its own keeps them.
    assert!(noise("e4m3/tensor").bias.value < 0.05 * nearest.bias.value);
}

#[test]
fn the_prediction_orders_formats_and_does_not_depend_on_the_loss_scale() {
    let profile = network(5.0, 1.0, 1.0);
    let scaled = network(5.0, 1.0, 1024.0);
    let losses: Vec<f64> = ["fp32", "bf16", "e4m3/tensor", "e5m2/tensor", "nvfp4"]
        .iter()
        .map(|token| {
            let plan = uniform(token, &profile);
            let (one, other) = (loss(&plan, &profile), loss(&plan, &scaled));
            assert!((one - other).abs() <= 1e-6 * one, "{token}: {one} {other}");
            one
        })
        .collect();
    assert!(losses.is_sorted() && losses[0] == 0.0, "{losses:?}");
    // Twice the relative error is four times the power.
    assert!((3.0..5.0).contains(&(losses[3] / losses[2])), "{losses:?}");
    // Gradients that vanish leave nothing of a step, and the loss scale of the plan brings them back.
    let tiny = network(5.0, 1.0, 1e-6);
    assert_eq!(loss(&uniform("fp16", &tiny), &tiny), f64::INFINITY);
    let mut scaling = uniform("fp16", &tiny);
    scaling.loss_scaling = mantissa_plan::LossScaling::dynamic();
    let prediction = predict(&scaling, &tiny, &Policy::default()).unwrap();
    assert_eq!(prediction.loss_scale, 65536.0);
    assert!(prediction.quality_loss.estimate() < 0.1);
    let large = network(5.0, 1.0, 1e6);
    let prediction = predict(&scaling, &large, &Policy::default()).unwrap();
    assert!(prediction.loss_scale < 64.0 && prediction.quality_loss.estimate() < 0.1);
}

#[test]
fn losses_add_up_over_sites_and_passes() {
    let profile = network(5.0, 1.0, 1.0);
    let plan = uniform("e4m3/tensor", &profile);
    let prediction = predict(&plan, &profile, &Policy::default()).unwrap();
    let parts = prediction
        .passes
        .iter()
        .map(|pass| pass.quality_loss.unwrap().estimate());
    assert!((parts.sum::<f64>() / prediction.quality_loss.estimate() - 1.0).abs() < 1e-9);
    let shares: f64 = prediction.passes.iter().map(|pass| pass.cost_share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(prediction.passes.len(), 12);
    // Four weight tensors, the table among them: each is a quarter of the parameters' gradient.
    let by = |site: &str, pass: Pass| {
        let found = prediction
            .passes
            .iter()
            .find(|found| found.site == site && found.pass == pass);
        let found = found.unwrap();
        let noise = found.error.noise.unwrap();
        found.quality_loss.unwrap().estimate()
            / (noise.angle.value + (PERSISTENCE - 1.0) * noise.bias.value)
    };
    assert!((by("head", Pass::GradRhs) - 0.25).abs() < 1e-9);
    // Three of them lie before the head, one before the layer, whose input two sites read.
    assert!((by("head", Pass::GradLhs) - 0.75).abs() < 1e-9);
    assert!((by("layer.key", Pass::GradLhs) - 0.125).abs() < 1e-9);
    assert!((by("layer.scores", Pass::GradRhs) - 0.375).abs() < 1e-9);
    let f32 = predict(&uniform("fp32", &profile), &profile, &Policy::default()).unwrap();
    assert!((f32.cost - 1.0).abs() < 1e-9 && f32.quality_loss.high() == 0.0);
    // The cost alone is the same sum on every target.
    for name in Target::preset_names() {
        let policy = Policy::for_target(name).unwrap();
        let cost = predict_cost(&plan, &profile, &policy.target).unwrap();
        let whole = predict(&plan, &profile, &policy).unwrap().cost;
        assert!((cost / whole - 1.0).abs() < 1e-9, "{name}: {cost}, {whole}");
    }
}

#[test]
fn a_budget_is_kept_and_more_of_it_never_costs_more() {
    let profile = network(4.0, 1.0, 1.0);
    let mut cost = f64::INFINITY;
    for budget in [0.0, 1e-5, 1e-3, 1e-2, 0.1, 1.0] {
        let plan = choose(&profile, &within(budget)).unwrap();
        let made = plan.prediction.clone().unwrap();
        assert_eq!(
            (made.policy.as_str(), made.budget),
            ("budget", Some(budget))
        );
        assert!(made.quality_loss_high <= budget * 1.001, "{made:?}");
        assert!(made.cost <= cost * 1.001, "{made:?}");
        cost = made.cost;
        assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan);
        let prediction = predict(&plan, &profile, &within(budget)).unwrap();
        assert_eq!(violations(&prediction, &within(budget), Some(budget)), []);
        if budget == 0.0 {
            assert!(plan.sites.iter().all(|site| site.numerics.is_fp32()));
            assert!((made.cost - 1.0).abs() < 1e-3);
        }
    }
    assert!(cost < 0.5, "{cost}");
    // As much as a recipe loses buys at least what the recipe saves.
    let recipe = uniform("e4m3/tensor", &profile);
    let prediction = predict(&recipe, &profile, &Policy::default()).unwrap();
    let highs = prediction.passes.iter();
    let highs = highs.map(|pass| pass.quality_loss.unwrap().high());
    let mut policy = within(highs.sum());
    policy.thresholds.gradient_bias = f64::INFINITY;
    let plan = choose(&profile, &policy).unwrap();
    assert!(plan.prediction.unwrap().cost <= prediction.cost * 1.001);
}

#[test]
fn a_budget_goes_where_it_buys_most() {
    // The head's logits are thirty times as large as those of the layers before it, and so is what noise does to them.
    let profile = network(f64::INFINITY, 30.0, 1.0);
    let plan = choose(&profile, &within(0.05)).unwrap();
    let spent = |site: &str| plan.site(site).unwrap().evidence[&Pass::Forward].cost;
    assert!(spent("head") > spent("layer.query"), "{:?}", plan.sites);
    let text = explain(&plan, "head").unwrap();
    for part in [
        "within a budget of 5.00 % of a step's progress",
        "Predicted quality loss:",
        "Next cheaper:",
        "more of a step's progress",
        "the budget weighs it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_budget_weighs_what_becomes_zero() {
    // Tails so heavy that one scale for a whole tensor leaves most of it below half a step of INT8.
    let profile = network(1.5, 1.0, 1.0);
    let candidates = Candidates {
        lhs: vec![numerics("int8/tensor"), numerics("fp32")],
        rhs: vec![numerics("int8/tensor"), numerics("fp32")],
        grad: vec![numerics("int8/tensor/stochastic"), numerics("fp32")],
    };
    let policy = |choice| Policy {
        choice,
        candidates: candidates.clone(),
        ..Policy::default()
    };
    let of_query = |policy: &Policy| {
        let plan = choose(&profile, policy).unwrap();
        plan.site("layer.query").unwrap().clone()
    };
    let by_thresholds = of_query(&policy(Choice::Thresholds));
    assert_eq!(by_thresholds.numerics.forward.left, numerics("fp32"));
    let bounds = policy(Choice::Thresholds).thresholds;
    let wide = of_query(&policy(Choice::Budget(10.0)));
    let of_inputs = wide.evidence[&Pass::Forward].operands[&Role::Lhs];
    assert_eq!(wide.numerics.forward, both("int8/tensor"));
    assert!(of_inputs.underflow > bounds.underflow, "{of_inputs:?}");
    // A step by itself may be worse than all together, and is what a guard will see.
    let of_product = &wide.evidence[&Pass::Forward];
    assert!(of_product.backward_error_worst_step.unwrap() >= of_product.backward_error);
    assert!(of_inputs.underflow_worst_step.unwrap() >= of_inputs.underflow);
    assert_eq!(
        by_thresholds.evidence[&Pass::Forward].backward_error_worst_step,
        None
    );
    // It costs what its noise takes, and a budget that has not got that does without.
    let evidence = &wide.evidence[&Pass::Forward];
    let narrow = of_query(&policy(Choice::Budget(1e-6)));
    assert!(evidence.quality_loss_high.unwrap() > 1e-6);
    assert_eq!(narrow.numerics.forward.left, numerics("fp32"));
}

#[test]
fn a_budget_that_cannot_be_kept_says_what_can() {
    let profile = network(4.0, 1.0, 1.0);
    let eight_bits = || Candidates {
        lhs: vec![numerics("e4m3/tensor"), numerics("e5m2/tensor")],
        rhs: vec![numerics("e4m3/tensor")],
        grad: vec![numerics("e4m3/tensor/stochastic")],
    };
    let policy = |budget| Policy {
        candidates: eight_bits(),
        ..within(budget)
    };
    let message = choose(&profile, &policy(1e-9)).unwrap_err().to_string();
    assert!(
        message.contains("cannot be kept") && message.contains("fp32"),
        "{message}"
    );
    let least = message
        .split("lose ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let least: f64 = least.parse().unwrap();
    assert!(
        choose(&profile, &policy(least * 1.001)).is_ok(),
        "{message}"
    );
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        let message = choose(&profile, &within(wrong)).unwrap_err().to_string();
        assert!(message.contains("at least 0"), "{message}");
    }
    // No candidate clears the rule that gradients need unbiased rounding or a bound on bias.
    let mut strict = policy(1.0);
    strict.candidates.grad = vec![numerics("e4m3/tensor")];
    strict.thresholds.gradient_bias = 0.0;
    let message = choose(&profile, &strict).unwrap_err().to_string();
    assert!(
        message.contains("bias of grad") && message.contains("gradient_bias"),
        "{message}"
    );
}

#[test]
fn what_says_nothing_is_not_budgeted_for() {
    let sites = [
        Site::new("a", SiteKind::Linear),
        Site::new("head", SiteKind::Linear),
    ];
    let fill = |value: f32, count| vec![value; count];
    for (rows, value, gradient) in [
        (ROWS, 0.0, 0.0),
        (ROWS, f32::NAN, 1.0),
        (1, 1.0, 1.0),
        (ROWS, 2.0, 1.0),
    ] {
        let mut profile = Profile::new(&sites);
        for step in 0..2 {
            let odd = Measured {
                rows,
                depth: 1.max(DEPTH / 48),
                columns: 1,
                left: fill(value, rows),
                right: fill(value, 1),
                gradient: fill(gradient, rows),
            };
            if value.is_nan() {
                // An amax is finite; the elements need not be.
                let pass = |left: Vec<f32>, outer_left, right: Vec<f32>, depth| PassSample {
                    step,
                    batch: 1,
                    outer_left,
                    outer_right: 1,
                    depth,
                    left,
                    right,
                    left_amax: 0.0,
                    right_amax: 1.0,
                };
                let sample = pass(fill(f32::NAN, rows), rows, fill(1.0, 1), 1);
                let left = OperandStatistics::of(step, [1, rows, 1], 0.0, &sample.left);
                let right = OperandStatistics::of(step, [1, 1, 1], 1.0, &sample.right);
                profile
                    .record("a", Pass::Forward, sample, left, right)
                    .unwrap();
            } else {
                odd.record(&mut profile, "a", step);
            }
            let usual = Measured {
                rows: ROWS,
                depth: DEPTH,
                columns: COLUMNS,
                left: normal(3 * step, ROWS * DEPTH, 5.0, 1.0),
                right: normal(3 * step + 1, DEPTH * COLUMNS, 5.0, 0.1),
                gradient: normal(3 * step + 2, ROWS * COLUMNS, 5.0, 1e-3),
            };
            usual.record(&mut profile, "head", step);
        }
        let plan = choose(&profile, &within(0.02)).unwrap();
        let made = plan.prediction.clone().unwrap();
        assert!(made.quality_loss <= 0.02, "{value}: {made:?}");
        assert!(!plan.site("head").unwrap().numerics.is_fp32(), "{value}");
        assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan);
        explain(&plan, "a").unwrap();
        let found = sensitivity(&plan, &profile, &within(0.02)).unwrap();
        assert!(!found.is_empty());
    }
    // Without gradients noise weighs nothing that is known; thresholds still choose.
    let mut forward_only = network(5.0, 1.0, 1.0);
    for site in &mut forward_only.sites {
        site.passes.retain(|&pass, _| pass == Pass::Forward);
    }
    let message = choose(&forward_only, &within(0.01))
        .unwrap_err()
        .to_string();
    assert!(message.contains("no gradient"), "{message}");
    let plan = choose(&forward_only, &Policy::default()).unwrap();
    assert!(plan.prediction.is_none() && !plan.site("head").unwrap().numerics.is_fp32());
}

#[test]
fn plans_do_not_flap() {
    let profile = network(5.0, 1.0, 1.0);
    for policy in [Policy::default(), within(0.02)] {
        let first = choose(&profile, &policy).unwrap();
        assert_eq!(
            choose_after(&profile, &policy, Some(&first)).unwrap().sites,
            first.sites
        );
        // Another choice that is barely cheaper is not taken, one that is much cheaper is.
        let mut previous = first.clone();
        let site = previous
            .sites
            .iter_mut()
            .find(|site| site.name == "head")
            .unwrap();
        site.numerics.forward = both("int8/channel");
        let kept = choose_after(
            &profile,
            &Policy {
                hysteresis: 0.5,
                ..policy.clone()
            },
            Some(&previous),
        )
        .unwrap();
        assert_eq!(
            kept.site("head").unwrap().numerics.forward,
            both("int8/channel"),
            "{}",
            policy.choice.name()
        );
        let site = previous
            .sites
            .iter_mut()
            .find(|site| site.name == "head")
            .unwrap();
        site.numerics.forward = PassNumerics::FP32;
        site.numerics.grad_rhs = PassNumerics::FP32;
        let changed = choose_after(&profile, &policy, Some(&previous)).unwrap();
        assert_eq!(
            changed.site("head").unwrap().numerics,
            first.site("head").unwrap().numerics
        );
        // What no longer holds is not kept, however little is gained.
        let site = previous
            .sites
            .iter_mut()
            .find(|site| site.name == "head")
            .unwrap();
        site.numerics.grad_rhs = both("e2m1/tensor");
        let safe = choose_after(
            &profile,
            &Policy {
                hysteresis: 0.9,
                ..policy.clone()
            },
            Some(&previous),
        )
        .unwrap();
        assert_ne!(
            safe.site("head").unwrap().numerics.grad_rhs,
            both("e2m1/tensor")
        );
    }
    let plan = bound(
        "schema = 1\nname = \"none\"\n",
        &Profile::new(&[Site::new("other", SiteKind::Linear)]),
    );
    let message = choose_after(&profile, &Policy::default(), Some(&plan))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("another model") && message.contains("other"),
        "{message}"
    );
    let policy = Policy::default();
    let message = predict(&plan, &profile, &policy).unwrap_err().to_string();
    assert!(message.contains("another model"), "{message}");
    let alone = predict_cost(&plan, &profile, &policy.target).unwrap_err();
    assert_eq!(alone.to_string(), message);
}

#[test]
fn a_fresh_plan_is_within_its_bounds_and_another_profile_may_not_be() {
    let (profile, policy) = (network(6.0, 1.0, 1.0), Policy::default());
    let plan = choose(&profile, &policy).unwrap();
    let prediction = predict(&plan, &profile, &policy).unwrap();
    assert_eq!(violations(&prediction, &policy, None), []);
    // The head's inputs get an outlier far beyond the rest.
    let mut moved = network(6.0, 1.0, 1.0);
    let forward = moved.sites[4].passes.get_mut(&Pass::Forward).unwrap();
    for sample in &mut forward.samples {
        sample.left[0] = 3000.0;
        sample.left_amax = 3000.0;
    }
    let int8 = uniform("int8/tensor", &moved);
    let prediction = predict(&int8, &moved, &policy).unwrap();
    let found = violations(&prediction, &policy, Some(1e-6));
    let named = found.iter().find(|found| {
        found.site.as_deref() == Some("head")
            && found.pass == Some(Pass::Forward)
            && found.operand.is_some()
    });
    let named = named.unwrap();
    assert_eq!(
        (named.rule, named.metric, named.bound),
        ("underflow", "underflow", 0.1)
    );
    assert!(named.value > 0.9);
    let last = found.last().unwrap();
    assert_eq!((last.rule, last.site.as_deref()), ("budget", None));
    // Within a budget it is only what that loses.
    let found = violations(&prediction, &within(1e-6), Some(1e-6));
    assert!(found.iter().all(|found| found.rule != "underflow"));
    assert_eq!(found.last().unwrap().rule, "budget");
}

#[test]
fn exemptions_are_shown_to_pay_or_not() {
    // First and last in 16 bits, as people do; but it is the head's logits alone that matter.
    let profile = network(f64::INFINITY, 20.0, 1.0);
    let plan = bound(
        "schema = 1\nname = \"ends\"\n\
         [[rules]]\nsites = \"*\"\nonly = \"first\"\nlhs = \"bf16\"\nrhs = \"bf16\"\ngrad = \"bf16\"\n\
         [[rules]]\nsites = \"*\"\nlhs = \"e4m3\"\nrhs = \"e4m3\"\ngrad = \"e4m3/stochastic\"\n",
        &profile,
    );
    let mut policy = within(0.02);
    policy.thresholds.gradient_bias = f64::INFINITY;
    let found = sensitivity(&plan, &profile, &policy).unwrap();
    let of = |site: &str, pass: Pass| {
        let mut found = found
            .iter()
            .filter(|found| found.site == site && found.pass == pass);
        found.next().unwrap()
    };
    let head = of("head", Pass::Forward);
    let promotion = head.promotion.unwrap();
    assert!(head.pays && promotion.quality_loss < 0.0 && promotion.cost > 0.0);
    let exempt = of("layer.query", Pass::Forward);
    let demotion = exempt.demotion.unwrap();
    assert!(
        !exempt.pays
            && demotion.cost < 0.0
            && demotion.quality_loss < -0.1 * promotion.quality_loss
    );
    // Nothing pays in a plan that is the best within its budget, as far as one exchange can tell.
    let best = choose(&profile, &policy).unwrap();
    let paying = sensitivity(&best, &profile, &policy)
        .unwrap()
        .iter()
        .filter(|found| found.pays)
        .count();
    assert!(paying < found.iter().filter(|found| found.pays).count());
    let mut noted = best.clone();
    noted.note_sensitivity(&sensitivity(&best, &profile, &policy).unwrap());
    assert!(noted.sites.iter().any(|site| {
        site.evidence
            .values()
            .any(|evidence| evidence.promotion.is_some())
    }));
    assert_eq!(Plan::from_toml(&noted.to_toml().unwrap()).unwrap(), noted);
}

#[test]
fn policies_are_files_and_wrong_ones_are_refused() {
    let policy = Policy::from_toml(
        "schema = 1\nbudget = 0.03\ntarget = \"mi300\"\nhysteresis = 0.1\n[thresholds]\nunderflow = inf\n",
        None,
    )
    .unwrap();
    assert_eq!(
        (policy.choice, policy.target.name.as_str()),
        (Choice::Budget(0.03), "mi300")
    );
    assert!(policy.candidates.lhs.contains(&numerics("e4m3fnuz/tensor")));
    assert!(policy.warning().is_none());
    for (text, part) in [
        ("schema = 1\nchoice = \"budget\"\n", "left out"),
        (
            "schema = 1\nchoice = \"thresholds\"\nbudget = 0.1\n",
            "has no budget",
        ),
        ("schema = 1\nchoice = \"luck\"\n", "unknown variant"),
        ("schema = 1\nhysteresis = 1.5\n", "hysteresis must be"),
        ("schema = 1\n[thresholds]\nbias = -1.0\n", "bias must be"),
        ("schema = 1\n[thresholds]\nbiass = 1.0\n", "unknown field"),
        ("schema = 1\ntarget = \"h10\"\n", "did you mean `h100`"),
        ("schema = 2\n", "schema 2"),
    ] {
        let message = Policy::from_toml(text, None).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn targets_have_native_pairs_or_say_that_they_have_none() {
    let native = |target: &str, left: &str, right: &str| {
        let pair = PassNumerics {
            left: numerics(left),
            right: numerics(right),
        };
        Policy::for_target(target).unwrap().target.is_native(&pair)
    };
    for (target, left, right, expected) in [
        ("blackwell", "nvfp4", "nvfp4", true),
        ("blackwell", "nvfp4", "e2m1/tile16x16/two-level", true),
        ("blackwell", "nvfp4", "mxfp4", false),
        ("blackwell", "mxfp8", "e5m2/block32/e8m0", true),
        ("blackwell", "e4m3/block32", "e4m3/block32", false),
        ("h100", "e4m3/block128", "e4m3/tile128x128", true),
        ("h100", "e4m3/block64", "e4m3/block64", false),
        ("h100", "mxfp8", "mxfp8", false),
        ("mi300", "e4m3fnuz/tensor", "e5m2fnuz/tensor", true),
        ("mi300", "e4m3/tensor", "e4m3/tensor", false),
        ("tpu-v5", "int8/channel", "int8/tensor", true),
        ("tpu-v5", "e4m3/tensor", "e4m3/tensor", false),
    ] {
        assert_eq!(
            native(target, left, right),
            expected,
            "{target}: {left} x {right}"
        );
    }
    for name in Target::preset_names() {
        assert_eq!(Policy::for_target(name).unwrap().warning(), None, "{name}");
    }
    let bare = "schema = 1\nname = \"abacus\"\nreference = 64\notherwise = 0.9\nbandwidth = 0.1\n\
                [quantizing]\ntensor = 0.1\nchannel = 0.1\nblock = 0.1\nstochastic = 0.1\n";
    let policy = Policy::of(Target::from_toml(bare).unwrap());
    let warning = policy.warning().unwrap();
    assert!(
        warning.contains("abacus") && warning.contains("0.9 times"),
        "{warning}"
    );
    let plan = choose(&network(5.0, 1.0, 1.0), &policy).unwrap();
    assert!(plan.sites.iter().all(|site| site.numerics.is_fp32()));
    assert!(matches!(plan.source, Source::Profile { target, .. } if target == "abacus"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abacus.toml");
    std::fs::write(&path, bare).unwrap();
    assert_eq!(
        Policy::for_target(path.to_str().unwrap())
            .unwrap()
            .target
            .name,
        "abacus"
    );
    let missing = Policy::for_target("nowhere/at-all.toml")
        .unwrap_err()
        .to_string();
    assert!(missing.contains("nowhere/at-all.toml"), "{missing}");
    for (wrong, part) in [
        ("otherwise = 0.0", "a rate must be"),
        ("bandwidth = -1.0", "a cost must be"),
    ] {
        let field = wrong.split(' ').next().unwrap();
        let text: Vec<&str> = bare
            .lines()
            .map(|line| if line.starts_with(field) { wrong } else { line })
            .collect();
        let message = Target::from_toml(&text.join("\n")).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
