//! The page around the data: a template with `{{name}}` places, filled in one pass.

use serde::Serialize;

use super::{Report, tables};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
pub(super) const LIBRARIES: [&str; 2] = [
    include_str!("page/vendor/d3.min.js"),
    include_str!("page/vendor/plot.umd.min.js"),
];
/// The page's own script, in the order in which its parts build on each other.
const SCRIPT: [&str; 15] = [
    include_str!("page/script/words.js"),
    include_str!("page/script/state.js"),
    include_str!("page/script/figure.js"),
    include_str!("page/script/overview.js"),
    include_str!("page/script/loss.js"),
    include_str!("page/script/loss_scale.js"),
    include_str!("page/script/prediction.js"),
    include_str!("page/script/heat_map.js"),
    include_str!("page/script/decisions.js"),
    include_str!("page/script/layer.js"),
    include_str!("page/script/tensors.js"),
    include_str!("page/script/formats.js"),
    include_str!("page/script/resources.js"),
    include_str!("page/script/tables.js"),
    include_str!("page/script/main.js"),
];
/// What a page that is served has besides: it asks for news.
const LIVE_SCRIPT: &str = include_str!("page/script/live.js");

/// The report as one HTML page that needs no other file and no network.
pub fn render(report: &Report) -> String {
    fill(report, "", "")
}

/// The same page for the server that it comes from, which it asks for news.
pub fn render_live(report: &Report) -> String {
    fill(report, "; connect-src 'self'", LIVE_SCRIPT)
}

/// What a page that asks for news is told, as JSON.
pub fn update(report: &Report) -> String {
    #[derive(Serialize)]
    struct Update<'r> {
        report: &'r Report,
        results: String,
        decisions: String,
    }
    let update = Update {
        report,
        results: tables::results(report),
        decisions: decisions(report),
    };
    serde_json::to_string(&update).expect("plain data with string keys serializes")
}

fn fill(report: &Report, connect: &str, live_script: &str) -> String {
    let results = tables::results(report);
    let decisions = decisions(report);
    let facts = facts(report);
    let data = embed(report);
    let title = escape(&report.title);
    let (script, libraries) = (SCRIPT.concat(), LIBRARIES.join("\n"));
    let size = TEMPLATE.len() + libraries.len() + script.len() + data.len() + decisions.len();
    let mut page = String::with_capacity(size + STYLE.len());
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        page.push_str(match name {
            "connect" => connect,
            "title" => &title,
            "facts" => &facts,
            "results" => &results,
            "decisions" => &decisions,
            "data" => &data,
            "version" => env!("CARGO_PKG_VERSION"),
            "style" => STYLE,
            "libraries" => &libraries,
            "script" => &script,
            "live_script" => live_script,
            _ => "",
        });
        rest = after;
    }
    page.push_str(rest);
    page
}

/// `text` as HTML text or attribute value.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The report as JSON inside a script element. `<` only occurs inside JSON strings, and written as an escape it can
/// neither end the element nor open a comment.
fn embed(report: &Report) -> String {
    serde_json::to_string(report)
        .expect("plain data with string keys serializes")
        .replace('<', "\\u003c")
}

fn facts(report: &Report) -> String {
    let fact = |(name, value): &(&str, String)| {
        let (name, value) = (escape(name), escape(value));
        format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
    };
    report.facts.iter().map(fact).collect()
}

/// A table for each plan; the first is shown until the script shows that of the chosen run.
fn decisions(report: &Report) -> String {
    let tables = report.plans.iter().enumerate();
    let tables = tables.map(|(index, plan)| {
        let hidden = if index == 0 { "" } else { " hidden" };
        let table = tables::decisions(&format!("decision-table-{index}"), plan);
        format!("<div class=\"plan\" data-plan=\"{index}\"{hidden}>{table}</div>")
    });
    tables.collect()
}
