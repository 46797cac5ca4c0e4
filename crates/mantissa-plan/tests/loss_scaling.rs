//! How a loss scaling is written, read, and refused.

use mantissa_plan::loss_scaling::{
    DynamicScaling, EnhancedScaling, Floor, FloorStep, LogMaxScaling, Stall, UnderflowScaling,
};
use mantissa_plan::{LossScaling, Recipe};

fn read(scaling: &str) -> Result<LossScaling, String> {
    Recipe::from_toml(&format!(
        "schema = 1\nname = \"mine\"\nloss_scaling = {scaling}\n"
    ))
    .map(|recipe| recipe.loss_scaling)
    .map_err(|error| error.to_string())
}

/// What is read back from a recipe with this scaling.
fn printed_and_read(scaling: LossScaling) -> LossScaling {
    let mut recipe = Recipe::preset("fp32").unwrap();
    recipe.loss_scaling = scaling;
    Recipe::from_toml(&recipe.to_toml().unwrap())
        .unwrap()
        .loss_scaling
}

#[test]
fn every_preset_is_valid_and_written_as_its_name() {
    for (name, description) in LossScaling::presets() {
        let preset = LossScaling::preset(name).unwrap();
        assert_eq!(preset.check(), Ok(()), "{name}");
        assert_eq!(read(&format!("\"{name}\"")), Ok(preset.clone()));
        assert_eq!(preset.to_string(), name, "no other preset has its settings");
        assert_eq!(printed_and_read(preset.clone()), preset);
        assert!(description.ends_with('.'), "{name}");
        let mut recipe = Recipe::preset("fp32").unwrap();
        recipe.loss_scaling = preset;
        let line = format!("loss_scaling = \"{name}\"\n");
        assert!(recipe.to_toml().unwrap().contains(&line));
    }
}

#[test]
fn presets_have_the_constants_of_their_origin() {
    let dynamic = |name: &str| match LossScaling::preset(name).unwrap() {
        LossScaling::Dynamic(settings) => settings,
        other => panic!("{other}"),
    };
    let numbers = |name: &str| {
        let s = dynamic(name);
        assert_eq!((s.growth_factor, s.backoff_factor), (2.0, 0.5), "{name}");
        (s.init_scale.log2(), s.growth_interval, s.hysteresis)
    };
    assert_eq!(numbers("torch-amp"), (16.0, 2000, 1));
    assert_eq!(numbers("apex"), (16.0, 2000, 1));
    assert_eq!(numbers("deepspeed"), (16.0, 1000, 2));
    assert_eq!(numbers("megatron"), (32.0, 1000, 2));
    assert_eq!(dynamic("apex").max_scale, 2f32.powi(24));
    assert_eq!(dynamic("megatron").min_scale, 1.0);
    assert_eq!(
        (
            dynamic("deepspeed").min_scale,
            dynamic("deepspeed").stop_at_min
        ),
        (1.0, true)
    );
    assert!(dynamic("deepspeed-consecutive").consecutive_hysteresis);
}

#[test]
fn settings_of_ones_own_survive_the_file() {
    let dynamic = DynamicScaling {
        init_scale: 0.1,
        growth_factor: 1.1,
        growth_interval: 7,
        min_scale: 1e-3,
        ..DynamicScaling::TORCH_AMP
    };
    let step = |from_step, min_scale| FloorStep {
        from_step,
        min_scale,
    };
    let cases = [
        LossScaling::Constant(1024.0),
        LossScaling::Constant(0.1),
        LossScaling::Dynamic(dynamic),
        LossScaling::Enhanced(EnhancedScaling {
            dynamic,
            floor: Floor::Steps(vec![step(5, 2.0), step(9, 8.0)]),
        }),
        LossScaling::Enhanced(EnhancedScaling {
            dynamic,
            floor: Floor::Stall(Stall {
                smoothing: 0.0,
                improvement: 0.5,
                patience: 3,
                factor: 4.0,
                limit: 64.0,
            }),
        }),
        LossScaling::LogMax(LogMaxScaling {
            deviations: 1.0 / 3.0,
            ..LogMaxScaling::DEFAULT
        }),
        LossScaling::UnderflowAware(UnderflowScaling {
            format: mantissa_formats::Format::FP16,
            ..UnderflowScaling::DEFAULT
        }),
    ];
    for case in cases {
        assert_eq!(printed_and_read(case.clone()), case);
    }
}

#[test]
fn a_table_changes_a_preset() {
    let expected = LossScaling::Dynamic(DynamicScaling {
        hysteresis: 3,
        init_scale: 1024.0,
        ..DynamicScaling::DEEPSPEED
    });
    let text = "{ preset = \"deepspeed\", hysteresis = 3, init_scale = 1024 }";
    assert_eq!(read(text), Ok(expected));
    let text =
        "{ preset = \"enhanced\", floor = { steps = [{ from_step = 10, min_scale = 64 }] } }";
    let Ok(LossScaling::Enhanced(enhanced)) = read(text) else {
        panic!("{:?}", read(text));
    };
    let step = FloorStep {
        from_step: 10,
        min_scale: 64.0,
    };
    assert_eq!(enhanced.floor, Floor::Steps(vec![step]));
    let text = "{ preset = \"underflow-aware\", format = \"fp16\" }";
    assert!(
        matches!(read(text), Ok(LossScaling::UnderflowAware(s)) if s.format == mantissa_formats::Format::FP16)
    );
    assert_eq!("1024".parse(), Ok(LossScaling::Constant(1024.0)));
    assert_eq!("apex".parse(), LossScaling::preset("apex"));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let dynamic = |settings: &str| format!("{{ preset = \"dynamic\", {settings} }}");
    let enhanced = |floor: &str| format!("{{ preset = \"enhanced\", floor = {floor} }}");
    let cases = [
        ("\"torch-apm\"".to_string(), "did you mean `torch-amp`?"),
        ("\"Dynamic\"".to_string(), "did you mean `dynamic`?"),
        (
            "\"sometimes\"".to_string(),
            "The loss scalings are `none`, `dynamic`",
        ),
        ("3".to_string(), "expected the name of a loss scaling"),
        ("{}".to_string(), "preset = NAME"),
        ("{ constant = \"big\" }".to_string(), "is a number"),
        (
            "{ constant = nan }".to_string(),
            "finite and positive, not NaN",
        ),
        (
            "{ constant = 8.0, min_scale = 1.0 }".to_string(),
            "remove `min_scale`",
        ),
        (
            "{ preset = \"none\", min_scale = 1.0 }".to_string(),
            "remove `min_scale`",
        ),
        (
            dynamic("growth_intervall = 10"),
            "did you mean `growth_interval`?",
        ),
        (
            dynamic("growth_interval = \"often\""),
            "growth_interval: invalid type",
        ),
        (
            dynamic("growth_interval = -1"),
            "growth_interval: invalid value",
        ),
        (dynamic("growth_interval = 0"), "at least 1 step"),
        (
            dynamic("growth_factor = 1.0"),
            "growth_factor must be finite and above 1, not 1",
        ),
        (dynamic("backoff_factor = 2.0"), "between 0 and 1, not 2"),
        (dynamic("hysteresis = 0"), "hysteresis must be at least 1"),
        (
            dynamic("min_scale = 4.0, max_scale = 2.0"),
            "min_scale 4 is above max_scale 2",
        ),
        (
            dynamic("min_scale = 0.0"),
            "min_scale must be finite and positive",
        ),
        (
            dynamic("max_scale = inf"),
            "max_scale must be finite and positive",
        ),
        (dynamic("init_scale = 0.5"), "init_scale 0.5 lies outside"),
        (enhanced("{ steps = [] }"), "has no steps"),
        (
            enhanced(
                "{ steps = [{ from_step = 5, min_scale = 8 }, { from_step = 9, min_scale = 4 }] }",
            ),
            "must rise together",
        ),
        (
            enhanced("{ steps = [{ from_step = 5, min_scale = 0.5 }] }"),
            "the floor 0.5 lies outside",
        ),
        (enhanced("{ stairs = [] }"), "floor: unknown variant"),
        (
            "{ preset = \"enhanced\", stop_at_min = true }".to_string(),
            "contradicts the floor",
        ),
        (
            "{ preset = \"log-max\", mean_smoothing = 1.0 }".to_string(),
            "mean_smoothing must be at least 0 and below 1",
        ),
        (
            "{ preset = \"underflow-aware\", max_underflow = 1.0 }".to_string(),
            "max_underflow must be between 0 and 1",
        ),
        (
            "{ preset = \"underflow-aware\", format = \"int8\" }".to_string(),
            "cannot be coded in int8",
        ),
    ];
    for (text, expected) in cases {
        let message = read(&text).unwrap_err();
        assert!(message.contains(expected), "{text}: {message}");
        assert!(message.contains("line 3"), "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert!("-1".parse::<LossScaling>().is_err());
    assert!("inf".parse::<LossScaling>().is_err());
    let stall = |stall| {
        LossScaling::Enhanced(EnhancedScaling {
            dynamic: DynamicScaling::DEFAULT,
            floor: Floor::Stall(stall),
        })
    };
    let good = Stall {
        smoothing: 0.9,
        improvement: 0.01,
        patience: 5,
        factor: 2.0,
        limit: 64.0,
    };
    assert_eq!(stall(good).check(), Ok(()));
    for bad in [
        Stall {
            smoothing: 1.0,
            ..good
        },
        Stall {
            improvement: -0.1,
            ..good
        },
        Stall {
            patience: 0,
            ..good
        },
        Stall {
            factor: 1.0,
            ..good
        },
        Stall {
            limit: f32::MAX,
            ..good
        },
    ] {
        assert!(stall(bad).check().is_err(), "{bad:?}");
    }
}
