//! `mantissa cast`.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::{Folder, Outcome, f32_bytes, mantissa, read_back, safetensors, tensor};

fn cast(input: &Path, numerics: &str, output: &Path, more: &[&str]) -> Outcome {
    let arguments = [
        "cast".as_ref(),
        input.as_os_str(),
        "--to".as_ref(),
        numerics.as_ref(),
    ];
    let output = ["-o".as_ref(), output.as_os_str()];
    let more = more.iter().map(|word| word.as_ref());
    mantissa(arguments.into_iter().chain(output).chain(more))
}

fn model(folder: &Folder) -> std::path::PathBuf {
    folder.write(
        "model.safetensors",
        &safetensors(&[
            ("w", "F32", &[2, 2], f32_bytes(&[448.0, 1.0, -2.0, 0.5])),
            ("bias", "F32", &[], f32_bytes(&[3.0])),
            ("ids", "I64", &[2], (0..16).collect()),
        ]),
    )
}

#[test]
fn a_tensor_becomes_codes_and_a_scale() {
    let folder = Folder::new();
    let (input, output) = (model(&folder), folder.path("out.safetensors"));
    let run = cast(&input, "e4m3", &output, &[]);
    assert!(run.success && run.stdout.is_empty(), "{}", run.stderr);
    let (dtype, shape, codes) = tensor(&output, "w");
    assert_eq!((dtype, shape), (json!("F8_E4M3"), json!([2, 2])));
    // The scale is 1: 448 is the largest code, 1 is exponent 7, -2 exponent 8, 0.5 exponent 6.
    assert_eq!(codes, [0x7e, 0x38, 0xc0, 0x30]);
    assert_eq!(
        tensor(&output, "w.scale"),
        (json!("F32"), json!([]), f32_bytes(&[1.0]))
    );
    assert_eq!(tensor(&output, "bias.scale").2, f32_bytes(&[3.0 / 448.0]));
    assert_eq!(
        tensor(&output, "ids"),
        (json!("I64"), json!([2]), (0..16).collect())
    );
    let (header, _) = read_back(&output);
    assert_eq!(
        header["__metadata__"],
        json!({ "format": "pt", "mantissa.numerics": "e4m3/tensor" })
    );
    assert_eq!(folder.names(), ["model.safetensors", "out.safetensors"]);
}

#[test]
fn scales_run_along_the_last_axis() {
    let folder = Folder::new();
    let x = [127.0, 1.0, -2.0, 254.0, 4.0, 0.0];
    let input = folder.write(
        "in.safetensors",
        &safetensors(&[("w", "F32", &[1, 2, 3], f32_bytes(&x))]),
    );
    let output = folder.path("out.safetensors");
    assert!(cast(&input, "int8/channel", &output, &[]).success);
    let codes = [127, 1, -2, 127, 2, 0i8].map(|code| code as u8).to_vec();
    assert_eq!(tensor(&output, "w"), (json!("I8"), json!([1, 2, 3]), codes));
    let scales = tensor(&output, "w.scale");
    assert_eq!(
        scales,
        (json!("F32"), json!([1, 2, 1]), f32_bytes(&[1.0, 2.0]))
    );

    assert!(cast(&input, "int8/block2", &output, &["--force"]).success);
    let (_, shape, scales) = tensor(&output, "w.scale");
    assert_eq!(shape, json!([1, 2, 2]));
    assert_eq!(scales, f32_bytes(&[1.0, 2.0 / 127.0, 2.0, 1.0]));
}

#[test]
fn each_format_has_its_dtype() {
    let folder = Folder::new();
    let (input, output) = (model(&folder), folder.path("out.safetensors"));
    for (numerics, dtype, bytes) in [
        ("e5m2", "F8_E5M2", 4),
        ("fp16", "F16", 8),
        ("bf16", "BF16", 8),
        ("fp32", "F32", 16),
        ("int8", "I8", 4),
        ("int4", "U8", 4),
        ("nvfp4", "U8", 4),
        ("e3m4/channel", "U8", 4),
        ("mxfp8", "F8_E4M3", 4),
    ] {
        let run = cast(&input, numerics, &output, &["--force"]);
        assert!(run.success, "{numerics}: {}", run.stderr);
        let (got, _, codes) = tensor(&output, "w");
        assert_eq!((got, codes.len()), (json!(dtype), bytes), "{numerics}");
        let scaled = read_back(&output).0.get("w.scale").is_some();
        assert_eq!(scaled, bytes == 4, "{numerics}");
    }
    cast(&input, "tf32", &output, &["--force"]).fails_naming(&["tf32", "fp16"]);
    cast(&input, "int8/tile2x2", &output, &["--force"]).fails_naming(&["tile2x2", "block"]);
}

#[test]
fn stochastic_rounding_is_a_function_of_the_seed() {
    let folder = Folder::new();
    let x: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
    let input = folder.write(
        "in.safetensors",
        &safetensors(&[("w", "F32", &[64], f32_bytes(&x))]),
    );
    let codes = |seed: &str| {
        let output = folder.path("out.safetensors");
        let run = cast(
            &input,
            "e4m3/stochastic",
            &output,
            &["--force", "--seed", seed],
        );
        assert!(run.success, "{}", run.stderr);
        fs::read(output).unwrap()
    };
    assert_eq!(codes("1"), codes("1"));
    assert_ne!(codes("1"), codes("2"));
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = Folder::new();
    let input = model(&folder);
    let before = fs::read(&input).unwrap();
    let output = folder.write("out.safetensors", b"precious");
    cast(&input, "e4m3", &output, &[]).fails_naming(&["out.safetensors", "--force"]);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    let aside = folder.path(".").join("model.safetensors");
    cast(&input, "e4m3", &aside, &["--force"]).fails_naming(&["model.safetensors"]);
    assert_eq!(fs::read(&input).unwrap(), before);
    assert_eq!(folder.names(), ["model.safetensors", "out.safetensors"]);
}

#[test]
fn a_tensor_that_cannot_be_cast_leaves_no_file() {
    let folder = Folder::new();
    let output = folder.path("out.safetensors");
    let write = |name: &str, entries: &[crate::Entry]| folder.write(name, &safetensors(entries));
    let values = |values: &[f32]| f32_bytes(values);

    let nan = write(
        "nan.safetensors",
        &[("a.b", "F32", &[2], values(&[1.0, f32::NAN]))],
    );
    cast(&nan, "e4m3", &output, &[]).fails_naming(&["`a.b`", "NaN", "bf16"]);
    cast(&nan, "int8/channel", &output, &[]).fails_naming(&["`a.b`", "NaN"]);
    let inf = write(
        "inf.safetensors",
        &[("m", "F32", &[1], values(&[f32::NEG_INFINITY]))],
    );
    cast(&inf, "e4m3/unscaled", &output, &[]).fails_naming(&["`m`", "inf"]);
    let twice = write(
        "twice.safetensors",
        &[
            ("w", "F32", &[1], values(&[1.0])),
            ("w.scale", "I8", &[1], vec![1]),
        ],
    );
    cast(&twice, "e4m3", &output, &[]).fails_naming(&["`w.scale`", "rename"]);
    let nowhere = folder.path("missing").join("out.safetensors");
    cast(&twice, "bf16", &nowhere, &[]).fails_naming(&["missing", "cannot write"]);
    cast(&twice, "bf17", &output, &[]).fails_naming(&["`bf17`", "bf16"]);
    assert_eq!(
        folder.names(),
        ["inf.safetensors", "nan.safetensors", "twice.safetensors"]
    );

    // Unscaled formats that have codes for them keep them.
    assert!(cast(&nan, "bf16", &output, &[]).success);
    assert_eq!(tensor(&output, "a.b").2[..2], [0x80, 0x3f]);
    assert!(cast(&inf, "e5m2/unscaled", &output, &["--force"]).success);
    assert_eq!(tensor(&output, "m").2, [0xfc]);
}
