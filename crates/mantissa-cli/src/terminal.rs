//! What reaches the terminal: results on stdout, everything else on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::error::Error;

/// Writes a result to standard output.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Stdout)
}

/// Writes one line of JSON, or an indented document, to standard output.
pub fn print_json(value: &impl serde::Serialize, indented: bool) -> Result<(), Error> {
    let text = if indented {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let text = text.map_err(|source| Error::Stdout(source.into()))?;
    print(&(text + "\n"))
}

/// Writes `kind: message` to standard error; a closed standard error is no reason to fail.
pub fn complain(kind: &str, message: &dyn Display) {
    // ignored: nobody is left to tell
    let _ = writeln!(io::stderr().lock(), "{kind}: {message}");
}

/// Text from outside with its control characters made visible, so that a file cannot steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A table with a ruled head; columns from `numbers_from` on are right-aligned.
pub fn table(headings: &[&str], numbers_from: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings)
        .add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in numbers_from..headings.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// A number in few characters: the shortest text that parses back to it.
pub fn exact(x: f32) -> String {
    let magnitude = x.abs();
    if x.is_nan() {
        "NaN".to_owned()
    } else if magnitude.is_infinite() || magnitude == 0.0 || (1e-5..1e7).contains(&magnitude) {
        format!("{x}")
    } else {
        format!("{x:e}")
    }
}

/// A number to four significant digits; a dash for what is undefined.
pub fn rounded(x: Option<f64>) -> String {
    match x.filter(|x| x.is_finite()) {
        None => "–".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(x) if (1e-3..1e6).contains(&x.abs()) => {
            let decimals = (3 - x.abs().log10().floor() as i32).max(0) as usize;
            format!("{x:.decimals$}")
        }
        Some(x) => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(exact(448.0), "448");
        assert_eq!(exact(0.001953125), "0.001953125");
        assert_eq!(exact(f32::MAX), "3.4028235e38");
        assert_eq!(exact(-0.0), "-0");
        assert_eq!(rounded(Some(31.456_78)), "31.46");
        assert_eq!(rounded(Some(-1.0 / 3.0)), "-0.3333");
        assert_eq!(rounded(Some(1e-9)), "1.000e-9");
        assert_eq!(rounded(Some(f64::NAN)), "–");
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(printable("a\u{1b}[31mé"), "a\\u{1b}[31mé");
    }
}
