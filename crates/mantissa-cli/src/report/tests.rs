//! The page of folders: escaped, whole, and without anything to load.

use std::fs;
use std::path::Path;

use mantissa::plan::{OperandStatistics, Pass, PassSample, Plan, Profile, Recipe, Site, SiteKind};

use super::page::LIBRARIES;
use super::*;

/// The folder of a run as `mantissa train` leaves it, of formulas; `steps` of its 40 are taken.
fn write_run(folder: &Path, seed: u64, steps: u64) {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    write(
        "config.toml",
        format!("schema = 1\n[training]\nsteps = 40\nseed = {seed}\n"),
    );
    let line = |step: u64| {
        let loss = 2.0 + 2.0 / (step + seed + 1) as f64;
        let skipped = step == 5;
        let scale = if step < 6 { 65536 } else { 32768 };
        let cause = if skipped {
            r#","cause":"too large: </script>""#
        } else {
            ""
        };
        format!(
            r#"{{"step":{step},"loss":{loss},"loss_scale":{scale},"learning_rate":0.001,"skipped":{skipped}{cause}}}"#
        )
    };
    let log: Vec<String> = (0..steps).map(line).collect();
    let being_written = if steps < 40 { "\n{\"step\":" } else { "\n" };
    write("log.jsonl", log.join("\n") + being_written);
    let sites = [Site::new("encoder.query", SiteKind::Linear)];
    let plan = Plan::from_recipe(&Recipe::preset("fp8-hybrid").unwrap(), &sites).unwrap();
    plan.save(folder.join("plan.toml")).unwrap();
    if steps == 40 {
        write(
            "summary.json",
            format!(
                r#"{{"steps":40,"final_loss":{},"loss_floor":1.5,"skipped_steps":1,"diverged":false,"out":"x"}}"#,
                2.0 + seed as f64 / 100.0
            ),
        );
    }
}

fn profile() -> Profile {
    let sites = [Site::new("encoder.query", SiteKind::Linear)];
    let mut profile = Profile::new(&sites);
    let rows: Vec<f32> = (0..16 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
    for (step, pass) in [
        (10, Pass::Forward),
        (20, Pass::Forward),
        (20, Pass::GradRhs),
    ] {
        let sample = PassSample {
            step,
            batch: 1,
            outer_left: 16,
            outer_right: 16,
            depth: 64,
            left: rows.clone(),
            right: rows.iter().map(|x| x * 0.02).collect(),
            left_amax: 1.0,
            right_amax: 0.02,
        };
        let left = OperandStatistics::of(sample.step, [1, 512, 64], 1.0, &sample.left);
        let right = OperandStatistics::of(sample.step, [1, 256, 64], 0.02, &sample.right);
        profile
            .record("encoder.query", pass, sample, left, right)
            .unwrap();
    }
    profile
}

fn read(folder: &Path) -> Report {
    Reader::new(&[folder.to_owned()]).read().unwrap()
}

#[test]
fn a_finished_run_has_what_its_folder_holds() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), 3, 40);
    profile()
        .save(folder.path().join("profile.safetensors"))
        .unwrap();
    let report = read(folder.path());
    let [run] = &report.runs[..] else {
        panic!("{} runs", report.runs.len())
    };
    assert_eq!(run.problems, [""; 0]);
    assert_eq!(run.state, run::State::Finished);
    assert_eq!((run.seed, run.planned_steps), (Some(3), Some(40)));
    assert_eq!(run.outcome.final_loss, Some(2.03));
    assert_eq!(run.history.skips[0].step, 5);
    assert_eq!(
        run.history.loss_scale,
        [(0, 65536.0), (6, 32768.0), (39, 32768.0)]
    );
    let missing: Vec<&str> = run.missing.iter().map(|missing| missing.file).collect();
    assert_eq!(
        missing,
        ["memory.json", "timing.json", "measurements.jsonl"]
    );

    let measured = run.measurements.as_ref().unwrap();
    assert!(measured.from_profile);
    assert_eq!(measured.steps, [10, 20]);
    let [forward, grad_rhs] = &measured.rows[..] else {
        panic!("{measured:?}")
    };
    let error = forward.backward_error[0].unwrap();
    assert!(error > 1e-4 && error < 0.1, "{error}");
    assert_eq!(grad_rhs.backward_error[0], None);
    assert_eq!(run.bytes_per_element, Some(1.0));
    let tensors = &report.profiles[run.profile.unwrap()];
    let roles: Vec<String> = tensors
        .iter()
        .map(|tensor| tensor.role.to_string())
        .collect();
    assert_eq!(roles, ["lhs", "rhs", "grad"]);
    assert_eq!(tensors[0].passes, [Pass::Forward, Pass::GradRhs]);
}

#[test]
fn a_run_that_is_being_written_is_read_so_far() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), 0, 12);
    let report = read(folder.path());
    let run = &report.runs[0];
    assert_eq!((run.state, run.history.end), (run::State::Unfinished, 12));
    assert_eq!(run.problems, [""; 0]);
    assert!(render(&report).contains("at step 12 of 40"));
}

#[test]
fn a_study_shows_its_runs_around_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    for (row, seed, steps) in [("a", 0, 40), ("a", 1, 40), ("b", 0, 40), ("b", 1, 3)] {
        write_run(
            &folder.path().join(row).join(format!("seed-{seed}")),
            seed,
            steps,
        );
    }
    let broken = folder.path().join("b/seed-1");
    fs::write(broken.join("config.toml"), "schema = ").unwrap();
    fs::write(broken.join("plan.toml"), "[[").unwrap();
    let runs = |row: &str| {
        [0, 1].map(|seed| format!(r#"{{"name":"{row}","folder":"{row}/seed-{seed}"}}"#))
    };
    // A folder outside the study is not followed.
    let index = [runs("b"), runs("a")].concat().join(",") + r#",{"name":"c","folder":"../c"}"#;
    fs::write(
        folder.path().join("study.json"),
        format!(r#"{{"runs":[{index}]}}"#),
    )
    .unwrap();
    let report = read(folder.path());
    let names: Vec<&str> = report
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["b", "a"], "in the order of the index");
    assert_eq!(
        report.runs[1].problems.len(),
        2,
        "{:?}",
        report.runs[1].problems
    );
    assert_eq!(report.groups[0].final_loss, None);
    assert_eq!(report.groups[1].final_loss, Some(2.005));
    assert_eq!(report.groups[1].gap, Some(0.0));

    // Without the index the folders are found, and seeds of one configuration are a group.
    fs::remove_file(folder.path().join("study.json")).unwrap();
    let report = read(folder.path());
    assert_eq!(report.runs.len(), 4);
    assert_eq!(report.groups[0].runs, [0, 1, 2]);
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        Reader::new(&[path.to_owned()])
            .read()
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused(folder.path()).contains("holds no run"));
    assert!(refused(&folder.path().join("x")).contains("cannot read"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("is a file"));
}

/// Set to a path, `MANTISSA_REPORT_EXAMPLE` keeps the page for a look in a browser.
#[test]
fn the_page_is_whole_and_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), 3, 40);
    let mut report = read(folder.path());
    report.title = "demo & </script><script>alert(1)</script>".to_owned();
    let page = render(&report);
    if let Some(path) = std::env::var_os("MANTISSA_REPORT_EXAMPLE") {
        fs::write(path, &page).unwrap();
    }
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    let own = page.replace(LIBRARIES[0], "").replace(LIBRARIES[1], "");
    assert!(
        own.len() < page.len() && !own.contains("{{"),
        "an unfilled place"
    );
    for id in ["results", "loss-chart", "heat-map", "decision-table-0"] {
        assert!(own.contains(&format!("id=\"{id}\"")), "{id}");
    }
    let loading = [
        "src=",
        "<link rel=\"stylesheet",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "href=\"http",
    ];
    for loading in loading {
        assert!(!own.contains(loading), "{loading}");
    }
    assert!(page.contains("default-src 'none'") && !page.contains("connect-src"));
    assert!(render_live(&report).contains("connect-src 'self'"));

    // Text from outside stays text: four elements of script end four times.
    assert!(page.contains("demo &amp; &lt;/script&gt;"));
    assert_eq!(page.matches("</script>").count(), 4);
    assert_eq!(own.matches("<script").count(), 4);
    let (_, data) = page.split_once("id=\"report-data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["title"], report.title);
    assert_eq!(
        data["runs"][0]["history"]["skips"][0]["cause"],
        "too large: </script>"
    );
}
