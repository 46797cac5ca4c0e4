//! Files that are damaged, hostile or not there: one sentence, no output, no crash.

use serde_json::json;

use crate::{Folder, f32_bytes, mantissa, safetensors, with_header};

/// Inspects and casts a file with these bytes; both must fail in one sentence that names the file and `words`.
fn rejects(bytes: &[u8], words: &[&str]) {
    let folder = Folder::new();
    let file = folder.write("bad.safetensors", bytes);
    let output = folder.path("out.safetensors");
    let words: Vec<&str> = words.iter().copied().chain(["bad.safetensors"]).collect();
    mantissa(["inspect".as_ref(), file.as_os_str()]).fails_naming(&words);
    let cast = [
        "cast".as_ref(),
        file.as_os_str(),
        "--to".as_ref(),
        "e4m3".as_ref(),
    ];
    let output = ["-o".as_ref(), output.as_os_str()];
    mantissa(cast.into_iter().chain(output)).fails_naming(&words);
    assert_eq!(folder.names(), ["bad.safetensors"]);
}

fn header(entries: serde_json::Value, data_len: usize) -> Vec<u8> {
    with_header(&entries.to_string(), &vec![0; data_len])
}

#[test]
fn a_file_cut_anywhere_is_rejected() {
    let whole = safetensors(&[("w", "F32", &[2], f32_bytes(&[1.0, 2.0]))]);
    rejects(b"", &["0 bytes"]);
    rejects(&whole[..5], &["5 bytes"]);
    rejects(&whole[..20], &["announces a header"]);
    rejects(&whole[..whole.len() - 1], &["`w`", "outside the file"]);
    let mut longer = whole;
    longer.push(0);
    rejects(&longer, &["do not fill"]);
}

#[test]
fn a_hostile_header_is_rejected() {
    rejects(&u64::MAX.to_le_bytes(), &["announces a header"]);
    rejects(
        &[&(1u64 << 40).to_le_bytes()[..], b"{}"].concat(),
        &["announces a header"],
    );
    rejects(&with_header("{\"w\":", b""), &["not a JSON object"]);
    rejects(&with_header("[]", b""), &["not a JSON object"]);
    rejects(
        &with_header(&"[".repeat(100_000), b""),
        &["not a JSON object"],
    );
    let mut not_text = with_header("{\"..\":1}", b"");
    not_text[10] = 0xff;
    rejects(&not_text, &["not a JSON object"]);
    rejects(&header(json!({ "w": 7 }), 0), &["`w`", "dtype"]);
}

#[test]
fn a_tensor_that_does_not_fit_is_named() {
    let entry = |dtype: &str, shape: serde_json::Value, start: u64, end: u64| json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
    rejects(
        &header(json!({ "w": entry("F12", json!([1]), 0, 4) }), 4),
        &["`w`", "`F12`"],
    );
    rejects(
        &header(json!({ "w": entry("F32", json!([3]), 0, 4) }), 4),
        &["`w`", "[3]"],
    );
    rejects(
        &header(json!({ "w": entry("F32", json!([-1]), 0, 4) }), 4),
        &["`w`"],
    );
    rejects(
        &header(json!({ "w": entry("F32", json!([1]), 8, 4) }), 8),
        &["`w`", "8 to 4"],
    );
    let huge = json!([u64::MAX, 2]);
    rejects(
        &header(json!({ "w": entry("F32", huge, 0, 4) }), 4),
        &["`w`"],
    );
    let overlapping =
        json!({ "a": entry("F32", json!([2]), 0, 8), "b": entry("F32", json!([1]), 4, 8) });
    rejects(&header(overlapping, 8), &["`b`", "overlaps"]);
    let gap = json!({ "a": entry("U8", json!([2]), 0, 2), "b": entry("U8", json!([2]), 4, 6) });
    rejects(&header(gap, 6), &["`b`", "gap"]);
    let steering = json!({ "\u{1b}[2J": entry("F12", json!([1]), 0, 4) });
    rejects(&header(steering, 4), &["`\\u{1b}[2J`"]);
}

#[test]
fn what_is_no_file_is_rejected() {
    let folder = Folder::new();
    let missing = folder.path("missing.safetensors");
    mantissa(["inspect".as_ref(), missing.as_os_str()])
        .fails_naming(&["missing.safetensors", "cannot read"]);
    mantissa(["inspect".as_ref(), folder.path(".").as_os_str()])
        .fails_naming(&["not a regular file"]);
}

/// Every file that differs from a good one in one byte of its head is either read or rejected in one sentence.
#[test]
fn no_changed_byte_makes_it_crash() {
    let whole = safetensors(&[
        ("a", "F16", &[2], vec![0, 60, 0, 61]),
        ("b", "F32", &[1], f32_bytes(&[1.0])),
    ]);
    let folder = Folder::new();
    for at in (0..whole.len()).step_by(5) {
        let mut changed = whole.clone();
        changed[at] ^= 0x11;
        let file = folder.write("changed.safetensors", &changed);
        let run = mantissa(["inspect".as_ref(), file.as_os_str(), "--json".as_ref()]);
        if !run.success {
            run.fails_naming(&["changed.safetensors"]);
        }
    }
}
