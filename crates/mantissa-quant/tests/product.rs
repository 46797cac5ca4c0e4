//! Products equal the plain definition, exactly for integers and within f32 rounding else.

mod reference;

use mantissa_formats::RandomBits;
use mantissa_quant::{
    Amax, Factor, Numerics, Operand, ProductReport, Sharing, encode, encode_into, product,
};
use reference::{assert_same, sample};

const LEFT: RandomBits = RandomBits::new(5, 1);
const RIGHT: RandomBits = RandomBits::new(5, 2);

fn numerics(text: &str) -> Numerics {
    text.parse().unwrap()
}

fn multiply(lhs: &Operand, left: &str, rhs: &Operand, right: &str) -> (Vec<f32>, ProductReport) {
    let batch = if lhs.batch() == 1 {
        rhs.batch()
    } else {
        lhs.batch()
    };
    let mut out = vec![f32::NAN; batch * lhs.outer * rhs.outer];
    let report = product(
        Factor::new(*lhs, numerics(left), LEFT),
        Factor::new(*rhs, numerics(right), RIGHT),
        None,
        &mut out,
    );
    (out, report)
}

/// Checks every element against the product of the dequantized operands in f64.
fn check(lhs: &Operand, left: &str, rhs: &Operand, right: &str, what: &str) {
    let (out, _) = multiply(lhs, left, rhs, right);
    let dequantized = |operand, numerics: &Numerics, random| {
        let reference = reference::quantize(operand, numerics, random);
        let pairs = reference.values.iter().zip(&reference.scales);
        pairs
            .map(|(x, scale)| f64::from(*x) * f64::from(*scale))
            .collect::<Vec<f64>>()
    };
    let l = dequantized(lhs, &numerics(left), LEFT);
    let r = dequantized(rhs, &numerics(right), RIGHT);
    let (m, n, k) = (lhs.outer, rhs.outer, lhs.depth);
    // One rounding a summand and sum, two for folded scales, two for scaling the result.
    let bound = (k as f64 + 5.0) * f64::from(f32::EPSILON) / 2.0 * 1.01;
    for (i, found) in out.iter().enumerate() {
        let (matrix, row, column) = (i / (m * n), i / n % m, i % n);
        let line = |batch, outer, which| {
            let matrix = if batch == 1 { 0 } else { matrix };
            (matrix * outer + which) * k
        };
        let (a, b) = (line(lhs.batch(), m, row), line(rhs.batch(), n, column));
        let pairs = l[a..a + k].iter().zip(&r[b..b + k]);
        let (sum, magnitude) =
            pairs.fold((0.0, 0.0), |(s, a), (x, y)| (s + x * y, a + (x * y).abs()));
        let error = (f64::from(*found) - sum).abs();
        assert!(
            error <= bound * magnitude + 1e-44,
            "{what} [{matrix}, {row}, {column}]: {found:e}, not {sum:e}"
        );
    }
}

const PAIRS: [(&str, &str); 22] = [
    ("fp32", "fp32"),
    ("bf16", "bf16"),
    ("fp16", "fp32"),
    ("bf16/tensor", "bf16/channel"),
    ("int8", "int8"),
    ("int8/channel", "int8/channel"),
    ("int8/channel", "int8"),
    ("int8/unscaled", "int4/channel"),
    ("int8/block32", "int8/channel"),
    ("int8", "e4m3"),
    ("e4m3", "e4m3"),
    ("e5m2", "e4m3"),
    ("e5m2/stochastic", "e4m3/channel"),
    ("e4m3/channel/stochastic", "int8/channel/stochastic"),
    ("e5m2/unscaled", "e5m2/unscaled"),
    ("mxfp8", "mxfp8"),
    ("mxint8", "mxint8"),
    ("nvfp4", "nvfp4"),
    ("mxfp4", "bf16"),
    ("e4m3/tile16x16", "e4m3/tile3x5"),
    ("fp32", "e4m3/channel"),
    ("fp32/tensor", "fp16/tensor/pow2"),
];

#[test]
fn products_are_those_of_the_dequantized_operands() {
    let (data, more) = (sample(60_000, 1), sample(60_000, 2));
    for [m, n, k] in [
        [1, 1, 1],
        [1, 9, 70],
        [9, 1, 70],
        [5, 6, 2],
        [7, 5, 33],
        [64, 48, 96],
        [33, 65, 130],
        [20, 17, 1100],
    ] {
        for (left, right) in PAIRS {
            let what = format!("{left} x {right}, {m}x{n}x{k}");
            let lhs = Operand::matrix(&data, m, k).unwrap();
            let rhs = Operand::matrix(&more, n, k).unwrap();
            check(&lhs, left, &rhs, right, &what);
            let rhs = Operand::matrix(&more, k, n).unwrap().transposed();
            check(
                &lhs,
                left,
                &rhs,
                right,
                &format!("{what}, right transposed"),
            );
            let lhs = Operand::matrix(&data, k, m).unwrap().transposed();
            check(&lhs, left, &rhs, right, &format!("{what}, both transposed"));
        }
    }
}

#[test]
fn batches_are_products_of_their_matrices() {
    let (data, more) = (sample(60_000, 3), sample(60_000, 4));
    let [m, n, k] = [17, 12, 40];
    // Heads side by side in a row, as in attention.
    let heads = [0, 40, 80, 17 * 120, 17 * 120 + 40];
    let lhs = Operand::new(&data, &heads, [m, k], [120, 1]).unwrap();
    let columns = [900, 0, 2000, 33, 5000];
    let rhs = Operand::new(&more, &columns, [n, k], [1, 64]).unwrap();
    let one = Operand::new(&more, &columns[..1], [n, k], [1, 64]).unwrap();
    for (left, right) in PAIRS {
        check(&lhs, left, &rhs, right, &format!("batch {left} x {right}"));
        check(
            &lhs,
            left,
            &one,
            right,
            &format!("one right {left} x {right}"),
        );
        check(
            &one,
            left,
            &lhs,
            right,
            &format!("one left {left} x {right}"),
        );
    }
}

/// The exact integers, rounded once, times the product of the scales.
fn check_integers(lhs: &Operand, left: &str, rhs: &Operand, right: &str) {
    let (out, _) = multiply(lhs, left, rhs, right);
    let l = reference::quantize(lhs, &numerics(left), LEFT);
    let r = reference::quantize(rhs, &numerics(right), RIGHT);
    let k = lhs.depth;
    let expected: Vec<f32> = (0..out.len())
        .map(|i| {
            let (a, b) = (i / rhs.outer * k, i % rhs.outer * k);
            let pairs = l.values[a..a + k].iter().zip(&r.values[b..b + k]);
            let sum: i64 = pairs.map(|(x, y)| *x as i64 * *y as i64).sum();
            sum as f32 * (l.scales[a] * r.scales[b])
        })
        .collect();
    assert_same(&out, &expected, &format!("{left} x {right}, depth {k}"));
}

#[test]
fn integer_products_are_exact() {
    for (depth, extremes) in [
        (700, false),
        (1040, true),
        (1041, true),
        (5000, false),
        (5000, true),
        (20_000, true),
    ] {
        let (m, n) = (13, 9);
        let mut data = sample(m * depth, 5);
        let mut more = sample(n * depth, 6);
        if extremes {
            // Every code is -127 or 127, and the last row and column only 127: sums far beyond 2^24.
            data.iter_mut()
                .chain(&mut more)
                .for_each(|x| *x = 1f32.copysign(*x));
            data[(m - 1) * depth..].fill(1.0);
            more[(n - 1) * depth..].fill(1.0);
        }
        let lhs = Operand::matrix(&data, m, depth).unwrap();
        let rhs = Operand::matrix(&more, n, depth).unwrap();
        for (left, right) in [
            ("int8", "int8"),
            ("int8/channel", "int8/channel"),
            ("int8/stochastic", "int4/channel"),
            ("int8/channel/pow2", "int5"),
        ] {
            check_integers(&lhs, left, &rhs, right);
        }
        let columns = Operand::matrix(&more, depth, n).unwrap().transposed();
        check_integers(&lhs, "int8", &columns, "int8/channel");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let on = |threads: usize, run: &(dyn Fn() -> Vec<f32> + Sync)| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(run)
    };
    let (data, more) = (sample(1_300_000, 7), sample(1_300_000, 8));
    for [batch, m, n, k] in [
        [1, 257, 311, 129],
        [1, 1, 700, 900],
        [1, 700, 1, 900],
        [1, 65, 67, 2100],
        [1, 1000, 130, 64],
        [3, 129, 70, 65],
        [13, 33, 31, 30],
    ] {
        let offsets: Vec<usize> = (0..batch).map(|i| i * 1000).collect();
        let lhs = Operand::new(&data, &offsets, [m, k], [k, 1]).unwrap();
        let rows = Operand::new(&more, &offsets, [n, k], [k, 1]).unwrap();
        let columns = Operand::new(&more, &offsets, [n, k], [1, n]).unwrap();
        for rhs in [rows, columns] {
            for (left, right) in [
                ("fp32", "fp32"),
                ("e4m3", "e5m2/stochastic"),
                ("int8/channel", "int8"),
                ("mxfp8", "bf16"),
            ] {
                let run = || multiply(&lhs, left, &rhs, right).0;
                let one = on(1, &run);
                for threads in [2, 3, 7] {
                    let what = format!("{batch}x{m}x{n}x{k} {left} x {right} on {threads} threads");
                    assert_same(&on(threads, &run), &one, &what);
                }
            }
        }
    }
}

#[test]
fn deep_integer_products_do_not_depend_on_threads_either() {
    // Codes of full magnitude, so that the sums are made of pieces.
    let sign = |x: f32| 1f32.copysign(x);
    let data: Vec<f32> = sample(150 * 3000, 9).into_iter().map(sign).collect();
    let lhs = Operand::matrix(&data, 150, 3000).unwrap();
    let rhs = Operand::matrix(&data, 141, 3000).unwrap();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| multiply(&lhs, "int8", &rhs, "int8/channel").0)
    };
    let one = on(1);
    assert_same(&on(2), &one, "two threads");
    assert_same(&on(3), &one, "three threads");
}

#[test]
fn what_is_not_finite_reaches_all_that_depends_on_it() {
    let [m, n, k] = [5, 4, 70];
    for (left, right) in PAIRS {
        let (mut data, more) = (sample(m * k, 10), sample(n * k, 11));
        data[2 * k + 3] = f32::NAN;
        let lhs = Operand::matrix(&data, m, k).unwrap();
        let rhs = Operand::matrix(&more, n, k).unwrap();
        let (out, report) = multiply(&lhs, left, &rhs, right);
        for (i, x) in out.iter().enumerate() {
            assert_eq!(x.is_nan(), i / n == 2, "{left} x {right}: {x} at {i}");
        }
        assert_eq!(report.lhs.non_finite, u64::from(left != "fp32"), "{left}");
        assert_eq!(report.rhs.non_finite, 0);
        let (out, _) = multiply(&rhs, right, &lhs, left);
        assert!(
            out.iter()
                .enumerate()
                .all(|(i, x)| x.is_nan() == (i % m == 2)),
            "{right} x {left}"
        );
    }
    for depth in [70, 3000] {
        let mut data = vec![1.0; depth];
        data[1] = f32::INFINITY;
        let lhs = Operand::matrix(&data, 1, depth).unwrap();
        let ones = vec![1.0; depth];
        let rhs = Operand::matrix(&ones, 1, depth).unwrap();
        let of = |left: &str, right: &str| multiply(&lhs, left, &rhs, right).0[0];
        assert_eq!(of("e5m2/unscaled", "e5m2/unscaled"), f32::INFINITY);
        assert!(of("e4m3/unscaled", "e4m3/unscaled").is_nan());
        // Ones have a scale of 1/448, which is rounded.
        let saturated = of("e4m3", "e4m3") / (448.0 + depth as f32 - 1.0);
        assert!((saturated - 1.0).abs() < 1e-6);
        assert_eq!(
            of("int8/channel", "int8/unscaled"),
            127.0 + depth as f32 - 1.0
        );
    }
}

#[test]
fn scales_at_the_ends_of_the_range_do_not_lose_the_result() {
    let k = 8;
    for (l, r) in [
        (1e-33, 1e-10),
        (1e-30, 1e30),
        (1e-33, 1e38),
        (1e38, 1e-33),
        (f32::MAX, 1e-3),
        (1e-33, 1e-33),
    ] {
        let (data, more) = (vec![l; 3 * k], vec![r; 2 * k]);
        let lhs = Operand::matrix(&data, 3, k).unwrap();
        let rhs = Operand::matrix(&more, 2, k).unwrap();
        let exact = f64::from(l) * f64::from(r) * k as f64;
        for (left, right) in [
            ("int8", "int8"),
            ("e4m3/channel", "e4m3"),
            ("bf16/tensor", "bf16/tensor"),
            ("e5m2", "e5m2/channel"),
            ("fp16/tensor", "fp16/channel"),
        ] {
            for x in multiply(&lhs, left, &rhs, right).0 {
                let error = (f64::from(x) - exact).abs();
                assert!(
                    error <= 0.07 * exact + 2e-45,
                    "{left} x {right} of {l:e} and {r:e}: {x:e}"
                );
            }
        }
    }
}

#[test]
fn empty_products_are_zero_or_nothing() {
    for (left, right) in PAIRS {
        let empty = Operand::matrix(&[], 3, 0).unwrap();
        assert_eq!(multiply(&empty, left, &empty, right).0, [0.0; 9]);
        let none = Operand::matrix(&[], 0, 4).unwrap();
        let data = sample(8, 1);
        let some = Operand::matrix(&data, 2, 4).unwrap();
        assert!(multiply(&none, left, &some, right).0.is_empty());
        assert!(multiply(&some, left, &none, right).0.is_empty());
    }
}

#[test]
fn degenerate_groups_are_counted_on_their_side() {
    let (zeros, ones) = ([0.0; 8], [1.0; 8]);
    let lhs = Operand::matrix(&zeros, 2, 4).unwrap();
    let rhs = Operand::matrix(&ones, 2, 4).unwrap();
    let (out, report) = multiply(&lhs, "int8/channel", &rhs, "e4m3/channel");
    assert_eq!(out, [0.0; 4]);
    assert_eq!(
        (report.lhs.degenerate_groups, report.rhs.degenerate_groups),
        (2, 0)
    );
}

#[test]
#[should_panic(expected = "reaches beyond")]
fn a_view_built_wrongly_by_hand_panics() {
    let operand = Operand {
        data: &[0.0; 4],
        offsets: &[0],
        outer: 2,
        depth: 3,
        outer_stride: 3,
        depth_stride: 1,
    };
    multiply(&operand, "fp32", &operand, "fp32");
}

/// Formats of at most eight bits under one scale, with every special behaviour.
const ENCODED: [&str; 10] = [
    "int8",
    "int8/unscaled",
    "int4/stochastic",
    "e4m3",
    "e4m3/unscaled",
    "e5m2/stochastic",
    "e5m2/unscaled",
    "e2m1/tensor",
    "e3m2/unscaled",
    "e6m1/tensor/special",
];

#[test]
fn encoded_factors_give_the_bits_of_their_values() {
    let (data, more) = (sample(80_000, 20), sample(80_000, 21));
    for [batch, m, n, k] in [[1, 33, 40, 70], [3, 17, 12, 40], [2, 5, 300, 257]] {
        let offsets: Vec<usize> = (0..batch).map(|i| i * 777).collect();
        let lhs = Operand::new(&data, &offsets, [m, k], [k, 1]).unwrap();
        for rhs in [[k, 1], [1, n]] {
            let rhs = Operand::new(&more, &offsets, [n, k], rhs).unwrap();
            for (left, right) in ENCODED.into_iter().zip(ENCODED.into_iter().cycle().skip(3)) {
                let what = format!("{left} x {right}, {batch}x{m}x{n}x{k}");
                let (expected, report) = multiply(&lhs, left, &rhs, right);
                let left = encode(&lhs, &numerics(left), LEFT).unwrap();
                let right = encode(&rhs, &numerics(right), RIGHT).unwrap();
                let mut out = vec![f32::NAN; expected.len()];
                let found = product(left.factor(), right.factor(), None, &mut out);
                assert_same(&out, &expected, &what);
                assert_eq!(found, report, "{what}");
                let values = Factor::new(rhs, *right.numerics(), RIGHT);
                product(left.factor(), values, None, &mut out);
                assert_same(&out, &expected, &format!("{what}, left encoded"));
            }
        }
    }
}

#[test]
fn a_transposed_encoding_is_the_transposed_matrix() {
    let (data, more) = (sample(90 * 70, 22), sample(31 * 90, 23));
    let matrix = Operand::matrix(&data, 90, 70).unwrap();
    let other = Operand::matrix(&more, 31, 90).unwrap();
    for name in ["int8", "e4m3", "e5m2/unscaled", "int4"] {
        let encoded = encode(&matrix, &numerics(name), LEFT).unwrap();
        let (expected, _) = multiply(&other, name, &matrix.transposed(), name);
        let mut out = vec![f32::NAN; 31 * 70];
        let other = Factor::new(other, numerics(name), LEFT);
        product(other, encoded.transposed(), None, &mut out);
        assert_same(&out, &expected, name);
    }
}

#[test]
fn what_a_byte_cannot_say_is_not_encoded() {
    let mut data = sample(64, 24);
    let matrix = Operand::matrix(&data, 8, 8).unwrap();
    for name in ["int8/channel", "mxfp8", "bf16", "fp32", "e4m3/tile2x2"] {
        assert!(encode(&matrix, &numerics(name), LEFT).is_none(), "{name}");
    }
    data[13] = f32::NAN;
    let matrix = Operand::matrix(&data, 8, 8).unwrap();
    assert!(encode(&matrix, &numerics("int8"), LEFT).is_none());
    assert!(encode(&matrix, &numerics("int8/unscaled"), LEFT).is_none());
    let encoded = encode(&matrix, &numerics("e4m3"), LEFT).unwrap();
    assert_eq!(
        (encoded.report().non_finite, encoded.shape()),
        (1, [1, 8, 8])
    );
    let memory = encoded.into_codes();
    let (at, capacity) = (memory.as_ptr(), memory.capacity());
    let again = encode_into(&matrix, &numerics("e5m2"), Amax::Own, LEFT, memory).unwrap();
    assert_eq!((again.codes().as_ptr(), again.codes().len()), (at, 64));
    assert!(capacity >= 64);
}

#[test]
fn a_given_amax_takes_the_place_of_the_tensors_own() {
    let lhs = [1.0, -2.0, 4.0, 0.5];
    let identity = [1.0, 0.0, 0.0, 1.0];
    let [lhs, identity] = [&lhs, &identity].map(|data| Operand::matrix(data, 2, 2).unwrap());
    for (name, amax, expected, scale) in [
        // Twice the amax: codes of half the size, nothing beyond them.
        (
            "int8/tensor/delayed4",
            8.0,
            [1.0 / 8.0 * 127.0, -32.0, 64.0, 8.0],
            8.0 / 127.0,
        ),
        // Half of it: 4 saturates at 2.
        (
            "int8/tensor/delayed4",
            2.0,
            [64.0, -127.0, 127.0, 32.0],
            2.0 / 127.0,
        ),
        // A margin leaves room for it.
        (
            "int8/tensor/delayed4-margin1",
            2.0,
            [32.0, -64.0, 127.0, 16.0],
            4.0 / 127.0,
        ),
    ] {
        let numerics = numerics(name);
        let codes = expected.map(|x: f32| x.round_ties_even() as i8 as u8);
        let encoded = encode_into(&lhs, &numerics, Amax::Given(amax), LEFT, Vec::new()).unwrap();
        assert_eq!(
            (encoded.codes(), encoded.scale()),
            (&codes[..], scale),
            "{name} {amax}"
        );
        assert_eq!(encoded.report().amax, Some(4.0));
        let factor = Factor::new(lhs, numerics, LEFT).with_amax(Amax::Given(amax));
        let [mut of_values, mut of_codes] = [[0.0; 4]; 2];
        let found = product(factor, Factor::fp32(identity), None, &mut of_values);
        product(
            encoded.factor(),
            Factor::fp32(identity),
            None,
            &mut of_codes,
        );
        assert_eq!(
            (of_values, found.lhs.amax),
            (of_codes, Some(4.0)),
            "{name} {amax}"
        );
    }

    // Without one the tensor calibrates itself, and a margin counts there too.
    let scale = |name| encode(&lhs, &numerics(name), LEFT).unwrap().scale();
    assert_eq!(scale("int8/tensor/delayed4"), scale("int8/tensor"));
    assert_eq!(
        scale("int8/tensor/delayed4-margin2"),
        4.0 * scale("int8/tensor")
    );
}

/// What a product sees of an operand, `[outer, depth]`.
fn seen(operand: Operand, name: &str, amax: Amax) -> Vec<f32> {
    let depth = operand.depth;
    let mut identity = vec![0.0; depth * depth];
    identity
        .iter_mut()
        .step_by(depth + 1)
        .for_each(|x| *x = 1.0);
    let identity = Operand::matrix(&identity, depth, depth).unwrap();
    let factor = Factor::new(operand, numerics(name), LEFT).with_amax(amax);
    let mut out = vec![f32::NAN; operand.count()];
    product(factor, Factor::fp32(identity), None, &mut out);
    out
}

#[test]
fn parts_that_share_amaxes_are_quantized_as_the_whole() {
    const ROWS: usize = 12;
    const WIDTH: usize = 64;
    let data = sample(ROWS * WIDTH, 31);
    let whole = Operand::matrix(&data, ROWS, WIDTH).unwrap();
    let largest = |group: &dyn Fn(usize) -> bool| {
        let elements = data.iter().enumerate().filter(|(at, _)| group(*at));
        elements.fold(0f32, |most, (_, x)| most.max(x.abs()))
    };
    let of_tensor = largest(&|_| true);
    let of_columns: Vec<f32> = (0..WIDTH)
        .map(|column| largest(&|at| at % WIDTH == column))
        .collect();
    // Cut between rows, which are contracted or are not.
    for (name, contracted, groups) in [
        ("int8/tensor", false, true),
        ("e4m3/tensor", true, true),
        ("int8/channel", true, true),
        ("e4m3/channel", true, true),
        ("int8/channel", false, false),
        ("nvfp4", false, false),
        ("bf16", true, true),
    ] {
        let raise = |amaxes: &mut [f32]| {
            if let [amax] = amaxes {
                *amax = of_tensor;
            } else {
                amaxes.copy_from_slice(&of_columns);
            }
        };
        let shared = Amax::Shared(Sharing {
            groups,
            raise: &raise,
        });
        let all = |operand: Operand, amax| {
            let (out, depth) = match contracted {
                true => (seen(operand.transposed(), name, amax), operand.outer),
                false => (seen(operand, name, amax), operand.depth),
            };
            // Rows of the operand, whichever axis they are.
            let at = move |row: usize, column: usize| match contracted {
                true => out[column * depth + row],
                false => out[row * depth + column],
            };
            (0..operand.outer)
                .flat_map(|row| (0..WIDTH).map(move |column| (row, column)))
                .map(|(row, column)| at(row, column))
                .collect::<Vec<f32>>()
        };
        let expected = all(whole, Amax::Own);
        let mut by_parts = Vec::new();
        let mut alone = Vec::new();
        for rows in [0..5, 5..ROWS] {
            let part = &data[rows.start * WIDTH..rows.end * WIDTH];
            let part = Operand::matrix(part, rows.len(), WIDTH).unwrap();
            by_parts.extend(all(part, shared));
            alone.extend(all(part, Amax::Own));
        }
        assert_eq!(by_parts, expected, "{name}");
        let depends = !matches!((name, contracted), ("int8/channel", false) | ("bf16", _));
        assert_eq!(alone != expected, depends, "{name}");
    }
}

#[test]
fn a_bias_is_added_after_everything_else() {
    let (data, more, bias) = (sample(40 * 300, 25), sample(300 * 50, 26), sample(50, 27));
    let lhs = Operand::matrix(&data, 40, 300).unwrap();
    let rhs = Operand::matrix(&more, 50, 300).unwrap();
    let tiny: Vec<f32> = more.iter().map(|x| x * 1e-30).collect();
    let tiny = Operand::matrix(&tiny, 50, 300).unwrap();
    let small: Vec<f32> = data.iter().map(|x| x * 1e-30).collect();
    let small = Operand::matrix(&small, 40, 300).unwrap();
    for (left, right) in PAIRS {
        // The scales of the second pair are multiplied in f64.
        for (lhs, rhs) in [(&lhs, &rhs), (&small, &tiny)] {
            let (mut expected, _) = multiply(lhs, left, rhs, right);
            for row in expected.chunks_mut(50) {
                row.iter_mut().zip(&bias).for_each(|(x, b)| *x += b);
            }
            let mut out = vec![f32::NAN; 40 * 50];
            let lhs = Factor::new(*lhs, numerics(left), LEFT);
            let rhs = Factor::new(*rhs, numerics(right), RIGHT);
            product(lhs, rhs, Some(&bias), &mut out);
            assert_same(&out, &expected, &format!("{left} x {right}"));
        }
    }
    let empty = Operand::matrix(&[], 2, 0).unwrap();
    let mut out = [f32::NAN; 4];
    product(
        Factor::fp32(empty),
        Factor::fp32(empty),
        Some(&[1.0, 2.0]),
        &mut out,
    );
    assert_eq!(out, [1.0, 2.0, 1.0, 2.0]);
}

#[test]
fn sums_beyond_an_i32_are_exact() {
    let depth = 300_000;
    let (data, more) = (vec![1.0; 2 * depth], vec![-1.0; 3 * depth]);
    let lhs = Operand::matrix(&data, 2, depth).unwrap();
    let rhs = Operand::matrix(&more, 3, depth).unwrap();
    check_integers(&lhs, "int8", &rhs, "int8/channel");
}
