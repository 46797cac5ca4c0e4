//! The report in headless Chromium: it loads without a complaint or a request, and answers to mouse and keyboard.
//!
//! `cargo test --release --workspace --features browser --test browser`

mod chromium;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chromium::Page;
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = "schema = 1\n\
    [data]\nevaluation_batches = 1\n[model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\n\
    [training]\nsteps = 12\nbatch_size = 8\n[numerics]\nrecipe = \"fp8-hybrid\"\n[checkpoints]\nevery = 6\n";

fn mantissa(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_mantissa"))
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
}

/// A run with everything that a folder can hold; two of its measurements and two decisions are made up.
fn trained() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("run.toml"), CONFIG).unwrap();
    let run = path("run");
    let [config, out, profile] = [
        path("run.toml"),
        run.clone(),
        run.join("profile.safetensors"),
    ]
    .map(|path| path.to_str().unwrap().to_owned());
    mantissa(&["train", "--config", &config, "--out", &out]);
    mantissa(&[
        "profile", "--config", &config, "--every", "4", "-o", &profile,
    ]);
    let lines: Vec<String> = [0, 4, 8]
        .into_iter()
        .flat_map(|step| {
            ["mha.query", "mha.key"].map(|site| {
                format!(
                    r#"{{"step":{step},"site":"encoder.layers.0.{site}","pass":"forward","backward_error":0.00{},"backward_error_high":0.006,"backward_error_bound":0.004,"operands":{{"lhs":{{"numerics":"e4m3/tensor","amax":2.0,"underflow":0.01,"nu":6.5}},"rhs":{{"numerics":"e4m3/tensor","amax":0.5,"underflow":0.0}}}}}}"#,
                    step + 1
                )
            })
        })
        .collect();
    fs::write(run.join("measurements.jsonl"), lines.join("\n") + "\n").unwrap();
    let decisions = [
        r#"{"step":8,"kind":"promoted","site":"encoder.layers.0.mha.query","pass":"forward","from":{"lhs":"e4m3/tensor","rhs":"e4m3/tensor"},"to":{"lhs":"bf16","rhs":"bf16"},"reason":"backward error may be 6.0e-3, beyond 4.0e-3","metric":"backward error","value":0.006,"bound":0.004}"#,
        r#"{"step":10,"kind":"rolled_back","to_step":6,"reason":"the loss left its course"}"#,
    ];
    fs::write(run.join("decisions.jsonl"), decisions.join("\n") + "\n").unwrap();
    (folder, run)
}

fn report(run: &Path) -> String {
    let page = run.with_extension("html");
    mantissa(&[
        "report",
        run.to_str().unwrap(),
        "-o",
        page.to_str().unwrap(),
    ]);
    format!("file://{}", page.display())
}

/// The text of the tip that a chart shows.
fn tip(chart: &str) -> String {
    format!(
        "[...document.querySelectorAll('#{chart} [aria-label=tip] text')].map(text => text.textContent).join('|')"
    )
}

#[test]
fn the_page_answers_to_mouse_and_keyboard_and_asks_nobody() {
    let (_folder, run) = trained();
    let mut page = Page::open(&report(&run));
    assert_eq!(page.complaints(), [""; 0]);
    let charts = [
        "loss-chart",
        "heat-map",
        "heat-detail",
        "changes-chart",
        "layer-graph",
        "exponents-lhs",
        "values-grad",
        "relative-chart",
        "nu-chart",
        "memory-chart",
        "time-chart",
    ];
    for chart in charts {
        let marks = page.value(&format!(
            "document.querySelectorAll('#{chart} svg *').length"
        ));
        assert!(marks.as_u64().unwrap() > 10, "{chart} has {marks} marks");
    }
    // The loss by keyboard is that of the log.
    page.value("document.getElementById('loss-chart').focus(); chosen.smoothing = '1'; draw()");
    page.press("ArrowRight");
    page.press("ArrowRight");
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let record: Value = serde_json::from_str(log.lines().nth(1).unwrap()).unwrap();
    let loss = format!("{:.4}", record["loss"].as_f64().unwrap());
    let shown = page.text(&tip("loss-chart"));
    assert!(
        shown.contains("step 1") && shown.contains(&loss[..5]),
        "{shown}, not {loss}"
    );
    let spoken = page.text("document.getElementById('spoken').textContent");
    assert!(
        spoken.contains("step 1") && spoken.contains(&loss[..5]),
        "{spoken}"
    );

    // A cell of the heat map by mouse.
    page.point_at(
        "document.querySelector('#heat-map [aria-label=rect] rect')",
        false,
    );
    page.wait_for(&format!("({}) !== ''", tip("heat-map")));
    let shown = page.text(&tip("heat-map"));
    for words in [
        "encoder.layers.0.mha.query",
        "forward at step 0",
        "backward error 0.001",
        "bound 0.004",
    ] {
        assert!(shown.contains(words), "`{words}` in {shown}");
    }

    // The heat map is reached and read by keyboard, and Enter chooses the site of the layer below.
    page.value("document.getElementById('steps-to').focus()");
    let mut tabs = 0;
    while page.text("document.activeElement.id") != "heat-map" {
        page.press("Tab");
        tabs += 1;
        assert!(tabs < 80, "the heat map is never reached");
    }
    for key in ["ArrowLeft", "ArrowDown", "Enter"] {
        page.press(key);
    }
    let spoken = page.text("document.getElementById('spoken').textContent");
    assert!(
        spoken.contains("encoder.layers.0.mha.key, forward at step 4, backward error 0.005"),
        "{spoken}"
    );
    assert_eq!(
        page.text("document.getElementById('site').value"),
        "encoder.layers.0.mha.key"
    );
    assert_eq!(page.text("document.activeElement.id"), "heat-map");
    let graph = page.text("document.querySelector('#layer-graph svg').getAttribute('aria-label')");
    assert!(
        graph.contains("mha.key") && graph.contains("grad in e5m2/tensor"),
        "{graph}"
    );

    // A decision by keyboard.
    page.value("document.getElementById('changes-chart').focus()");
    page.press("ArrowRight");
    let spoken = page.text("document.getElementById('spoken').textContent");
    assert!(
        spoken.contains("promoted") && spoken.contains("beyond 4.0e-3"),
        "{spoken}"
    );

    // Numbers as a table.
    page.point_at(
        "document.querySelector('#loss-chart + .numbers summary')",
        true,
    );
    page.wait_for("document.querySelectorAll('#loss-chart + .numbers tbody tr').length === 12");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn a_predicted_study_shows_what_was_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let shared = CONFIG
        .replace("\n[", "\n[run.")
        .replace("recipe = \"fp8-hybrid\"\n", "");
    let rows = ["fp32", "fp8-hybrid", "e5m2-unscaled"].map(|recipe| {
        format!("[[rows]]\nname = \"{recipe}\"\nrun.numerics.recipe = \"{recipe}\"\n")
    });
    let study = format!("seeds = [0, 1]\n{shared}{}", rows.concat());
    fs::write(path("study.toml"), study).unwrap();
    let (study, out, profile) = (path("study.toml"), path("out"), path("profile.safetensors"));
    mantissa(&["compare", &study, "--out", &out, "--profile", &profile]);

    let mut page = Page::open(&format!("file://{out}/report.html"));
    let dots = "document.querySelectorAll('#prediction-chart [aria-label=dot] circle').length";
    assert_eq!(page.value(dots).as_u64(), Some(2));
    let names = "document.querySelector('#prediction-chart [aria-label=text]').textContent";
    assert!(page.text(names).contains("fp8-hybrid"));
    page.value("document.getElementById('prediction-chart').focus()");
    page.press("ArrowRight");
    let shown = page.text(&tip("prediction-chart"));
    assert!(
        shown.contains("fp8-hybrid") && shown.contains("predicted: "),
        "{shown}"
    );
    assert_eq!(page.complaints(), [""; 0]);
    // A run alone has nothing to be held against.
    let mut alone = Page::open(&report(Path::new(&format!("{out}/fp32/seed-0"))));
    for id in ["prediction", "prediction-link"] {
        let hidden = format!("document.getElementById('{id}').hidden");
        assert_eq!(alone.value(&hidden).as_bool(), Some(true));
    }
}

#[test]
fn the_decisions_sort_and_search() {
    let (_folder, run) = trained();
    let mut page = Page::open(&report(&run));
    let sites = "[...document.querySelectorAll('#decision-table-0 tbody tr:not([hidden])')].map(row => row.cells[0].textContent)";
    let before = page.value(sites);
    let heading = "document.querySelector('#decision-table-0 thead button')";
    page.point_at(heading, true);
    page.point_at(heading, true);
    assert_eq!(
        page.text(&format!(
            "{heading}.parentElement.getAttribute('aria-sort')"
        )),
        "descending"
    );
    let mut sorted: Vec<String> = serde_json::from_value(before.clone()).unwrap();
    sorted.sort();
    sorted.reverse();
    let after: Vec<String> = serde_json::from_value(page.value(sites)).unwrap();
    assert_eq!(after, sorted);
    assert_ne!(Value::from(after), before);

    page.value("document.getElementById('decision-search').focus()");
    page.call(
        "Input.insertText",
        serde_json::json!({ "text": "key forward" }),
    );
    let found: Vec<String> = serde_json::from_value(page.value(sites)).unwrap();
    assert_eq!(found, ["encoder.layers.0.mha.key"]);
    let count = page.text("document.getElementById('decision-count').textContent");
    assert!(count.starts_with("1 of "), "{count}");
    assert_eq!(page.complaints(), [""; 0]);
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // ignored: it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of a run, and where it is.
fn serve(run: &Path) -> (Server, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mantissa"))
        .args(["serve", run.to_str().unwrap(), "--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line.split(' ').next().unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{line}");
    (Server(process), url)
}

#[test]
fn a_served_page_follows_the_run_and_stays_where_it_is() {
    let (_folder, run) = trained();
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    fs::write(run.join("log.jsonl"), lines[..5].join("\n") + "\n{\"ste").unwrap();
    fs::remove_file(run.join("summary.json")).unwrap();
    let (server, url) = serve(&run);
    let mut page = Page::open(&url);
    assert_eq!(
        page.text("document.getElementById('run-state').textContent"),
        "at step 5 of 12"
    );

    page.value("chooseSite('encoder.layers.0.mha.value'); document.getElementById('loss-chart').focus({ preventScroll: true })");
    page.value("scrollTo({ top: 900, behavior: 'instant' })");
    let place = page.value("scrollY");
    fs::write(run.join("log.jsonl"), lines[..9].join("\n") + "\n").unwrap();
    page.wait_for("document.getElementById('run-state').textContent === 'at step 9 of 12'");
    assert_eq!(
        page.text("document.getElementById('site').value"),
        "encoder.layers.0.mha.value"
    );
    assert_eq!(page.text("document.activeElement.id"), "loss-chart");
    assert_eq!(page.value("scrollY"), place);

    let mut log = OpenOptions::new()
        .append(true)
        .open(run.join("log.jsonl"))
        .unwrap();
    log.write_all((lines[9..].join("\n") + "\n").as_bytes())
        .unwrap();
    page.wait_for("document.getElementById('run-state').textContent.includes('step 12')");
    assert_eq!(
        page.text("document.getElementById('live').textContent"),
        "live"
    );
    let requests = page.complaints();
    let foreign: Vec<_> = requests
        .iter()
        .filter(|complaint| !complaint.starts_with(&url))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    drop(server);
    page.wait_for("document.getElementById('live').textContent === 'the server has ended'");
}
