//! The page around the data: a template with `{{name}}` places, filled in one pass.

use super::{Report, tables};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");
const CHART_SCRIPT: &str = include_str!("vendor/uPlot.iife.min.js");
const CHART_STYLE: &str = include_str!("vendor/uPlot.min.css");

/// The report as one HTML page that needs no other file and no network.
pub fn render(report: &Report) -> String {
    let results = tables::results(report);
    let decisions = tables::decisions(report);
    let facts = facts(report);
    let data = embed(report);
    let title = escape(&report.title);
    let mut page = String::with_capacity(
        TEMPLATE.len() + CHART_SCRIPT.len() + SCRIPT.len() + data.len() + decisions.len(),
    );
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        page.push_str(match name {
            "title" => &title,
            "facts" => &facts,
            "results" => &results,
            "decisions" => &decisions,
            "data" => &data,
            "version" => env!("CARGO_PKG_VERSION"),
            "style" => STYLE,
            "script" => SCRIPT,
            "chart_style" => CHART_STYLE,
            "chart_script" => CHART_SCRIPT,
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
    let created = ("Made".to_owned(), report.created.clone());
    std::iter::once(&created)
        .filter(|(_, value)| !value.is_empty())
        .chain(&report.facts)
        .map(|(name, value)| {
            let (name, value) = (escape(name), escape(value));
            format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
        })
        .collect()
}
