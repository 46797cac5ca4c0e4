//! The tables of results and of decisions, written as HTML here so that they can be read without a script.

use super::Report;
use super::groups::Group;
use super::page::escape;
use super::plans::{PlanView, Reasons};
use super::run::State;

/// What stands where there is no value.
const NOTHING: &str = "–";

/// A cell: its text, and the number it is sorted by where it is one.
struct Cell {
    text: String,
    sort: Option<f64>,
    class: &'static str,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self {
            text: escape(text),
            sort: None,
            class: "",
        }
    }

    fn number(value: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        let value = value.filter(|value| value.is_finite());
        Self {
            text: value.map_or(NOTHING.to_owned(), show),
            sort: Some(value.unwrap_or(f64::NAN)),
            class: "number",
        }
    }

    fn html(&self) -> String {
        let sort = self
            .sort
            .map_or(String::new(), |value| format!(" data-value=\"{value}\""));
        let class = match self.class {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        format!("<td{class}{sort}>{}</td>", self.text)
    }
}

/// A heading, and whether its column holds numbers.
type Heading = (&'static str, bool);

/// A table; columns without a value in any row are left out.
fn table(id: &str, caption: &str, headings: &[Heading], rows: Vec<Vec<Cell>>) -> String {
    let filled: Vec<bool> = (0..headings.len())
        .map(|column| rows.iter().any(|row| row[column].text != NOTHING))
        .collect();
    let head: String = headings
        .iter()
        .zip(&filled)
        .filter(|(_, filled)| **filled)
        .map(|((title, number), _)| {
            let class = if *number { " class=\"number\"" } else { "" };
            format!("<th scope=\"col\"{class}>{title}</th>")
        })
        .collect();
    let body: String = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&filled).filter(|(_, filled)| **filled);
            let cells: String = cells.map(|(cell, _)| cell.html()).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"data\" id=\"{id}\"><caption>{caption}</caption>\
         <thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )
}

/// One row a group of runs.
pub(super) fn results(report: &Report) -> String {
    let mut caption = Vec::new();
    if let Some(floor) = report.loss_floor {
        caption.push(format!("No model can reach a loss below {floor:.4}."));
    }
    let first = report.groups.first();
    if let Some((first, deviation)) = first.and_then(|first| Some((first, first.deviation?))) {
        caption.push(format!(
            "Gaps are to {}, seed by seed; σ, its standard deviation between {} seeds, is {}.",
            escape(&first.name),
            first.runs.len(),
            significant(deviation)
        ));
    }
    let headings = [
        ("Run", false),
        ("Seeds", true),
        ("Final loss", true),
        ("± between seeds", true),
        ("Above floor", true),
        ("Gap", true),
        ("Gap in σ", true),
        ("Skipped steps", true),
        ("Bytes per element", true),
        ("State", false),
    ];
    let rows: Vec<_> = report
        .groups
        .iter()
        .map(|group| {
            vec![
                Cell::text(&group.name),
                Cell::number(Some(group.runs.len() as f64), |x| format!("{x}")),
                Cell::number(group.final_loss, |x| format!("{x:.4}")),
                Cell::number(group.deviation, significant),
                Cell::number(group.above_floor, |x| format!("{x:.4}")),
                Cell::number(group.gap, |x| format!("{x:+.4}")),
                Cell::number(group.gap_sigma, |x| format!("{x:+.1}")),
                Cell::number(Some(group.skipped_steps as f64), |x| format!("{x}")),
                Cell::number(group.bytes_per_element, |x| format!("{x:.2}")),
                state(report, group),
            ]
        })
        .collect();
    table("result-table", &caption.join(" "), &headings, rows)
}

/// How the runs of a group ended, or how far they are.
fn state(report: &Report, group: &Group) -> Cell {
    let runs = || group.runs.iter().map(|&run| &report.runs[run]);
    let total = group.runs.len();
    let of_all = |count: usize| match total {
        1 => String::new(),
        _ => format!("{count} of {total} "),
    };
    let mut parts = Vec::new();
    let stopped = runs().filter(|run| run.state == State::Stopped).count();
    for (count, word) in [(group.diverged, "diverged"), (stopped, "stopped by skips")] {
        if count > 0 {
            parts.push(format!(
                "<span class=\"bad\">{}{word}</span>",
                of_all(count)
            ));
        }
    }
    if group.unfinished > 0 {
        let end = runs().map(|run| run.history.end).min().unwrap_or(0);
        let planned = runs().find_map(|run| run.planned_steps);
        parts.push(match planned {
            Some(planned) => format!("at step {end} of {planned}"),
            None => format!("at step {end}, not finished"),
        });
    }
    if parts.is_empty() {
        parts.push("finished".to_owned());
    }
    Cell {
        text: parts.join(", "),
        ..Cell::text("")
    }
}

/// One row a pass of a site.
pub(super) fn decisions(id: &str, plan: &PlanView) -> String {
    let headings = [
        ("Site", false),
        ("Pass", false),
        ("Left", false),
        ("Right", false),
        ("Error", true),
        ("Upper end", true),
        ("Bound", true),
        ("Underflow", true),
        ("Bias", true),
        ("Cost", true),
        ("Quality loss", true),
        ("Runner-up", false),
        ("Its error", true),
        ("Why not", false),
    ];
    let mut rows = Vec::new();
    for site in &plan.sites {
        for decision in &site.passes {
            let because = decision.evidence.as_ref();
            let number = |value: fn(&Reasons) -> Option<f64>, show: fn(f64) -> String| {
                Cell::number(because.and_then(value), show)
            };
            let text =
                |value: Option<&String>| value.map_or(Cell::text(NOTHING), |text| Cell::text(text));
            let [left, right] = &decision.operands;
            let underflow = [left.underflow, right.underflow].into_iter().flatten();
            rows.push(vec![
                Cell::text(&site.name),
                Cell::text(decision.pass.name()),
                Cell::text(&left.numerics),
                Cell::text(&right.numerics),
                number(|because| because.backward_error, significant),
                number(|because| because.backward_error_high, significant),
                number(|because| because.backward_error_bound, significant),
                Cell::number(underflow.reduce(f64::max), percent),
                number(|because| because.bias, significant),
                number(|because| because.cost, significant),
                number(|because| because.quality_loss, percent),
                text(because.and_then(|because| because.runner_up.as_ref())),
                number(|because| because.runner_up_error, significant),
                Cell {
                    class: "wide",
                    ..text(because.and_then(|because| because.reason.as_ref()))
                },
            ]);
        }
    }
    let has_evidence = plan
        .sites
        .iter()
        .flat_map(|site| &site.passes)
        .any(|decision| decision.evidence.is_some());
    let evidence = if has_evidence {
        " Error is the backward error |LR − Q(L,R)| / (|L||R|), its median over the elements of a product; its \
         confidence interval's upper end was held against the bound. Quality loss is the predicted one, in shares of a step's \
         progress."
    } else {
        ""
    };
    let caption = format!("From {}.{evidence}", escape(&plan.source));
    table(id, &caption, &headings, rows)
}

/// Three significant digits, in powers of ten where plain digits would be long.
fn significant(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        magnitude if (1e-3..1e5).contains(&magnitude) => {
            let decimals = (2 - magnitude.log10().floor() as i32).max(0) as usize;
            format!("{x:.decimals$}")
        }
        _ => format!("{x:.2e}"),
    }
}

fn percent(share: f64) -> String {
    format!("{} %", significant(100.0 * share))
}
