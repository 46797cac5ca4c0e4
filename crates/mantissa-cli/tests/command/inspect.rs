//! `mantissa inspect`.

use serde_json::{Value, json};

use crate::{Folder, f32_bytes, mantissa, safetensors};

fn close(value: &Value, expected: f64) {
    let got = value.as_f64().unwrap_or(f64::NAN);
    let tolerance = 1e-6 * expected.abs().max(1e-3);
    assert!((got - expected).abs() <= tolerance, "{got} for {expected}");
}

#[test]
fn statistics_and_errors_are_those_computed_by_hand() {
    let folder = Folder::new();
    let x = [127.0f32, 1.4, -0.3, 0.0];
    let file = folder.write(
        "a.safetensors",
        &safetensors(&[("w", "F32", &[2, 2], f32_bytes(&x))]),
    );
    let run = mantissa([
        "inspect".as_ref(),
        file.as_os_str(),
        "--json".as_ref(),
        "--numerics".as_ref(),
        "int8/tensor,mxfp8,int8/channel,fp32".as_ref(),
    ]);
    assert_eq!(run.stderr, "");
    let json = run.json();
    let tensor = &json["tensors"][0];
    assert_eq!(tensor["name"], "w");
    assert_eq!(tensor["shape"], json!([2, 2]));
    for (key, expected) in [("count", 4), ("zeros", 1), ("non_finite", 0)] {
        assert_eq!(tensor[key], expected, "{key}");
    }
    let x = x.map(f64::from);
    let mean = x.iter().sum::<f64>() / 4.0;
    let central = |p: i32| x.iter().map(|x| (x - mean).powi(p)).sum::<f64>() / 4.0;
    assert_eq!(tensor["amax"], 127.0);
    assert_eq!(tensor["min_nonzero"], f64::from(0.3f32));
    close(&tensor["mean"], mean);
    close(&tensor["variance"], central(2));
    close(&tensor["skewness"], central(3) / central(2).powf(1.5));
    close(&tensor["kurtosis"], central(4) / central(2).powi(2));
    // Four elements are too few for a fit.
    assert_eq!(tensor["student_t"], json!({ "nu": null }));

    // The scale is 1: 1.4 becomes 1 and -0.3 becomes 0; 127 is the legitimate maximum.
    let int8 = &tensor["numerics"][0];
    let signal = x.iter().map(|x| x * x).sum::<f64>();
    let noise = 0.4f64.powi(2) + 0.3f64.powi(2);
    assert_eq!(int8["numerics"], "int8/tensor");
    close(&int8["mse"], noise / 4.0);
    close(&int8["sqnr_db"], 10.0 * (signal / noise).log10());
    close(&int8["bias"], -0.1 / 4.0);
    assert_eq!(
        (&int8["underflow"], &int8["saturation"]),
        (&json!(0.25), &json!(0.0))
    );
    // A shared exponent of 2^(6 - 8): 127 is 508 quarters, beyond 464; the rows of two are blocks of their own.
    assert_eq!(tensor["numerics"][1]["saturation"], 0.25);
    // The second row has a scale of its own, 0.3/127, so its elements are all kept.
    assert_eq!(tensor["numerics"][2]["underflow"], 0.0);
    let fp32 = &tensor["numerics"][3];
    assert_eq!(fp32["mse"], 0.0);
    assert_eq!(fp32["sqnr_db"], Value::Null);
}

#[test]
fn odd_tensors_have_null_for_what_is_undefined() {
    let folder = Folder::new();
    let file = folder.write(
        "odd.safetensors",
        &safetensors(&[
            ("scalar", "F32", &[], f32_bytes(&[3.5])),
            ("vector", "F32", &[3], f32_bytes(&[1.0, 2.0, 3.0])),
            ("empty", "F32", &[0, 5], Vec::new()),
            ("hollow", "F32", &[5, 0], Vec::new()),
            ("zeros", "F32", &[2, 2], f32_bytes(&[0.0; 4])),
            ("nan", "F32", &[2], f32_bytes(&[f32::NAN; 2])),
            ("half", "F16", &[2], vec![0x00, 0x3c, 0x00, 0xc0]),
            ("brain", "BF16", &[1], vec![0x80, 0x3f]),
            ("eight", "F8_E4M3", &[2], vec![0x7e, 0x38]),
            ("wide", "F64", &[1], 2.5f64.to_le_bytes().to_vec()),
            ("ids", "I64", &[1], vec![0; 8]),
        ]),
    );
    let run = mantissa(["inspect".as_ref(), file.as_os_str(), "--json".as_ref()]);
    assert_eq!(
        run.stderr,
        "note: tensor `ids` is I64, not a float, and was skipped\n"
    );
    let json = run.json();
    let tensors = json["tensors"].as_array().unwrap();
    let find = |name: &str| {
        tensors
            .iter()
            .find(|tensor| tensor["name"] == name)
            .unwrap()
    };
    assert_eq!(tensors.len(), 10);
    assert_eq!(find("scalar")["variance"], 0.0);
    assert_eq!(find("scalar")["kurtosis"], Value::Null);
    for name in ["empty", "hollow"] {
        assert_eq!(find(name)["amax"], Value::Null, "{name}");
        assert_eq!(
            find(name)["numerics"][0]["underflow"],
            Value::Null,
            "{name}"
        );
    }
    assert_eq!(find("zeros")["zeros"], 4);
    assert_eq!(find("zeros")["min_nonzero"], Value::Null);
    assert_eq!(find("zeros")["numerics"][2]["underflow"], 0.0);
    assert_eq!(
        (&find("nan")["count"], &find("nan")["non_finite"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(find("nan")["mean"], Value::Null);
    assert_eq!(find("nan")["numerics"][0]["mse"], Value::Null);
    for (name, amax) in [
        ("half", 2.0),
        ("brain", 1.0),
        ("eight", 448.0),
        ("wide", 2.5),
    ] {
        assert_eq!(find(name)["amax"], amax, "{name}");
    }
    let table = mantissa(["inspect".as_ref(), file.as_os_str()]);
    assert!(table.success && table.stdout.contains("kurtosis"));
}

#[test]
fn an_unknown_numerics_is_an_error() {
    let folder = Folder::new();
    let file = folder.write("a.safetensors", &safetensors(&[]));
    let run = |numerics: &str| {
        mantissa([
            "inspect".as_ref(),
            file.as_os_str(),
            "--numerics".as_ref(),
            numerics.as_ref(),
        ])
    };
    run("e4m4x").fails_naming(&["`e4m4x`"]);
    run("bf16,int8/chanel").fails_naming(&["chanel", "channel"]);
}
