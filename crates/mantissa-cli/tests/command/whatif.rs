//! `mantissa whatif`.

use mantissa::plan::{OperandStatistics, Pass, PassSample, Profile, Site, SiteKind};
use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use serde_json::Value;

use crate::{Folder, Outcome, mantissa};

const DEPTH: usize = 64;
const ROWS: usize = 16;

/// A profile of two layers and a look-up, measured in all three passes; the second layer has heavy tails.
fn profile(folder: &Folder) -> String {
    let sites = [
        Site::new("table", SiteKind::Embedding),
        Site::new("encoder.layers.0.query", SiteKind::Linear),
        Site::new("encoder.layers.1.query", SiteKind::Linear),
    ];
    let mut profile = Profile::new(&sites);
    for (site, nu) in [(1, f64::INFINITY), (2, 2.0)] {
        for pass in Pass::ALL {
            let draw = |side| student_t(nu, RandomBits::new(site as u64, side), ROWS * DEPTH);
            let (left, right) = (draw(pass as u64), draw(8 + pass as u64));
            let amax = |rows: &[f32]| rows.iter().fold(0f32, |top, x| top.max(x.abs()));
            let (left_amax, right_amax) = (amax(&left), amax(&right));
            let statistics =
                |amax, rows: &[f32]| OperandStatistics::of(0, [1, ROWS, DEPTH], amax, rows);
            let measured = [statistics(left_amax, &left), statistics(right_amax, &right)];
            let sample = PassSample {
                step: 20,
                batch: 1,
                outer_left: ROWS,
                outer_right: ROWS,
                depth: DEPTH,
                left,
                right,
                left_amax,
                right_amax,
            };
            let [left, right] = measured;
            profile
                .record(&sites[site].name, pass, sample, left, right)
                .unwrap();
        }
    }
    let path = folder.path("profile.safetensors");
    profile.save(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn whatif(profile: &str, arguments: &[&str]) -> Outcome {
    mantissa(["whatif", profile].iter().chain(arguments))
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    assert!(outcome.success, "{}", outcome.stderr);
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn without_a_site_there_is_a_line_a_candidate() {
    let folder = Folder::new();
    let file = profile(&folder);
    let short = whatif(&file, &[]);
    assert!(short.success, "{}", short.stderr);
    assert!(
        short
            .stdout
            .starts_with("2 sites, 6 products, 1536 outputs"),
        "{}",
        short.stdout
    );
    assert!(short.stdout.contains("… and 24 more"), "{}", short.stdout);
    let long = whatif(&file, &["--all"]).stdout;
    let line = |token: &str| {
        let found = long
            .lines()
            .position(|line| line.split_whitespace().next() == Some(token));
        found.unwrap_or_else(|| panic!("no line of {token} in {long}"))
    };
    assert!(line("bf16") < line("int8/block32") && line("int8/block32") < line("int8/tensor"));
    assert!(
        long.lines()
            .nth(line("int8/tensor"))
            .unwrap()
            .contains("encoder.layers.1.query")
    );
}

#[test]
fn a_site_has_its_passes_and_advice() {
    let folder = Folder::new();
    let file = profile(&folder);
    let shown = whatif(&file, &["--site", "*.1.query", "--all"]);
    assert!(shown.success, "{}", shown.stderr);
    let text = shown.stdout;
    for expected in [
        "encoder.layers.1.query (linear)",
        "forward, lhs x rhs: 1 steps, 16 x 16 rows, 256 outputs, depth 64",
        "grad_lhs, grad x rhs",
        "grad_rhs, lhs x grad",
        "1 - cos of update",
        ": nearest has bias",
        "tails of ν =",
        "suffices at",
    ] {
        assert!(text.contains(expected), "`{expected}` in {text}");
    }
    assert!(!text.contains("encoder.layers.0"), "{text}");
    // Cheapest first instead of best first.
    let sorted = whatif(
        &file,
        &[
            "--site",
            "*.1.query",
            "--pass",
            "forward",
            "--sort",
            "cost",
            "--target",
            "cpu-vnni",
        ],
    );
    let first = sorted
        .stdout
        .lines()
        .find(|line| line.contains("/tensor"))
        .unwrap();
    assert!(first.starts_with("int8/tensor"), "{}", sorted.stdout);
}

#[test]
fn json_has_an_object_a_row() {
    let folder = Folder::new();
    let file = profile(&folder);
    let rows = lines(&whatif(&file, &["--json"]));
    assert_eq!(rows.len(), 2 * 3 * 34);
    let asked = [
        "--json",
        "--site",
        "*.0.*",
        "--numerics",
        "e4m3/tensor,int8/channel",
        "--numerics",
        "mxfp8",
    ];
    let rows = lines(&whatif(&file, &asked));
    assert_eq!(rows.len(), 3 * 2);
    let row = rows.iter().find(|row| row["pass"] == "grad_rhs").unwrap();
    assert_eq!(row["site"], "encoder.layers.0.query");
    assert_eq!(row["operands"]["lhs"]["numerics"], "e4m3/tensor");
    assert_eq!(row["operands"]["grad"]["numerics"], "int8/channel");
    let median = row["backward_error"]["median"].as_f64().unwrap();
    assert!((1e-3..1e-2).contains(&median), "{row}");
    let ends = &row["backward_error"]["median_interval"];
    assert!(ends["low"].as_f64().unwrap() < median && median < ends["high"].as_f64().unwrap());
    for key in ["bias", "cosine", "update_cosine"] {
        assert!(row[key]["interval"]["low"].is_f64(), "{key} of {row}");
    }
    for key in ["mse", "sqnr_db", "signed_bias", "cosine", "clipping"] {
        assert!(
            row["operands"]["lhs"][key]["interval"]["low"].is_f64(),
            "{key} of {row}"
        );
    }
    assert_eq!(row["operands"]["lhs"]["saturation"]["estimate"], 0.0);
    let forward = rows.iter().find(|row| row["pass"] == "forward").unwrap();
    assert_eq!(forward["update_cosine"], Value::Null);
    let all = lines(&whatif(
        &file,
        &[
            "--json", "--site", "*.0.*", "--pass", "forward", "--pairs", "all",
        ],
    ));
    assert_eq!(all.len(), 34 * 34);
}

#[test]
fn what_matches_nothing_is_an_error_with_a_hint() {
    let folder = Folder::new();
    let file = profile(&folder);
    whatif(&file, &["--site", "encoder.layer.0.query"])
        .fails_naming(&["encoder.layer.0.query", "`encoder.layers.0.query`"]);
    // An embedding multiplies nothing.
    whatif(&file, &["--site", "table"]).fails_naming(&["`table`"]);
    whatif(&file, &["--target", "h101"]).fails_naming(&["h101", "h100"]);
    whatif(&file, &["--site", "{"]).fails_naming(&["not a glob"]);
    let wrong = whatif(&file, &["--numerics", "int9x"]);
    assert!(
        !wrong.success && wrong.stderr.contains("int9x"),
        "{}",
        wrong.stderr
    );
    let wrong = whatif(&file, &["--pass", "backward"]);
    assert!(
        !wrong.success && wrong.stderr.contains("grad_lhs"),
        "{}",
        wrong.stderr
    );
    whatif("nowhere.safetensors", &[]).fails_naming(&["nowhere.safetensors"]);
}
