//! The functions with a scale equal a division, the scalar codec and a multiplication bit for bit.

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, decode, encode};

#[test]
fn scaled_functions_are_a_division_the_codec_and_a_multiplication() {
    let random = RandomBits::new(3, 9);
    let source: Vec<f32> = (0..1u32 << 12)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9) ^ i << 5))
        .chain([
            0.0,
            -0.0,
            1.0,
            -1.5,
            f32::NAN,
            f32::INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
        ])
        .collect();
    for (name, format) in Format::NAMED {
        for (_, rounding) in Rounding::NAMED {
            for (_, overflow) in Overflow::NAMED {
                for scale in [1.0, 0.37, 3e-20, 2e25, f32::MIN_POSITIVE] {
                    let rounder = Rounder::new(*format, *rounding, *overflow);
                    let n = source.len();
                    let (mut values, mut back) = (vec![0.0; n], vec![0.0; n]);
                    rounder.round_scaled(random, 5, &source, scale, &mut values);
                    rounder.round_scaled_back(random, 5, &source, scale, &mut back);
                    let (mut codes, mut decoded) = (vec![0; n], vec![0.0; n]);
                    if format.bits() <= 8 {
                        rounder.encode_scaled_u8(random, 5, &source, scale, &mut codes);
                        rounder.decode_scaled_u8(&codes, scale, &mut decoded);
                    }
                    for i in 0..n {
                        let bits = match rounding {
                            Rounding::Stochastic => random.at(5 + i as u64),
                            _ => 0,
                        };
                        let quotient = source[i] / scale;
                        let code = encode(*format, quotient, *rounding, *overflow, bits);
                        let value = decode(*format, code);
                        let what = format!(
                            "{name} {rounding} {overflow} {:e} / {scale:e}, bits {:x}",
                            source[i],
                            source[i].to_bits()
                        );
                        let product = (value * scale).to_bits();
                        assert_eq!(values[i].to_bits(), value.to_bits(), "{what}");
                        assert_eq!(back[i].to_bits(), product, "{what}");
                        if format.bits() <= 8 {
                            assert_eq!(u32::from(codes[i]), code, "{what}");
                            assert_eq!(decoded[i].to_bits(), product, "{what}");
                        }
                    }
                }
            }
        }
    }
}
