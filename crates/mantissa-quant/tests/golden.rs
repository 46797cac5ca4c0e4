//! Blocks under the OCP MX rule equal those of an independent implementation, see `golden/generate.py`.

use mantissa_formats::{RandomBits, codec};
use mantissa_quant::{Numerics, quantize_rows};

/// Checks a table and returns how many blocks it has.
fn check(table: &str) -> usize {
    let hex = |word: &str| u32::from_str_radix(word, 16).unwrap();
    let words = |field: &str| field.split(' ').map(hex).collect::<Vec<u32>>();
    let mut blocks = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let name = fields[0]
            .replace('_', "-")
            .replace("fp8-e4m3", "fp8")
            .replace("fp6-e2m3", "fp6");
        let numerics: Numerics = name.parse().unwrap();
        let data: Vec<f32> = words(fields[1]).into_iter().map(f32::from_bits).collect();
        let stored = quantize_rows(&data, 32, &numerics, RandomBits::NONE);
        let codes: Vec<u32> = stored.codes.into_iter().map(u32::from).collect();
        assert_eq!(codes, words(fields[3]), "{line}");
        if data.iter().any(|x| *x != 0.0) {
            // Integer codes are whole numbers here and in steps of 1/64 in the specification.
            let unit = if numerics.format.is_integer() {
                64.0
            } else {
                1.0
            };
            let scale = codec::decode(mantissa_formats::Format::E8M0, hex(fields[2]));
            assert_eq!(stored.scales, [scale / unit], "{line}");
        }
        blocks += 1;
    }
    blocks
}

#[test]
fn mx_blocks_equal_the_oracle() {
    assert_eq!(check(include_str!("../golden/mx_blocks.csv")), 54);
}

/// A larger table of the same form in the folder that `MANTISSA_VECTORS` names, if it is set.
#[test]
fn further_mx_blocks_equal_their_oracle() {
    let Some(folder) = std::env::var_os("MANTISSA_VECTORS") else {
        return;
    };
    let path = std::path::Path::new(&folder).join("mx_blocks.csv");
    let table = std::fs::read_to_string(&path).unwrap();
    println!("{} blocks of {}", check(&table), path.display());
}
