//! Prints the median backward error of 512 x 512 products of Student-t matrices, by tail weight,
//! granularity and format.
//!
//! `cargo run --release -p mantissa-metrics --example backward_error_table [TRIALS] [ROUNDING] [csv]`
//!
//! The set-up is that of Rasquinha and Tabak 2024 (arXiv 2408.02897, section IV-A): both operands
//! are drawn from a Student-t distribution with ν degrees of freedom and quantized with dynamic
//! scales. A cell is the mean over the trials of the median over the elements; from two trials on,
//! the second table gives the standard deviation over the trials in percent.
//!
//! With `csv` it prints the means alone, at more degrees of freedom: the curves of `mantissa report`,
//! `crates/mantissa-cli/src/report/backward_error_by_nu.csv`.

use mantissa_formats::RandomBits;
use mantissa_metrics::{ExactProduct, sample};
use mantissa_quant::{Numerics, Operand};

/// Rows, columns and depth of the product.
const SIZE: usize = 512;
/// Degrees of freedom, from Cauchy to normal.
pub const NUS: [f64; 8] = [1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, f64::INFINITY];
/// Degrees of freedom of the curves.
const CURVE_NUS: [f64; 16] = [
    1.0,
    1.25,
    1.5,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    11.0,
    15.0,
    20.0,
    30.0,
    60.0,
    f64::INFINITY,
];
/// Trials where none are given.
pub const TRIALS: u64 = 6;
/// Elements that share a scale, coarse to fine.
pub const GRANULARITIES: [&str; 4] = ["tensor", "channel", "block128", "block32"];
/// Formats compared.
pub const FORMATS: [&str; 3] = ["int8", "e4m3", "e5m2"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let trials = arguments.next().map_or(Ok(TRIALS), |word| word.parse())?;
    let rounding = arguments.next().unwrap_or_else(|| "nearest".to_owned());
    let as_csv = arguments.next().is_some_and(|word| word == "csv");
    let mut columns = Vec::new();
    for granularity in GRANULARITIES {
        for format in FORMATS {
            columns.push(format!("{format}/{granularity}/{rounding}").parse()?);
        }
    }
    if as_csv {
        print_csv(&columns, trials, &rounding);
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = NUS.iter().map(|&nu| cells(nu, &columns, trials)).collect();
    println!("median backward error, {trials} trials, rounding {rounding}\n");
    print_table(&rows, |cell| format!("{:.3e}", cell.mean));
    if trials > 1 {
        println!("\nstandard deviation over the trials, % of the mean\n");
        print_table(&rows, |cell| {
            format!("{:.1}", 100.0 * cell.deviation / cell.mean)
        });
    }
    Ok(())
}

/// Median backward error of one numerics at one ν.
#[derive(Copy, Clone, Debug)]
pub struct Cell {
    /// Mean over the trials.
    pub mean: f64,
    /// Standard deviation over the trials; 0 for a single one.
    pub deviation: f64,
}

/// The cells of one row of the table: both operands in each of the numerics, on the same matrices.
pub fn cells(nu: f64, numerics: &[Numerics], trials: u64) -> Vec<Cell> {
    let mut medians = vec![Vec::new(); numerics.len()];
    for trial in 0..trials {
        let draw = |stream| sample::student_t(nu, RandomBits::new(trial, stream), SIZE * SIZE);
        let (lhs, rhs) = (draw(0), draw(1));
        let matrix =
            |data| Operand::matrix(data, SIZE, SIZE).expect("SIZE x SIZE elements were drawn");
        let exact = ExactProduct::new(&matrix(&lhs), &matrix(&rhs));
        for (medians, numerics) in medians.iter_mut().zip(numerics) {
            let (lhs_random, rhs_random) = (RandomBits::new(trial, 2), RandomBits::new(trial, 3));
            let error = exact.backward_error(numerics, lhs_random, numerics, rhs_random);
            medians.push(error.expect("a product of nonzero matrices").median);
        }
    }
    medians.iter().map(|medians| Cell::of(medians)).collect()
}

impl Cell {
    fn of(medians: &[f64]) -> Self {
        let n = medians.len() as f64;
        let mean = medians.iter().sum::<f64>() / n;
        let squares: f64 = medians.iter().map(|x| (x - mean) * (x - mean)).sum();
        Self {
            mean,
            deviation: (squares / (n - 1.0).max(1.0)).sqrt(),
        }
    }
}

fn print_csv(columns: &[Numerics], trials: u64, rounding: &str) {
    println!(
        "# cargo run --release -p mantissa-metrics --example backward_error_table {trials} {rounding} csv"
    );
    let names: Vec<String> = columns.iter().map(Numerics::to_string).collect();
    println!("nu,{}", names.join(","));
    for nu in CURVE_NUS {
        let cells = cells(nu, columns, trials);
        let means: Vec<String> = cells
            .iter()
            .map(|cell| format!("{:.3e}", cell.mean))
            .collect();
        println!("{nu},{}", means.join(","));
    }
}

fn print_table(rows: &[Vec<Cell>], show: impl Fn(&Cell) -> String) {
    print!("{:>6}", "");
    for granularity in GRANULARITIES {
        print!(" | {granularity:^29}");
    }
    print!("\n{:>6}", "nu");
    for _ in GRANULARITIES {
        print!(" | {:>9} {:>9} {:>9}", FORMATS[0], FORMATS[1], FORMATS[2]);
    }
    println!();
    for (nu, cells) in NUS.iter().zip(rows) {
        print!(
            "{:>6}",
            if nu.is_finite() {
                nu.to_string()
            } else {
                "normal".to_owned()
            }
        );
        for group in cells.chunks(FORMATS.len()) {
            let shown: Vec<String> = group.iter().map(&show).collect();
            print!(" | {:>9} {:>9} {:>9}", shown[0], shown[1], shown[2]);
        }
        println!();
    }
}
