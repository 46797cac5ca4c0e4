//! The two tables of the page, written as HTML here so that they can be read without a script.

use super::Report;
use super::page::escape;

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

    fn wide(text: &str) -> Self {
        Self {
            class: "wide",
            ..Self::text(text)
        }
    }

    fn number(value: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        let value = value.filter(|value| value.is_finite());
        Self {
            text: value.map_or("–".to_owned(), show),
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

fn table(id: &str, caption: &str, headings: &[Heading], rows: &[Vec<Cell>]) -> String {
    let head: String = headings
        .iter()
        .map(|(title, number)| {
            let class = if *number { " class=\"number\"" } else { "" };
            format!("<th scope=\"col\"{class}>{title}</th>")
        })
        .collect();
    let body: String = rows
        .iter()
        .map(|row| {
            let cells: String = row.iter().map(Cell::html).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"data\" id=\"{id}\"><caption>{caption}</caption>\
         <thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )
}

/// One row a run.
pub(super) fn results(report: &Report) -> String {
    let mut caption = Vec::new();
    if let Some(floor) = report.loss_floor {
        caption.push(format!("No model can reach a loss below {floor:.4}."));
    }
    if let Some(spread) = report.seeds_spread {
        caption.push(format!(
            "σ, the spread of the full-precision loss between seeds, is {}.",
            significant(spread)
        ));
    }
    let headings = [
        ("Run", false),
        ("Final loss", true),
        ("Above floor", true),
        ("Gap", true),
        ("Gap in σ", true),
        ("Skipped steps", true),
        ("Bytes per element", true),
        ("Outcome", false),
    ];
    let rows: Vec<_> = report
        .runs
        .iter()
        .map(|run| {
            let outcome = if run.diverged {
                Cell {
                    text: "<span class=\"bad\">diverged</span>".to_owned(),
                    ..Cell::text("")
                }
            } else {
                Cell::text("converged")
            };
            vec![
                Cell::text(&run.name),
                Cell::number(run.final_loss, |x| format!("{x:.4}")),
                Cell::number(run.above_floor, |x| format!("{x:.4}")),
                Cell::number(run.gap, |x| format!("{x:+.4}")),
                Cell::number(run.gap_sigma, |x| format!("{x:+.1}")),
                Cell::number(Some(run.skipped_steps as f64), |x| format!("{x}")),
                Cell::number(run.bytes_per_element, |x| format!("{x:.2}")),
                outcome,
            ]
        })
        .collect();
    table("result-table", &caption.join(" "), &headings, &rows)
}

/// One row a pass of a site.
pub(super) fn decisions(report: &Report) -> String {
    let headings = [
        ("Site", false),
        ("Pass", false),
        ("Left", false),
        ("Right", false),
        ("Error", true),
        ("p95", true),
        ("Underflow", true),
        ("Bias", true),
        ("Cost", true),
        ("Runner-up", false),
        ("Its error", true),
        ("Why", false),
    ];
    let rows: Vec<_> = report
        .decisions
        .iter()
        .map(|decision| {
            vec![
                Cell::text(&decision.site),
                Cell::text(&decision.pass),
                Cell::text(&decision.left),
                Cell::text(&decision.right),
                Cell::number(decision.backward_error, significant),
                Cell::number(decision.backward_error_p95, significant),
                Cell::number(decision.underflow, percent),
                Cell::number(decision.bias, significant),
                Cell::number(decision.cost, significant),
                Cell::text(&decision.runner_up),
                Cell::number(decision.runner_up_backward_error, significant),
                Cell::wide(&decision.reason),
            ]
        })
        .collect();
    table(
        "decision-table",
        "Error is the backward error |LR - Q(L,R)| / (|L||R|), its median and 95th percentile over the elements of a product.",
        &headings,
        &rows,
    )
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
