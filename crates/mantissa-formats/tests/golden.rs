//! The codec against tables made by ml_dtypes and gfloat (`golden/generate.py`).

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, decode, encode};

const DECODE: &str = include_str!("../golden/decode.csv");

macro_rules! tables {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../golden/encode_", $name, ".csv")))),*]
    };
}

const ENCODE: [(&str, &str); 21] = tables![
    "tf32",
    "bf16",
    "fp16",
    "e5m2",
    "e4m3",
    "e4m3-ieee",
    "e3m4",
    "e4m3fnuz",
    "e5m2fnuz",
    "e4m3b11fnuz",
    "e8m0",
    "e2m3",
    "e3m2",
    "e2m1",
    "int8",
    "int4",
    "e6m9",
    "e2m2",
    "e5m0",
    "e8m3",
    "e7m20",
];

/// The columns after the input and its random word.
const COLUMNS: [(Rounding, Overflow); 5] = [
    (Rounding::Nearest, Overflow::Special),
    (Rounding::Nearest, Overflow::Saturate),
    (Rounding::TowardZero, Overflow::Special),
    (Rounding::NearestAway, Overflow::Special),
    (Rounding::Stochastic, Overflow::Special),
];

fn hex(cell: &str) -> u32 {
    u32::from_str_radix(cell, 16).expect("tables hold hexadecimal numbers")
}

fn same_code(format: Format, ours: u32, theirs: u32) -> bool {
    ours == theirs || (decode(format, ours).is_nan() && decode(format, theirs).is_nan())
}

#[test]
fn every_narrow_code_decodes_to_its_value() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for row in DECODE.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let format: Format = cells[0].parse().unwrap();
        let (code, expected) = (hex(cells[1]), f32::from_bits(hex(cells[2])));
        let value = decode(format, code);
        assert!(
            value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()),
            "{row}: {value}"
        );
        *seen.entry(cells[0]).or_default() += 1;
    }
    for (name, format) in Format::NAMED
        .iter()
        .filter(|(_, format)| format.bits() <= 8)
    {
        assert_eq!(seen[name], 1 << format.bits(), "{name}");
    }
}

#[test]
fn every_input_encodes_to_its_code() {
    for (name, table) in ENCODE {
        let format: Format = name.parse().unwrap();
        for row in table.lines().skip(1) {
            let cells: Vec<u32> = row.split(',').map(hex).collect();
            let x = f32::from_bits(cells[0]);
            for (column, expected) in cells[2..].iter().enumerate() {
                let (rounding, overflow) = COLUMNS[column];
                let code = encode(format, x, rounding, overflow, cells[1]);
                assert!(
                    same_code(format, code, *expected),
                    "{name} {rounding} {overflow}: {x:e} ({row}) became {code:x}, not {expected:x}"
                );
            }
        }
    }
}

#[test]
fn slices_agree_with_the_tables_too() {
    for (name, table) in ENCODE {
        let format: Format = name.parse().unwrap();
        let rows: Vec<Vec<u32>> = table
            .lines()
            .skip(1)
            .map(|row| row.split(',').map(hex).collect())
            .collect();
        let source: Vec<f32> = rows.iter().map(|row| f32::from_bits(row[0])).collect();
        // The last column reads the table's random words, which no stream yields.
        for (column, (rounding, overflow)) in COLUMNS[..4].iter().enumerate() {
            if rows[0].len() <= 2 + column {
                continue;
            }
            let mut rounded = source.clone();
            Rounder::new(format, *rounding, *overflow).round(RandomBits::NONE, 0, &mut rounded);
            for (row, rounded) in rows.iter().zip(rounded) {
                let expected = decode(format, row[2 + column]);
                let same = rounded.to_bits() == expected.to_bits()
                    || (rounded.is_nan() && expected.is_nan());
                assert!(
                    same,
                    "{name} {rounding} {overflow}: {:x} became {rounded}, not {expected}",
                    row[0]
                );
            }
        }
    }
}

/// A folder of tables made elsewhere, named by the environment variable `MANTISSA_VECTORS`: `decode_<format>.csv` with
/// `code,f32_bits` and `encode_<format>.csv` with `f32_bits,code_rne,code_rne_saturating`.
#[test]
fn external_vectors() {
    let Some(folder) = std::env::var_os("MANTISSA_VECTORS") else {
        println!("skipped: MANTISSA_VECTORS names no folder");
        return;
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some((kind, name)) = file
            .split_once('_')
            .filter(|(kind, _)| ["decode", "encode"].contains(kind))
        else {
            continue;
        };
        // These tables call the IEEE-like format by the name that OCP's has here.
        let format: Format = if name == "e4m3" {
            Format::E4M3_IEEE
        } else {
            name.parse().unwrap()
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let mut checks = 0;
        for row in text.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            if kind == "decode" {
                let (value, expected) =
                    (decode(format, hex(cells[0])), f32::from_bits(hex(cells[1])));
                assert!(
                    value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()),
                    "{file} {row}: {value}"
                );
                checks += 1;
                continue;
            }
            for (cell, overflow) in cells[1..]
                .iter()
                .zip([Overflow::Special, Overflow::Saturate])
            {
                if cell.is_empty() {
                    continue;
                }
                let code = encode(
                    format,
                    f32::from_bits(hex(cells[0])),
                    Rounding::Nearest,
                    overflow,
                    0,
                );
                assert!(
                    same_code(format, code, hex(cell)),
                    "{file} {row} {overflow}: {code:x}"
                );
                checks += 1;
            }
        }
        println!("{file}: {checks} checks passed");
    }
}
