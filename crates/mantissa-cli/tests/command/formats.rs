//! `mantissa formats`.

use serde_json::{Value, json};

use crate::mantissa;

fn find<'a>(list: &'a Value, key: &str, wanted: &Value) -> &'a Value {
    let mut items = list.as_array().unwrap().iter();
    items.find(|item| item[key] == *wanted).unwrap()
}

#[test]
fn every_format_has_its_constants() {
    let all = mantissa(["formats", "--json"]).json();
    let formats = &all["formats"];
    assert_eq!(formats.as_array().unwrap().len(), 17);
    let e4m3 = find(formats, "name", &json!("e4m3"));
    assert_eq!(e4m3["max_finite"], 448.0);
    assert_eq!(e4m3["overflow_threshold"], f64::from(464f32.next_up()));
    assert_eq!(e4m3["nan_codes"], json!([[0x7f, 0x7f], [0xff, 0xff]]));
    let e5m2 = find(formats, "name", &json!("e5m2"));
    assert_eq!(e5m2["overflow_threshold"], 61440.0);
    assert_eq!(e5m2["infinity"], true);
    let fp32 = find(formats, "name", &json!("fp32"));
    assert_eq!(fp32["overflow_threshold"], Value::Null);

    let table = mantissa(["formats"]).stdout;
    assert_eq!(table.lines().count(), 2 + 17);
    for column in ["bias", "min subnormal", "overflows from", "NaN codes"] {
        assert!(table.contains(column), "{column}");
    }
}

#[test]
fn a_narrow_format_lists_every_code() {
    let e4m3 = mantissa(["formats", "e4m3fn", "--json"]).json();
    assert_eq!(e4m3["name"], "e4m3");
    let values = &e4m3["values"];
    assert_eq!(values.as_array().unwrap().len(), 256);
    assert_eq!(values[0x7e]["value"], 448.0);
    assert_eq!(values[0x01]["value"], 2f64.powi(-9));
    assert_eq!(values[0x01]["class"], "subnormal");
    assert_eq!(
        values[0x7f],
        json!({ "code": 127, "fields": "0 1111 111", "value": null, "class": "nan" })
    );

    let e2m1 = mantissa(["formats", "e2m1"]).stdout;
    assert!(e2m1.contains("7      0 11 1   6       normal"), "{e2m1}");
}

#[test]
fn any_widths_make_a_format() {
    let e6m9 = mantissa(["formats", "e6m9", "--json"]).json();
    assert_eq!((&e6m9["bits"], &e6m9["bias"]), (&json!(16), &json!(31)));
    let one = find(&e6m9["values"], "value", &json!(1.0));
    assert_eq!(one["code"], 31 << 9);
}

#[test]
fn an_unknown_format_is_answered_with_the_nearest() {
    mantissa(["formats", "e4n3"]).fails_naming(&["`e4n3`", "e4m3"]);
    mantissa(["formats", "e9m3"]).fails_naming(&["`e9m3`", "2 to 8"]);
}

#[test]
fn the_policy_lists_what_runs_low() {
    let table = mantissa(["formats", "--policy"]).stdout;
    let line = |word: &str| {
        let mut lines = table.lines();
        lines
            .find(|line| line.starts_with(word))
            .unwrap()
            .to_owned()
    };
    assert!(line("matmul").contains("low"), "{table}");
    assert!(line("layer_norm").contains("f32"), "{table}");
    let json = mantissa(["formats", "--policy", "--json"]).json();
    let gelu = find(&json["policy"], "operation", &"gelu".into());
    assert_eq!(
        (&gelu["precision"], &gelu["torch"]),
        (&"full".into(), &"widest".into())
    );
    let both = mantissa(["formats", "e4m3", "--policy"]);
    assert!(!both.success && both.stderr.contains("--policy"));
}
