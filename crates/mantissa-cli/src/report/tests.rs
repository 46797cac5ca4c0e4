//! The page of an example: escaped, whole, and without anything to load.

use mantissa_formats::Format;

use super::*;

/// A report of the size of a small model's, made of formulas.
fn example() -> Report {
    let runs = [
        ("fp32", 0.0, false),
        ("plan", 0.004, false),
        ("int8/tensor", 0.35, false),
        ("e5m2/unscaled", 0.0, true),
    ];
    let curve = |offset: f64, diverged: bool| {
        (0..400u64)
            .map(|step| {
                let t = step as f64;
                let noise = 0.08 * (12.9898 * t + 7.0 * offset).sin();
                let loss = 1.9 + offset + 2.3 * (-t / 70.0).exp() + noise;
                let blown_up = diverged && step > 120;
                (step, if blown_up { f64::NAN } else { loss })
            })
            .collect::<Vec<_>>()
    };
    let runs = runs
        .iter()
        .enumerate()
        .map(|(i, &(name, offset, diverged))| Run {
            name: name.to_owned(),
            losses: curve(offset, diverged),
            final_loss: (!diverged).then_some(1.9 + offset),
            above_floor: (!diverged).then_some(0.1 + offset),
            gap: (!diverged).then_some(offset),
            gap_sigma: (!diverged).then_some(offset / 0.01),
            skipped_steps: 3 * (i as u64 % 2),
            diverged,
            bytes_per_element: Some([4.0, 1.1, 1.0, 1.0][i]),
            loss_scale: if i == 1 {
                (0..400)
                    .map(|step| (step, 65536.0 * 2f64.powi(step as i32 / 100 - 1)))
                    .collect()
            } else {
                Vec::new()
            },
        })
        .collect();
    let mut operands = Vec::new();
    let mut decisions = Vec::new();
    let sites = (0..2).flat_map(|layer| {
        ["query", "key", "value", "scores", "context", "output"]
            .map(|name| format!("encoder.layers.{layer}.attention.{name}"))
    });
    for (s, site) in sites.enumerate() {
        for (pass, roles) in [
            ("forward", ["lhs", "rhs"]),
            ("grad_lhs", ["grad", "rhs"]),
            ("grad_rhs", ["lhs", "grad"]),
        ] {
            for role in roles {
                let centre = if role == "grad" {
                    -17.0
                } else {
                    -1.0 - s as f64 / 4.0
                };
                let histogram: Vec<_> = (-40..8)
                    .map(|e| {
                        let distance = f64::from(e) - centre;
                        let slope = if distance > 0.0 {
                            1.5 * distance * distance
                        } else {
                            -0.69 * distance
                        };
                        (e, (30_000.0 * (-slope).exp()) as u64)
                    })
                    .filter(|(_, count)| *count > 0)
                    .collect();
                let amax = histogram.last().map_or(0.0, |(e, _)| 1.9 * 2f64.powi(*e));
                let numerics: Numerics = if role == "grad" {
                    "e5m2/tensor"
                } else {
                    "e4m3/tensor"
                }
                .parse()
                .unwrap();
                operands.push(Operand {
                    site: site.clone(),
                    pass: pass.to_owned(),
                    role: role.to_owned(),
                    numerics: numerics.to_string(),
                    count: 100_000,
                    zeros: 1200,
                    amax: Some(amax),
                    window: Some(Window::placed(&numerics, amax as f32)),
                    histogram,
                    underflow: Some(0.0004),
                    saturation: Some(0.0),
                    sqnr_db: Some(31.5),
                    student_nu: Some(5.2),
                });
            }
            decisions.push(Decision {
                site: site.clone(),
                pass: pass.to_owned(),
                left: "e4m3".to_owned(),
                right: "int8/channel".to_owned(),
                backward_error: Some(1.3e-3 * (1.0 + s as f64)),
                backward_error_p95: Some(4e-3),
                underflow: Some(4e-4),
                bias: Some(-2e-6),
                cost: Some(0.5),
                runner_up: "bf16 x bf16".to_owned(),
                runner_up_backward_error: Some(8e-4),
                reason: "cheapest that clears every threshold; <bf16> costs twice as much"
                    .to_owned(),
            });
        }
    }
    Report {
        title: "demo & </script><script>alert(1)</script>".to_owned(),
        created: "2026-01-01 12:00".to_owned(),
        facts: vec![
            ("Model".to_owned(), "bert-tiny".to_owned()),
            ("Steps".to_owned(), "400".to_owned()),
            ("Seed".to_owned(), "0".to_owned()),
        ],
        loss_floor: Some(1.8),
        seeds_spread: Some(0.01),
        runs,
        windows: [Format::FP16, Format::E5M2, Format::E4M3, Format::INT8]
            .map(Window::of)
            .into(),
        operands,
        decisions,
    }
}

/// Set to a path, `MANTISSA_REPORT_EXAMPLE` keeps the page for a look in a browser.
#[test]
fn the_page_is_whole_and_loads_nothing() {
    let page = render(&example());
    if let Some(path) = std::env::var_os("MANTISSA_REPORT_EXAMPLE") {
        std::fs::write(path, &page).unwrap();
    }
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("{{"), "an unfilled place");
    for id in ["results", "loss-chart", "operand-charts", "decision-table"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for loading in [
        "src=",
        "<link",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "href=\"http",
    ] {
        assert!(!page.contains(loading), "{loading}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn text_from_outside_stays_text() {
    let page = render(&example());
    assert!(page.contains("demo &amp; &lt;/script&gt;"));
    assert!(page.contains("&lt;bf16&gt; costs"));
    // Three elements of script end three times; the data, which holds the title too, adds none.
    assert_eq!(page.matches("</script>").count(), 3);
    assert_eq!(page.matches("<script").count(), 3);
}

#[test]
fn the_data_is_json_without_what_is_not_finite() {
    let page = render(&example());
    let (_, data) = page.split_once("id=\"report-data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["title"], example().title);
    assert_eq!(
        data["runs"][3]["losses"][399],
        serde_json::json!([399, null])
    );
    assert_eq!(data["operands"].as_array().unwrap().len(), 72);
}

#[test]
fn an_empty_report_is_a_page_too() {
    let page = render(&Report::default());
    assert!(page.contains("result-table"));
}

#[test]
fn a_scaled_window_ends_at_amax() {
    let e4m3 = Window::of(Format::E4M3);
    assert_eq!((e4m3.subnormal, e4m3.normal), (-9.0, -6.0));
    let placed = Window::placed(&"e4m3/tensor".parse().unwrap(), 7.0);
    assert!((placed.max - 7f64.log2()).abs() < 1e-12);
    // 448 = 7 x 64: the whole window moves by six.
    assert!((placed.normal - -12.0).abs() < 1e-12);
    let unscaled = Window::placed(&"e5m2/unscaled".parse().unwrap(), 7.0);
    assert_eq!(unscaled.normal, -14.0);
}
