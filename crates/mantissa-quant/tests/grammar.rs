//! Numerics parse, print and round-trip, and say what is wrong.

use std::num::NonZeroU16;

use mantissa_formats::{Format, Overflow, Rounding};
use mantissa_quant::{AmaxPolicy, Granularity, Numerics, SHORTHANDS, ScaleKind};
use proptest::prelude::*;

fn parse(text: &str) -> Numerics {
    text.parse().unwrap()
}

fn formats() -> impl Strategy<Value = Format> {
    let named = prop::sample::select(Format::NAMED.iter().map(|(_, f)| *f).collect::<Vec<_>>());
    let widths = (2..=8u8, 0..=23u8).prop_map(|(e, m)| Format::float(e, m).unwrap());
    prop_oneof![
        named,
        widths,
        (2..=8u8).prop_map(|bits| Format::int(bits).unwrap())
    ]
}

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::Unscaled),
        Just(Granularity::Tensor),
        Just(Granularity::Channel),
        prop_oneof![Just(16), Just(32), any::<u32>()].prop_map(Granularity::Block),
        (0..300u32, any::<u32>()).prop_map(|(r, c)| Granularity::Tile(r, c)),
    ]
}

fn amax_policies() -> impl Strategy<Value = AmaxPolicy> {
    let delayed = (any::<NonZeroU16>(), 0..=32u8)
        .prop_map(|(history, margin)| AmaxPolicy::Delayed { history, margin });
    prop_oneof![3 => Just(AmaxPolicy::Dynamic), 1 => delayed]
}

prop_compose! {
    fn numerics()(
        format in formats(),
        granularity in granularities(),
        scale in prop::sample::select(ScaleKind::NAMED.map(|(_, kind)| kind).to_vec()),
        amax in amax_policies(),
        rounding in prop::sample::select(Rounding::NAMED.iter().map(|(_, r)| *r).collect::<Vec<_>>()),
        overflow in prop::sample::select(Overflow::NAMED.iter().map(|(_, o)| *o).collect::<Vec<_>>()),
    ) -> Numerics {
        Numerics { format, granularity, scale, amax, rounding, overflow }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_back(numerics in numerics()) {
        let text = numerics.to_string();
        match numerics.check() {
            Ok(()) => {
                prop_assert_eq!(text.parse(), Ok(numerics));
                let json = serde_json::to_string(&numerics).unwrap();
                prop_assert_eq!(&json, &format!("\"{text}\""));
                prop_assert_eq!(serde_json::from_str::<Numerics>(&json).unwrap(), numerics);
                let full = format!(
                    "{}/{}/{}/{}/{}/{}",
                    numerics.format, numerics.granularity, numerics.scale, numerics.amax, numerics.rounding, numerics.overflow
                );
                prop_assert_eq!(full.parse(), Ok(numerics));
            }
            Err(_) => prop_assert_ne!(text.parse(), Ok(numerics)),
        }
    }

    #[test]
    fn any_text_parses_or_is_refused(text in "[a-z0-9/ -]{0,24}|(e4m3|int8|mxfp8|bf16)(/[a-z0-9-]{0,9}){0,5}|\\PC{0,12}") {
        match text.parse::<Numerics>() {
            Ok(numerics) => prop_assert_eq!(numerics.to_string().parse(), Ok(numerics)),
            Err(error) => {
                let start = format!("`{text}` is not a numerics: ");
                prop_assert!(error.to_string().starts_with(&start), "{}", error);
            }
        }
    }
}

#[test]
fn defaults_follow_the_width_and_the_scaling() {
    assert_eq!(parse("fp32"), Numerics::FP32);
    assert_eq!(parse("bf16"), Numerics::BF16);
    assert_eq!(parse("fp16/unscaled/special"), Numerics::FP16);
    assert_eq!(
        parse("e4m3"),
        Numerics::scaled(Format::E4M3, Granularity::Tensor)
    );
    assert_eq!(
        parse("int8/channel"),
        Numerics::scaled(Format::INT8, Granularity::Channel)
    );
    assert_eq!(parse("e5m2/unscaled"), Numerics::unscaled(Format::E5M2));
    assert_eq!(parse("bf16/tensor").overflow, Overflow::Saturate);
    assert!(Numerics::FP32.is_fp32());
    assert!(!parse("fp32/tensor").is_fp32());
    assert!(!Numerics::BF16.is_fp32());
}

#[test]
fn canonical_forms_leave_out_what_goes_without_saying() {
    for (text, canonical) in [
        ("e4m3", "e4m3/tensor"),
        ("E4M3FN/Tensor/f32/nearest/saturate", "e4m3/tensor"),
        ("e5m2/stochastic/tensor", "e5m2/tensor/stochastic"),
        ("e5m2/unscaled/special", "e5m2/unscaled"),
        ("e5m2/unscaled/saturate", "e5m2/unscaled/saturate"),
        ("int8/block32", "int8/block32"),
        ("int8/block32/e8m0", "mxint8"),
        ("e4m3/block32/e8m0/stochastic", "mxfp8/stochastic"),
        ("e2m1/block16/two-level", "nvfp4"),
        ("e5m2/block32/e8m0", "mxfp8-e5m2"),
        (" bf16 ", "bf16"),
        ("fp16/tensor/pow2", "fp16/tensor/pow2"),
        ("e4m3/delayed16", "e4m3/tensor/delayed16"),
        (
            "e5m2/stochastic/delayed1-margin2",
            "e5m2/tensor/delayed1-margin2/stochastic",
        ),
        ("e4m3/tensor/dynamic", "e4m3/tensor"),
        ("e4m3/tile128x128", "e4m3/tile128x128"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
    }
    for (name, format, granularity, scale) in SHORTHANDS {
        let numerics = Numerics {
            scale,
            ..Numerics::scaled(format, granularity)
        };
        assert_eq!(parse(name), numerics);
        assert_eq!(numerics.to_string(), name);
    }
}

#[test]
fn errors_say_what_would_be_right() {
    for (text, hint) in [
        ("e4m4x", "e4m3"),
        ("mxfp9", "did you mean mxfp"),
        ("int8/blok32", "did you mean block<n>"),
        ("int8/chanel", "did you mean channel"),
        ("e4m3/tensor/delayed", "did you mean delayed<n>"),
        ("e4m3/tensor/delayed0", "did you mean delayed<n>"),
        ("e4m3/channel/delayed16", "use the granularity tensor"),
        ("int8/tensor/stocastic", "did you mean stochastic"),
        ("int8/gibberish", "granularity (unscaled"),
        ("int8/", "granularity (unscaled"),
        ("int8/tensor/channel", "its granularity is already tensor"),
        ("mxfp8/block16", "its granularity is already block32"),
        ("int8/nearest/nearest", "already nearest"),
        ("int8/block0", "block<n>"),
        ("e5m2/unscaled/pow2", "add a granularity"),
        ("e4m3/tensor/two-level", "block16"),
        ("e8m0", "scale kind"),
        ("", "format"),
    ] {
        let error = text.parse::<Numerics>().unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{text}`")) && error.contains(hint),
            "{error}"
        );
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Numerics>(&json).is_err());
    }
}

#[test]
fn bits_count_the_share_of_the_scales() {
    assert_eq!(parse("fp32").bits_per_element(100), 32.0);
    assert_eq!(parse("int8").bits_per_element(100), 8.0);
    assert_eq!(parse("int8/channel").bits_per_element(64), 8.5);
    assert_eq!(parse("mxfp8").bits_per_element(64), 8.25);
    assert_eq!(parse("nvfp4").bits_per_element(64), 4.5);
    // 33 elements take two blocks.
    assert_eq!(parse("mxfp8").bits_per_element(33), 8.0 + 16.0 / 33.0);
    assert_eq!(
        parse("e4m3/tile128x128").bits_per_element(128),
        8.0 + 32.0 / (128.0 * 128.0)
    );
}
