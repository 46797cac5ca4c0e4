//! What formats do to values, whatever the run: relative error by magnitude, backward error by tail weight.

use mantissa_formats::{Format, Overflow, Rounding, round};
use serde::Serialize;

/// Medians by ν, one column for each numerics; how it was made is in its first line.
pub const BY_NU: &str = include_str!("backward_error_by_nu.csv");

/// Formats whose relative error is drawn.
const FORMATS: [Format; 6] = [
    Format::FP16,
    Format::BF16,
    Format::E4M3,
    Format::E5M2,
    Format::INT8,
    Format::E2M1,
];
/// Bins of magnitude in each power of two.
const BINS: i32 = 4;
/// The powers of two around a format's largest value that are drawn.
const RANGE: std::ops::Range<i32> = -36..3;
/// Magnitudes tried in each bin.
const TRIED: i32 = 64;

/// Both families of curves.
#[derive(Clone, Debug, Serialize)]
pub struct FormatCurves {
    /// Relative rounding error by magnitude.
    pub relative_errors: Vec<RelativeErrors>,
    /// Median backward error of a product of Student-t matrices by ν, from Cauchy to normal.
    pub by_nu: Vec<ByNu>,
}

/// The relative rounding error of one format.
#[derive(Clone, Debug, Serialize)]
pub struct RelativeErrors {
    /// The format.
    pub format: String,
    /// Base-2 logarithm of its largest finite value.
    pub max: f64,
    /// Base-2 logarithms of magnitudes relative to the largest finite value, the middles of bins.
    pub magnitudes: Vec<f64>,
    /// The largest error in each bin, rounded to nearest, saturating.
    pub errors: Vec<f64>,
}

/// The backward error of one numerics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByNu {
    /// The numerics of both operands.
    pub numerics: String,
    /// Degrees of freedom and the median backward error; those of a normal are absent.
    pub medians: Vec<(Option<f64>, f64)>,
}

impl FormatCurves {
    /// Computed by the codec, but for the products, which take minutes and are read from a table.
    pub fn new() -> Self {
        Self {
            relative_errors: FORMATS.map(RelativeErrors::of).into(),
            by_nu: by_nu(BY_NU),
        }
    }
}

impl RelativeErrors {
    fn of(format: Format) -> Self {
        let max = f64::from(format.max_finite());
        let error = |x: f64| {
            let rounded = round(format, x as f32, Rounding::Nearest, Overflow::Saturate, 0);
            ((f64::from(rounded) - x) / x).abs()
        };
        let mut curve = Self {
            format: format.to_string(),
            max: max.log2(),
            magnitudes: Vec::new(),
            errors: Vec::new(),
        };
        for bin in RANGE.start * BINS..RANGE.end * BINS {
            let at = |part: f64| (f64::from(bin) + part) / f64::from(BINS);
            // A format such as bf16 ends where f32 does.
            if max * at(1.0).exp2() > f64::from(f32::MAX) {
                break;
            }
            let tried = (0..TRIED).map(|nth| (f64::from(nth) + 0.5) / f64::from(TRIED));
            let tried = tried.map(|part| f64::from((max * at(part).exp2()) as f32));
            let worst = tried.map(error).fold(0.0, f64::max);
            curve.magnitudes.push(at(0.5));
            curve.errors.push(super::significant(worst));
        }
        curve
    }
}

/// Reads the table.
fn by_nu(table: &str) -> Vec<ByNu> {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let names = lines.next().unwrap_or_default().split(',').skip(1);
    let mut columns: Vec<ByNu> = names
        .map(|name| ByNu {
            numerics: name.to_owned(),
            medians: Vec::new(),
        })
        .collect();
    for line in lines {
        let mut cells = line.split(',').map(|cell| cell.parse::<f64>().ok());
        let nu = cells.next().flatten().filter(|nu| nu.is_finite());
        for (column, median) in columns.iter_mut().zip(cells) {
            column.medians.extend(median.map(|median| (nu, median)));
        }
    }
    columns
}

#[cfg(test)]
#[allow(dead_code, reason = "the example's main prints what the test checks")]
#[path = "../../../mantissa-metrics/examples/backward_error_table.rs"]
mod table;

#[cfg(test)]
mod tests {
    use mantissa_quant::Numerics;

    use super::*;

    #[test]
    fn the_relative_error_is_half_a_unit_in_the_last_place() {
        for (format, half_unit) in [(Format::E4M3, 1.0 / 17.0), (Format::E5M2, 1.0 / 9.0)] {
            let curve = RelativeErrors::of(format);
            let normal = f64::from(format.min_normal()).log2() - curve.max;
            let worst = curve.magnitudes.iter().zip(&curve.errors);
            let worst = worst.filter(|(at, _)| (normal + 0.3..-0.3).contains(*at));
            let worst = worst.map(|(_, error)| *error).fold(0.0, f64::max);
            // The worst case lies half way between 1 and the next value.
            assert!((worst / half_unit - 1.0).abs() < 0.02, "{format}: {worst}");
            assert_eq!(curve.errors[0], 1.0, "{format} underflows");
        }
        let int8 = RelativeErrors::of(Format::INT8);
        assert!(
            int8.errors.last().is_some_and(|&error| error > 0.8),
            "saturates"
        );
    }

    #[test]
    fn the_table_is_what_the_example_computes() {
        let curves = by_nu(BY_NU);
        assert_eq!(curves.len(), 12);
        let names = ["int8/tensor", "e4m3/channel"];
        let numerics = names.map(|name| name.parse::<Numerics>().unwrap());
        let computed = table::cells(5.0, &numerics, table::TRIALS);
        for (name, cell) in names.iter().zip(computed) {
            let curve = curves.iter().find(|curve| curve.numerics == *name);
            let medians = &curve.unwrap().medians;
            let (_, median) = medians.iter().find(|(nu, _)| *nu == Some(5.0)).unwrap();
            assert_eq!(
                format!("{:.3e}", cell.mean),
                format!("{median:.3e}"),
                "{name}"
            );
        }
        assert_eq!(
            curves[0].medians.last().unwrap().0,
            None,
            "a normal comes last"
        );
    }
}
