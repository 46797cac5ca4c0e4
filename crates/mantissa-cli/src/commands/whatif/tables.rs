//! What `mantissa whatif` prints for people.

use std::fmt::Write;

use mantissa::plan::evaluate::{OperandError, PairError, Share};
use mantissa::plan::whatif::advice::{granularity_advice, rounding_advice};
use mantissa::plan::whatif::prediction::prediction;
use mantissa::plan::whatif::{PassOutcome, SiteOutcome, Summary, Worst, summarize};
use mantissa::plan::{Pass, PassNumerics, Target, Thresholds};
use mantissa_metrics::{Estimate, Interval};

use super::rows::bits;
use crate::terminal::{printable, table};

/// What tables have in common.
pub struct Tables<'a> {
    /// Whose costs are shown.
    pub target: &'a Target,
    /// Within which advice looks for what suffices.
    pub thresholds: Thresholds,
    /// Cheapest first instead of best first.
    pub by_cost: bool,
    /// How many lines each has at most.
    pub lines: usize,
}

/// A heading and the cells below it.
type Column = (String, Vec<String>);

impl Tables<'_> {
    /// One line a candidate over all sites.
    pub fn over_sites(&self, sites: &[SiteOutcome]) -> String {
        let products: usize = sites.iter().map(|site| site.passes.len()).sum();
        let outputs: usize = sites
            .iter()
            .flat_map(|site| &site.passes)
            .map(|pass| pass.outputs)
            .sum();
        let mut text = format!(
            "{} sites, {products} products, {outputs} outputs; BE is each site's median backward error\n\n",
            sites.len()
        );
        text += &self.summaries(sites, true);
        text += "\n--site GLOB shows a site's passes, with confidence intervals and advice.\n";
        text
    }

    /// A site as a whole, then each of its passes.
    pub fn site(&self, site: &SiteOutcome) -> String {
        let mut text = format!("{} ({})\n\n", printable(&site.site.name), site.site.kind);
        if site.passes.len() > 1 {
            text += &self.summaries(std::slice::from_ref(site), false);
            text += "\n";
        }
        for pass in &site.passes {
            text += &self.pass(site, pass);
            text += "\n";
        }
        text
    }

    /// One line a candidate; medians and worst sites where there are several.
    fn summaries(&self, sites: &[SiteOutcome], several: bool) -> String {
        let mut summaries = summarize(sites);
        let depths = || {
            sites
                .iter()
                .flat_map(|site| &site.passes)
                .map(|pass| pass.depth)
        };
        let depth = depths().max().unwrap_or(1);
        let cost = |summary: &Summary| self.cost(&summary.numerics, depth);
        summaries.sort_by(|a, b| {
            let by_error = a.worst().total_cmp(&b.worst());
            if self.by_cost {
                cost(a).total_cmp(&cost(b)).then(by_error)
            } else {
                by_error
            }
        });
        let shown = &summaries[..summaries.len().min(self.lines)];
        let mut columns: Vec<Column> = vec![column("numerics", shown, |s| name(&s.numerics))];
        for pass in Pass::ALL {
            let spread = |s: &Summary| s.backward_error.get(&pass).cloned();
            if several {
                columns.push(column(&format!("BE {pass}"), shown, |s| {
                    optional(spread(s).map(|spread| error(spread.median)))
                }));
                columns.push(column("worst", shown, |s| {
                    optional(spread(s).map(|spread| error(spread.worst.value)))
                }));
            } else {
                columns.push(column(&format!("BE {pass}"), shown, |s| {
                    optional(spread(s).map(|spread| error(spread.worst.value)))
                }));
            }
        }
        let worst = if several { "worst " } else { "" };
        type Cosine = fn(&Summary) -> Option<&Worst<Estimate>>;
        let cosines: [(&str, Cosine); 2] = [
            ("weight gradient", |s| s.gradient_cosine.as_ref()),
            ("update", |s| s.update_cosine.as_ref()),
        ];
        for (what, cosine) in cosines {
            columns.push(column(&format!("{worst}1 - cos of {what}"), shown, |s| {
                optional(cosine(s).map(|worst| from_one(&worst.value)))
            }));
        }
        if several {
            columns.push(column("worst site", shown, |s| {
                optional(worst_site(s).map(printable))
            }));
        }
        columns.push(column("cost", shown, |s| format!("{:.2}", cost(s))));
        print(columns, summaries.len())
    }

    fn pass(&self, site: &SiteOutcome, pass: &PassOutcome) -> String {
        let [left, right] = pass.pass.operands();
        let tails = |side: usize| pass.nu[side].map_or("–".to_owned(), tail);
        let mut text = format!(
            "{}, {left} x {right}: {} steps, {} x {} rows, {} outputs, depth {}, tails ν {} x {}\n\n",
            pass.pass,
            pass.samples,
            pass.rows[0],
            pass.rows[1],
            pass.outputs,
            pass.depth,
            tails(0),
            tails(1),
        );
        let mut errors: Vec<&PairError> = pass.pairs.iter().collect();
        let cost = |error: &PairError| self.cost(&error.numerics, pass.depth);
        errors.sort_by(|a, b| {
            let by_error = median(a).total_cmp(&median(b));
            if self.by_cost {
                cost(a).total_cmp(&cost(b)).then(by_error)
            } else {
                by_error
            }
        });
        let shown = &errors[..errors.len().min(self.lines)];
        let update = site.is_weight_gradient(pass.pass);
        let both = |e: &&PairError, cell: fn(&OperandError) -> String| {
            let [left, right] = [cell(&e.left), cell(&e.right)];
            if left == right {
                left
            } else {
                format!("{left} / {right}")
            }
        };
        let signed =
            |e: &&PairError, cell: fn(&mantissa_metrics::SignedError) -> Option<String>| {
                optional(e.signed.as_ref().and_then(cell))
            };
        let product = |e: &&PairError, cell: fn(&mantissa_metrics::BackwardError) -> String| {
            optional(e.product.as_ref().map(cell))
        };
        let mut columns: Vec<Column> = vec![
            column("numerics", shown, |e| name(&e.numerics)),
            column("BE median", shown, |e| product(e, |be| error(be.median))),
            column("95 % interval", shown, |e| {
                product(e, |be| {
                    optional(be.median_interval.map(|ends| interval(&ends, error)))
                })
            }),
            column("p95", shown, |e| product(e, |be| error(be.p95))),
            column("p99", shown, |e| product(e, |be| error(be.p99))),
            column("bias", shown, |e| signed(e, |s| Some(plus_minus(&s.bias)))),
            column(
                if update {
                    "1 - cos of gradient"
                } else {
                    "1 - cos"
                },
                shown,
                |e| signed(e, |s| s.cosine.as_ref().map(from_one)),
            ),
        ];
        if update {
            columns.push(column("of update", shown, |e| {
                signed(e, |s| s.sign_cosine.as_ref().map(from_one))
            }));
        }
        columns.extend([
            column("SQNR dB", shown, |e| {
                both(e, |o| {
                    optional(o.sqnr_db.map(|sqnr| format!("{:.1}", sqnr.value)))
                })
            }),
            column("underflow", shown, |e| both(e, |o| share(&o.underflow))),
            column("saturated", shown, |e| both(e, |o| share(&o.saturation))),
            column("clipping", shown, |e| {
                both(e, |o| optional(o.clipping.map(|part| percent(part.value))))
            }),
            column("bits", shown, |e| format!("{:.2}", bits(e, pass.depth))),
            column("cost", shown, |e| format!("{:.2}", cost(e))),
        ]);
        text += &print(columns, errors.len());
        text += &advice(pass, &self.thresholds);
        text
    }

    fn cost(&self, numerics: &PassNumerics, depth: usize) -> f64 {
        self.target.cost(numerics, depth)
    }
}

/// A table of the columns that say something, with a line for those of `lines` that are not shown.
fn print(columns: Vec<Column>, lines: usize) -> String {
    let telling = |cells: &[String]| {
        cells
            .iter()
            .any(|cell| !matches!(cell.as_str(), "–" | "0 %"))
    };
    let columns: Vec<Column> = columns
        .into_iter()
        .filter(|(_, cells)| telling(cells))
        .collect();
    let headings: Vec<&str> = columns
        .iter()
        .map(|(heading, _)| heading.as_str())
        .collect();
    let shown = columns.first().map_or(0, |(_, cells)| cells.len());
    let rows = (0..shown).map(|row| {
        columns
            .iter()
            .map(|(_, cells)| cells[row].clone())
            .collect()
    });
    let mut text = table(&headings, 1, rows.collect());
    if shown < lines {
        // ignored: writing to a string cannot fail
        let _ = writeln!(text, "… and {} more; --all shows them", lines - shown);
    }
    text
}

/// What follows from a pass's table, in a line each.
fn advice(pass: &PassOutcome, thresholds: &Thresholds) -> String {
    let mut lines = Vec::new();
    for granularity in granularity_advice(pass, thresholds) {
        lines.push(granularity.to_string());
        if let Some(rounding) = rounding_advice(pass, granularity.numerics()) {
            lines.push(format!("  {rounding}"));
        }
    }
    lines.extend(prediction(pass).map(|prediction| prediction.to_string()));
    if pass.rows.iter().any(|&rows| rows < Estimate::FEWEST_ROWS) {
        lines.push(format!(
            "no confidence intervals: {} x {} rows were sampled, and they take {} of each operand",
            pass.rows[0],
            pass.rows[1],
            Estimate::FEWEST_ROWS
        ));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{}\n", lines.join("\n"))
}

fn column<T>(heading: &str, rows: &[T], cell: impl FnMut(&T) -> String) -> Column {
    (heading.to_owned(), rows.iter().map(cell).collect())
}

fn name(numerics: &PassNumerics) -> String {
    if numerics.left == numerics.right {
        numerics.left.to_string()
    } else {
        format!("{} x {}", numerics.left, numerics.right)
    }
}

/// The site of the pass with the largest error.
fn worst_site(summary: &Summary) -> Option<&str> {
    let worst = summary.backward_error.values().map(|spread| &spread.worst);
    worst
        .max_by(|a, b| a.value.total_cmp(&b.value))
        .map(|worst| worst.site.as_str())
}

fn median(error: &PairError) -> f64 {
    error
        .product
        .map_or(f64::INFINITY, |product| product.median)
}

fn optional(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".to_owned())
}

/// An error in few characters; what overflowed has an infinite one.
fn error(x: f64) -> String {
    if x.is_infinite() {
        "∞".to_owned()
    } else {
        format!("{x:.2e}")
    }
}

fn interval(ends: &Interval, show: fn(f64) -> String) -> String {
    format!("{} – {}", show(ends.low), show(ends.high))
}

fn plus_minus(estimate: &Estimate) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:+.1e} ± {error:.0e}", estimate.value),
        None => format!("{:+.1e}", estimate.value),
    }
}

/// How far a cosine is from one, and the interval of that.
fn from_one(cosine: &Estimate) -> String {
    let distance = |cosine: f64| format!("{:.1e}", 1.0 - cosine);
    match cosine.interval {
        Some(ends) => format!(
            "{} ({} – {})",
            distance(cosine.value),
            distance(ends.high),
            distance(ends.low)
        ),
        None => distance(cosine.value),
    }
}

fn share(share: &Share) -> String {
    percent(share.estimate)
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        x if x < 0.1 => "<0.1 %".to_owned(),
        x => format!("{x:.1} %"),
    }
}

/// Degrees of freedom; beyond a hundred nobody tells them from a normal distribution.
fn tail(nu: f64) -> String {
    if nu < 100.0 {
        format!("{nu:.1}")
    } else {
        ">100".to_owned()
    }
}
