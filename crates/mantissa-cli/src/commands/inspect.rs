//! `mantissa inspect`: what is in a safetensors file, and what each numerics would do to it.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use mantissa_formats::RandomBits;
use mantissa_metrics::{Moments, fit_student_t, quantization_error};
use mantissa_quant::{Numerics, Operand};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Error;
use crate::safetensors_file::{Tensor, TensorFile};
use crate::terminal::{complain, print, print_json, printable, rounded, table};

/// Arguments of `mantissa inspect`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The last axis is taken as the one a product contracts: channel has one scale\n\
                  for each row along it, block<n> one for n neighbours along it.\n\nExamples:\n  mantissa inspect model.safetensors\n  \
                  mantissa inspect model.safetensors --numerics int8/channel,e4m3/channel,mxfp8\n  \
                  mantissa inspect model.safetensors --json | jq '.tensors[] | select(.kurtosis > 10) | .name'"
)]
pub struct Args {
    /// The file to look into
    file: PathBuf,
    /// Numerics to try on every tensor
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bf16,fp16,e4m3/tensor,e5m2/tensor,int8/tensor,int8/channel,mxfp8"
    )]
    numerics: Vec<String>,
    /// Write JSON to stdout
    #[arg(long)]
    json: bool,
    /// Seed of stochastic rounding
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let numerics: Vec<Numerics> = args
        .numerics
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let file = TensorFile::read(&args.file)?;
    let (floats, others): (Vec<_>, Vec<_>) = file.tensors().into_iter().partition(Tensor::is_float);
    let progress = ProgressBar::new(floats.iter().map(|t| t.bytes.len() as u64).sum());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        progress.set_style(style);
    }
    let reports = floats
        .par_iter()
        .enumerate()
        .filter_map(|(stream, tensor)| {
            let random = RandomBits::new(args.seed, stream as u64);
            let report = TensorReport::of(tensor, &numerics, random);
            progress.inc(tensor.bytes.len() as u64);
            report
        })
        .collect();
    progress.finish_and_clear();
    let inspection = Inspection { tensors: reports };
    if args.json {
        print_json(&inspection, true)?;
    } else {
        print(&inspection.tables())?;
    }
    for tensor in others {
        let note = format!(
            "tensor `{}` is {}, not a float, and was skipped",
            printable(&tensor.name),
            tensor.dtype
        );
        complain("note", &note);
    }
    Ok(())
}

/// The JSON that `--json` writes. `None` is what is undefined, such as the kurtosis of a constant.
#[derive(Serialize)]
struct Inspection {
    tensors: Vec<TensorReport>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    shape: Vec<usize>,
    count: u64,
    zeros: u64,
    non_finite: u64,
    amax: Option<f64>,
    min_nonzero: Option<f64>,
    mean: Option<f64>,
    variance: Option<f64>,
    skewness: Option<f64>,
    kurtosis: Option<f64>,
    student_t: StudentT,
    numerics: Vec<NumericsReport>,
}

#[derive(Serialize)]
struct StudentT {
    nu: Option<f64>,
}

#[derive(Serialize)]
struct NumericsReport {
    numerics: Numerics,
    sqnr_db: Option<f64>,
    mse: Option<f64>,
    bias: Option<f64>,
    underflow: Option<f64>,
    saturation: Option<f64>,
}

impl TensorReport {
    /// `None` for a tensor that is not of floats.
    fn of(tensor: &Tensor, numerics: &[Numerics], random: RandomBits) -> Option<Self> {
        let values = tensor.to_f32()?;
        let moments = Moments::of(&values);
        let any = (moments.count > 0).then_some(());
        let tried = numerics
            .par_iter()
            .map(|numerics| NumericsReport::of(tensor, &values, *numerics, random));
        Some(Self {
            name: tensor.name.clone(),
            shape: tensor.shape.to_vec(),
            count: moments.total(),
            zeros: moments.zeros,
            non_finite: moments.non_finite,
            amax: any.map(|()| moments.amax.into()),
            min_nonzero: moments.min_nonzero.map(f64::from),
            mean: any.map(|()| moments.mean),
            variance: moments.variance(),
            skewness: moments.skewness(),
            kurtosis: moments.kurtosis(),
            student_t: StudentT {
                nu: fit_student_t(&values).map(|fit| fit.nu),
            },
            numerics: tried.collect(),
        })
    }
}

impl NumericsReport {
    fn of(tensor: &Tensor, values: &[f32], numerics: Numerics, random: RandomBits) -> Self {
        let (rows, depth) = tensor.rows_and_depth();
        let undefined = Self {
            numerics,
            sqnr_db: None,
            mse: None,
            bias: None,
            underflow: None,
            saturation: None,
        };
        let operand = match Operand::matrix(values, rows, depth) {
            Ok(operand) if !values.is_empty() => operand,
            _ => return undefined,
        };
        let error = quantization_error(&operand, &numerics, random);
        // Errors are over the finite elements, of which there may be none; shares are over all.
        let finite = |x: f64| (error.count > 0 && x.is_finite()).then_some(x);
        Self {
            sqnr_db: error.sqnr_db.and_then(finite),
            mse: finite(error.mse),
            bias: finite(error.bias),
            underflow: Some(error.underflow),
            saturation: Some(error.saturation),
            ..undefined
        }
    }
}

impl Inspection {
    fn tables(&self) -> String {
        if self.tensors.is_empty() {
            return "No tensor of floats.\n".to_owned();
        }
        format!(
            "{}\nSQNR in dB under each numerics; ↓ share of elements that become zero, ↑ share that saturates.\n\n{}",
            self.statistics(),
            self.errors()
        )
    }

    fn statistics(&self) -> String {
        let headings = [
            "tensor",
            "shape",
            "zeros",
            "non-finite",
            "amax",
            "min non-zero",
            "mean",
            "std",
            "skewness",
            "kurtosis",
            "Student-t ν",
        ];
        let rows = self.tensors.iter().map(|tensor| {
            vec![
                printable(&tensor.name),
                shape_text(&tensor.shape),
                tensor.zeros.to_string(),
                tensor.non_finite.to_string(),
                rounded(tensor.amax),
                rounded(tensor.min_nonzero),
                rounded(tensor.mean),
                rounded(tensor.variance.map(f64::sqrt)),
                rounded(tensor.skewness),
                rounded(tensor.kurtosis),
                rounded(tensor.student_t.nu),
            ]
        });
        table(&headings, 2, rows.collect())
    }

    fn errors(&self) -> String {
        let tried = self.tensors.first().map_or(&[][..], |t| &t.numerics);
        let names: Vec<String> = tried.iter().map(|n| n.numerics.to_string()).collect();
        let headings: Vec<&str> = std::iter::once("tensor")
            .chain(names.iter().map(String::as_str))
            .collect();
        let rows = self.tensors.iter().map(|tensor| {
            std::iter::once(printable(&tensor.name))
                .chain(tensor.numerics.iter().map(NumericsReport::cell))
                .collect()
        });
        table(&headings, 1, rows.collect())
    }
}

impl NumericsReport {
    fn cell(&self) -> String {
        let mut cell = match (self.sqnr_db, self.mse) {
            (Some(sqnr), _) => format!("{sqnr:.1}"),
            (None, Some(0.0)) => "exact".to_owned(),
            _ => "–".to_owned(),
        };
        for (arrow, share) in [("↓", self.underflow), ("↑", self.saturation)] {
            if let Some(share) = share.filter(|&share| share > 0.0) {
                let percent = 100.0 * share;
                cell += &match percent {
                    p if p < 0.1 => format!(" {arrow}<0.1%"),
                    p => format!(" {arrow}{p:.1}%"),
                };
            }
        }
        cell
    }
}

fn shape_text(shape: &[usize]) -> String {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", axes.join(", "))
}
