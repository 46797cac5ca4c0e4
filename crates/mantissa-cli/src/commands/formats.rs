//! `mantissa formats`: every constant of every format, and the values of one.

use mantissa::optimizer::StateFormat;
use mantissa::plan::autocast::AUTOCAST;
use mantissa_formats::{Format, Overflow, Rounding, Specials, decode, encode};
use serde::Serialize;

use crate::error::Error;
use crate::terminal::{exact, print, print_json, table};

/// Arguments of `mantissa formats`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mantissa formats                 the constants of all formats\n  \
                  mantissa formats e2m1            its sixteen codes\n  \
                  mantissa formats --policy        which operations run in a low one\n  \
                  mantissa formats --states        what `mantissa train --states` takes\n  \
                  mantissa formats e6m9 --json     any IEEE-like format with 2 to 8 exponent and up to 23 mantissa bits"
)]
pub struct Args {
    /// A format: one of the list, an alias such as e4m3fn, or any eXmY or intN
    name: Option<String>,
    /// Tell which operations an autocast runs in low precision, which in f32, and which in their widest input
    #[arg(long, conflicts_with = "name")]
    policy: bool,
    /// List the formats of optimizer states
    #[arg(long, conflicts_with_all = ["name", "policy"])]
    states: bool,
    /// Write JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Formats of at most this width have all their codes listed; wider ones some landmarks.
const LISTED_BITS: u32 = 8;

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    if args.policy {
        return policy(args.json);
    }
    if args.states {
        return states(args.json);
    }
    let Some(name) = args.name else {
        let all: Vec<_> = Format::NAMED
            .iter()
            .map(|(_, format)| Constants::of(*format))
            .collect();
        return if args.json {
            print_json(&serde_json::json!({ "formats": all }), true)
        } else {
            print(&constants_table(&all))
        };
    };
    let format: Format = name.parse()?;
    let (constants, values) = (Constants::of(format), Value::of(format));
    if args.json {
        let described = Described { constants, values };
        return print_json(&described, true);
    }
    print(&format!(
        "{}\n{}",
        constants_table(&[constants]),
        value_table(&values, format)
    ))
}

fn policy(as_json: bool) -> Result<(), Error> {
    if as_json {
        return print_json(&serde_json::json!({ "policy": AUTOCAST }), true);
    }
    let rows = AUTOCAST.iter().map(|rule| {
        let [ours, torch] =
            [rule.precision, rule.torch].map(|precision| precision.name().to_owned());
        vec![
            rule.operation.to_owned(),
            ours,
            torch,
            rule.part_of.to_owned(),
        ]
    });
    print(&format!(
        "{}\nSums are in f32 always. What is low follows the recipe's or plan's numerics of its site, f32 included.\n",
        table(
            &["operation", "autocast", "torch.amp", "part of"],
            4,
            rows.collect()
        )
    ))
}

/// A published format of optimizer states.
#[derive(Serialize)]
struct StateLine {
    format: StateFormat,
    bytes_per_element: f64,
    description: &'static str,
}

fn states(as_json: bool) -> Result<(), Error> {
    const ELEMENTS: usize = 1 << 20;
    let mut lines = Vec::new();
    for (format, description) in StateFormat::PUBLISHED {
        let format: StateFormat = format.parse()?;
        lines.push(StateLine {
            bytes_per_element: format.bytes(ELEMENTS) as f64 / ELEMENTS as f64,
            format,
            description,
        });
    }
    if as_json {
        return print_json(&serde_json::json!({ "states": lines }), true);
    }
    let rows = lines.into_iter().map(|line| {
        vec![
            line.format.to_string(),
            line.description.to_owned(),
            format!("{:.3}", line.bytes_per_element),
        ]
    });
    print(&format!(
        "{}\nOne format is for both of an optimizer's moments; FIRST,SECOND gives each its own. Blocks have any power of two \
         from 16 to 1024 elements; all but the dynamic maps round stochastically with /stochastic at the end.\n",
        table(&["states", "what they are", "bytes"], 2, rows.collect())
    ))
}

#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    constants: Constants,
    values: Vec<Value>,
}

/// Everything there is to know about a format. Numbers are f64, which holds every f32 exactly.
#[derive(Serialize)]
struct Constants {
    name: String,
    bits: u32,
    /// `null` for integers.
    exponent_bits: Option<u8>,
    mantissa_bits: Option<u8>,
    bias: Option<i16>,
    max_finite: f64,
    min_normal: f64,
    min_subnormal: f64,
    epsilon: f64,
    /// The smallest magnitude that no longer rounds to `max_finite`; `null` where no f32 is that large.
    overflow_threshold: Option<f64>,
    infinity: bool,
    negative_zero: bool,
    /// Ranges of codes, first and last.
    nan_codes: Vec<(u32, u32)>,
}

impl Constants {
    fn of(format: Format) -> Self {
        let (exponent_bits, mantissa_bits, bias) = match format {
            Format::Float {
                exponent_bits,
                mantissa_bits,
                bias,
                ..
            } => (Some(exponent_bits), Some(mantissa_bits), Some(bias)),
            Format::PowerOfTwo => (Some(8), Some(0), Some(127)),
            _ => (None, None, None),
        };
        let threshold = format.overflow_threshold();
        Self {
            name: format.to_string(),
            bits: format.bits(),
            exponent_bits,
            mantissa_bits,
            bias,
            max_finite: format.max_finite().into(),
            min_normal: format.min_normal().into(),
            min_subnormal: format.min_subnormal().into(),
            epsilon: format.epsilon().into(),
            overflow_threshold: threshold.is_finite().then_some(threshold.into()),
            infinity: format.has_infinity(),
            negative_zero: format.has_negative_zero(),
            nan_codes: nan_codes(format),
        }
    }
}

/// The codes that are NaN, as ranges: the positive ones, then the negative ones.
fn nan_codes(format: Format) -> Vec<(u32, u32)> {
    match format {
        Format::Float {
            exponent_bits,
            mantissa_bits,
            specials,
            ..
        } => {
            let sign = 1 << (exponent_bits + mantissa_bits);
            let top = sign - 1;
            let first = match specials {
                Specials::Ieee => top - (1 << mantissa_bits) + 2,
                Specials::Nan => top,
                Specials::NanAtNegativeZero => return vec![(sign, sign)],
                Specials::None => return Vec::new(),
            };
            vec![(first, top), (sign | first, sign | top)]
        }
        Format::PowerOfTwo => vec![(0xff, 0xff)],
        _ => Vec::new(),
    }
}

fn hex(code: u32, bits: u32) -> String {
    let digits = bits.div_ceil(4) as usize;
    format!("{code:0digits$x}")
}

fn constants_table(all: &[Constants]) -> String {
    let headings = [
        "format",
        "bits",
        "exponent",
        "mantissa",
        "bias",
        "max",
        "min normal",
        "min subnormal",
        "epsilon",
        "overflows from",
        "inf",
        "-0",
        "NaN codes",
    ];
    let optional = |number: Option<String>| number.unwrap_or_else(|| "–".to_owned());
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    // Every constant came from an f32, which is what it prints as.
    let short = |x: f64| exact(x as f32);
    // These three are powers of two in every format.
    let power = |x: f64| match x {
        1.0 => "1".to_owned(),
        _ => format!("2^{}", x.log2()),
    };
    let rows = all.iter().map(|c| {
        let nan = c.nan_codes.iter().map(|&(first, last)| {
            if first == last {
                hex(first, c.bits)
            } else {
                format!("{}-{}", hex(first, c.bits), hex(last, c.bits))
            }
        });
        let nan = nan.collect::<Vec<_>>().join(" ");
        vec![
            c.name.clone(),
            c.bits.to_string(),
            optional(c.exponent_bits.map(|n| n.to_string())),
            optional(c.mantissa_bits.map(|n| n.to_string())),
            optional(c.bias.map(|n| n.to_string())),
            short(c.max_finite),
            power(c.min_normal),
            power(c.min_subnormal),
            power(c.epsilon),
            optional(c.overflow_threshold.map(short)),
            yes(c.infinity),
            yes(c.negative_zero),
            if nan.is_empty() {
                "none".to_owned()
            } else {
                nan
            },
        ]
    });
    table(&headings, 1, rows.collect())
}

/// One code and what it stands for.
#[derive(Serialize)]
struct Value {
    code: u32,
    /// Sign, exponent and mantissa apart.
    fields: String,
    /// `null` for infinity and NaN.
    value: Option<f64>,
    class: &'static str,
    #[serde(skip)]
    text: String,
}

impl Value {
    /// All values of a narrow format, landmarks of a wide one.
    fn of(format: Format) -> Vec<Self> {
        if format.bits() <= LISTED_BITS {
            return (0..1 << format.bits())
                .map(|code| Self::at(format, code))
                .collect();
        }
        let largest_subnormal = format.min_normal() - format.min_subnormal();
        let landmarks = [
            0.0,
            format.min_subnormal(),
            largest_subnormal,
            format.min_normal(),
            1.0 - format.epsilon() / 2.0,
            1.0,
            1.0 + format.epsilon(),
            format.max_finite(),
            f32::INFINITY,
            f32::NAN,
            -format.max_finite(),
        ];
        let mut values: Vec<Self> = landmarks
            .map(|x| encode(format, x, Rounding::Nearest, Overflow::Special, 0))
            .map(|code| Self::at(format, code))
            .into();
        // Without subnormals or infinities two landmarks share a code.
        values.dedup_by_key(|value| value.code);
        values
    }

    fn at(format: Format, code: u32) -> Self {
        let value = decode(format, code);
        let magnitude = value.abs();
        let class = if value.is_nan() {
            "nan"
        } else if magnitude.is_infinite() {
            "infinity"
        } else if magnitude == 0.0 {
            "zero"
        } else if magnitude < format.min_normal() {
            "subnormal"
        } else {
            "normal"
        };
        Self {
            code,
            fields: fields(format, code),
            value: value.is_finite().then_some(value.into()),
            class,
            text: exact(value),
        }
    }
}

fn fields(format: Format, code: u32) -> String {
    let bits = format!("{code:0width$b}", width = format.bits() as usize);
    match format {
        Format::Float { exponent_bits, .. } => {
            let (sign, rest) = bits.split_at(1);
            let (exponent, mantissa) = rest.split_at(exponent_bits.into());
            format!("{sign} {exponent} {mantissa}")
                .trim_end()
                .to_owned()
        }
        _ => bits,
    }
}

fn value_table(values: &[Value], format: Format) -> String {
    let rows = values.iter().map(|value| {
        vec![
            hex(value.code, format.bits()),
            value.fields.clone(),
            value.text.clone(),
            value.class.to_owned(),
        ]
    });
    let list = table(&["code", "bits", "value", "class"], 4, rows.collect());
    if format.bits() <= LISTED_BITS {
        list
    } else {
        list + "Landmarks only: formats wider than 8 bits are not listed in full.\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_ranges_are_the_codes_that_decode_to_nan() {
        let narrow = Format::NAMED.iter().map(|(_, format)| *format);
        let wide = ["e6m9", "e8m1", "e2m0", "e5m0"].map(|name| name.parse().unwrap());
        for format in narrow.chain(wide).filter(|format| format.bits() <= 16) {
            let ranges = nan_codes(format);
            for code in 0..1u32 << format.bits() {
                let listed = ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&code));
                assert_eq!(listed, decode(format, code).is_nan(), "{format} {code:#x}");
            }
        }
    }

    #[test]
    fn fields_are_apart() {
        assert_eq!(fields(Format::E4M3, 0x7e), "0 1111 110");
        assert_eq!(fields(Format::INT4, 0x9), "1001");
        assert_eq!(fields(Format::E8M0, 0x7f), "01111111");
        let landmarks = Value::of(Format::FP16);
        let one = landmarks.iter().find(|v| v.value == Some(1.0));
        assert_eq!(one.map(|v| v.code), Some(0x3c00));
    }
}
