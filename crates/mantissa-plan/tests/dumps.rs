//! Profiles from tensors that another framework dumped, and dumps that cannot be read.

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding};
use mantissa_metrics::sample::student_t;
use mantissa_plan::{Pass, Policy, Profile, SiteKind, choose};
use safetensors::tensor::{Dtype, TensorView};

/// A tensor of a dump.
#[derive(Clone)]
struct Dumped {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn dumped(name: &str, shape: &[usize], values: &[f32]) -> Dumped {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    Dumped {
        name: name.to_string(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

fn file(tensors: &[Dumped]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (tensor.name.clone(), view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn draw(stream: u64, count: usize) -> Vec<f32> {
    student_t(5.0, RandomBits::new(1, stream), count)
}

/// A row-major matrix's transpose.
fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let at = |i: usize| values[i % rows * columns + i / rows];
    (0..rows * columns).map(at).collect()
}

const M: usize = 48;
const K: usize = 40;
const N: usize = 36;

/// A linear layer's three tensors: its input has two leading axes.
fn linear() -> [Dumped; 3] {
    [
        dumped("fc.1/lhs", &[3, M / 3, K], &draw(0, M * K)),
        dumped("fc.1/weight", &[N, K], &draw(1, N * K)),
        dumped("fc.1/grad", &[3, M / 3, N], &draw(2, M * N)),
    ]
}

fn from(tensors: &[Dumped]) -> Profile {
    Profile::from_dump(&file(tensors)).unwrap()
}

fn error(tensors: &[Dumped]) -> String {
    Profile::from_bytes(&file(tensors)).unwrap_err().to_string()
}

#[test]
fn three_tensors_are_the_operands_of_three_passes() {
    let profile = from(&linear());
    let measured = profile.site("fc.1").unwrap();
    assert_eq!(measured.site.kind, SiteKind::Linear);
    let shapes = [
        (Pass::Forward, [1, M, K], [1, N, K]),
        (Pass::GradLhs, [1, M, N], [1, K, N]),
        (Pass::GradRhs, [1, K, M], [1, N, M]),
    ];
    for (pass, left, right) in shapes {
        let pass = &measured.passes[&pass];
        assert_eq!((pass.left.shape, pass.right.shape), (left, right));
        assert_eq!(pass.samples.len(), 1);
        assert_eq!(pass.left.series.len(), 1);
    }
    // The weight's own right factor, named so.
    let [lhs, _, grad] = linear();
    let rhs = dumped("fc.1/rhs", &[K, N], &transposed(&draw(1, N * K), [N, K]));
    assert_eq!(from(&[lhs, rhs, grad]), profile);

    // The same operands pass by pass.
    let (l, w, g) = (draw(0, M * K), draw(1, N * K), draw(2, M * N));
    let by_pass = [
        dumped("fc.1/forward/lhs@0", &[M, K], &l),
        dumped("fc.1/forward/rhs", &[N, K], &w),
        dumped("fc.1/grad_lhs/grad", &[3, M / 3, N], &g),
        dumped("fc.1/grad_lhs/rhs", &[K, N], &transposed(&w, [N, K])),
        dumped("fc.1/grad_rhs/lhs", &[K, M], &transposed(&l, [M, K])),
        dumped("fc.1/grad_rhs/grad", &[N, M], &transposed(&g, [M, N])),
    ];
    assert_eq!(from(&by_pass), profile);

    // A sampled row of a pass is a row of the operand.
    let sample = &measured.passes[&Pass::GradRhs].samples[0];
    let columns: Vec<Vec<f32>> = (0..K)
        .map(|k| (0..M).map(|m| l[m * K + k]).collect())
        .collect();
    assert_eq!(sample.outer_left, 32);
    for row in sample.left.chunks(M) {
        assert!(columns.iter().any(|column| column == row));
    }
}

#[test]
fn attention_has_a_batch_of_products() {
    let [b, h, m, k, n] = [2, 3, 20, 16, 24];
    let profile = from(&[
        dumped("scores/lhs@7", &[b, h, m, k], &draw(0, b * h * m * k)),
        dumped("scores/rhs@7", &[b, h, k, n], &draw(1, b * h * k * n)),
        dumped("scores/grad@7", &[b, h, m, n], &draw(2, b * h * m * n)),
    ]);
    let measured = profile.site("scores").unwrap();
    assert_eq!(measured.site.kind, SiteKind::Matmul);
    let pass = &measured.passes[&Pass::GradLhs];
    assert_eq!(pass.left.shape, [b * h, m, n]);
    assert_eq!(pass.right.shape, [b * h, k, n]);
    assert_eq!(profile.steps(), [7]);
}

#[test]
fn steps_add_up_and_sites_are_in_their_order() {
    let mut tensors = Vec::new();
    for layer in [10, 2] {
        for step in [100, 200] {
            for tensor in linear() {
                let name = tensor.name.replace("fc.1", &format!("layers.{layer}.fc"));
                let name = format!("{name}@{step}");
                tensors.push(Dumped { name, ..tensor });
            }
        }
    }
    let profile = from(&tensors);
    let names: Vec<&str> = profile.sites.iter().map(|s| s.site.name.as_str()).collect();
    assert_eq!(names, ["layers.2.fc", "layers.10.fc"]);
    assert_eq!(profile.steps(), [100, 200]);
    let drift = profile.sites[0].passes[&Pass::Forward]
        .left
        .drift()
        .unwrap();
    assert_eq!(drift.amax_per_1000_steps, 0.0);
    // And a plan can be chosen from them.
    let plan = choose(&profile, &Policy::default()).unwrap();
    assert!(plan.site("layers.2.fc").unwrap().evidence.len() == 3);
}

#[test]
fn half_precision_is_read_as_it_is() {
    for (dtype, format) in [(Dtype::F16, Format::FP16), (Dtype::BF16, Format::BF16)] {
        let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Special);
        let (mut rounded, mut halves) = (Vec::new(), Vec::new());
        for (tensor, count) in linear().into_iter().zip([M * K, N * K, M * N]) {
            let words = tensor.bytes.as_chunks().0.iter();
            let values: Vec<f32> = words.map(|&word| f32::from_le_bytes(word)).collect();
            let mut codes = vec![0; count];
            rounder.encode_u16(RandomBits::NONE, 0, &values, &mut codes);
            let mut back = vec![0.0; count];
            rounder.decode_u16(&codes, &mut back);
            rounded.push(dumped(&tensor.name, &tensor.shape, &back));
            let bytes = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
            halves.push(Dumped {
                dtype,
                bytes,
                ..tensor
            });
        }
        assert_eq!(from(&halves), from(&rounded));
    }
}

#[test]
fn loading_recognises_both_kinds_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, saved) = (folder.path().join("dump"), folder.path().join("profile"));
    std::fs::write(&dump, file(&linear())).unwrap();
    let profile = Profile::load(&dump).unwrap();
    profile.save(&saved).unwrap();
    assert_eq!(Profile::load(&saved).unwrap(), profile);
}

#[test]
fn what_is_no_dump_says_why() {
    let [lhs, weight, grad] = linear();
    let with = |tensor: &Dumped, change: &dyn Fn(&mut Dumped)| {
        let mut changed = tensor.clone();
        change(&mut changed);
        let others = linear()
            .into_iter()
            .filter(|other| other.name != tensor.name);
        error(&others.chain([changed]).collect::<Vec<_>>())
    };
    let filled = |value: f32| {
        move |tensor: &mut Dumped| {
            *tensor = dumped(
                &tensor.name,
                &tensor.shape,
                &vec![value; tensor.bytes.len() / 4],
            );
        }
    };
    let renamed = |name: &'static str| move |tensor: &mut Dumped| tensor.name = name.to_string();
    let shaped = |shape: &'static [usize]| move |tensor: &mut Dumped| tensor.shape = shape.to_vec();
    let cases: &[(String, &[&str])] = &[
        (error(&[]), &["no tensor", "SITE/lhs"]),
        (
            error(&[lhs.clone(), grad.clone()]),
            &["`fc.1`", "lacks rhs (or weight)"],
        ),
        (
            error(std::slice::from_ref(&weight)),
            &["lacks lhs and grad"],
        ),
        (
            with(&lhs, &filled(f32::NAN)),
            &["`fc.1/lhs`", "NaN or infinite in 1920 of 1920"],
        ),
        (
            with(&grad, &|tensor| {
                tensor.bytes[0..4].copy_from_slice(&f32::INFINITY.to_le_bytes())
            }),
            &["`fc.1/grad`", "in 1 of 1728 elements"],
        ),
        (with(&grad, &filled(0.0)), &["`fc.1/grad`", "all zeros"]),
        (
            with(&weight, &filled(0.25)),
            &["`fc.1/weight`", "constant 0.25"],
        ),
        (
            with(&lhs, &renamed("fc.1/input")),
            &["`fc.1/input`", "lhs, rhs, weight and grad"],
        ),
        (
            with(&lhs, &renamed("fc.1/backward/lhs")),
            &["no pass `backward`", "grad_lhs"],
        ),
        (
            with(&lhs, &renamed("fc.1/grad_lhs/lhs")),
            &["grad_lhs are grad and rhs"],
        ),
        (with(&lhs, &renamed("lhs")), &["neither SITE/OPERAND"]),
        (with(&lhs, &renamed("model/fc/forward/lhs")), &["dots, not"]),
        (with(&lhs, &renamed("/lhs")), &["neither SITE/OPERAND"]),
        (
            with(&lhs, &renamed("fc.1/lhs@last")),
            &["`@last`", "whole number"],
        ),
        (with(&lhs, &renamed("fc.1/lhs@3")), &["lacks"]),
        (
            with(&lhs, &renamed("fc.1/forward/lhs")),
            &["name all in one way"],
        ),
        (
            with(&lhs, &|tensor| {
                (tensor.dtype, tensor.shape) = (Dtype::I32, vec![M, K]);
            }),
            &["`fc.1/lhs`", "I32", "bfloat16"],
        ),
        (
            with(&lhs, &|tensor| {
                (tensor.dtype, tensor.shape) = (Dtype::F64, vec![M, K / 2]);
            }),
            &["F64", "float32"],
        ),
        (with(&lhs, &shaped(&[M * K])), &["two axes"]),
        (
            with(&lhs, &shaped(&[K, M])),
            &["no product", "`fc.1/lhs` [40, 48]"],
        ),
        (
            with(&weight, &renamed("fc.1/rhs")),
            &["no product", "SITE/weight"],
        ),
        (
            error(&[
                lhs.clone(),
                weight.clone(),
                grad.clone(),
                dumped("fc.1/rhs", &[K, N], &draw(1, K * N)),
            ]),
            &["both `rhs` and `weight`"],
        ),
        (
            error(&[lhs.clone(), dumped("fc.1/lhs@0", &[M, K], &draw(5, M * K))]),
            &["there twice"],
        ),
        (
            error(&[
                dumped("fc/lhs", &[1, K], &draw(0, K)),
                dumped("fc/weight", &[N, K], &draw(1, N * K)),
                dumped("fc/grad", &[1, N], &draw(2, N)),
            ]),
            &["`fc`", "a single row", "two or more"],
        ),
        (
            error(&[
                dumped("fc/forward/lhs", &[M, K], &draw(0, M * K)),
                dumped("fc/forward/rhs", &[N, K], &draw(1, N * K)),
            ]),
            &["lacks grad_lhs/grad, grad_lhs/rhs, grad_rhs/lhs, grad_rhs/grad"],
        ),
        (
            error(&[
                dumped("fc/forward/lhs", &[M, K], &draw(0, M * K)),
                dumped("fc/forward/rhs", &[N, K + 1], &draw(1, N * (K + 1))),
                dumped("fc/grad_lhs/grad", &[M, N], &draw(2, M * N)),
                dumped("fc/grad_lhs/rhs", &[K, N], &draw(1, N * K)),
                dumped("fc/grad_rhs/lhs", &[K, M], &draw(0, M * K)),
                dumped("fc/grad_rhs/grad", &[N, M], &draw(2, M * N)),
            ]),
            &["`fc/forward/rhs` [36, 41] do not multiply"],
        ),
        (
            error(&[
                dumped("fc/forward/lhs", &[M, K], &draw(0, M * K)),
                dumped("fc/forward/rhs", &[N, K], &draw(1, N * K)),
                dumped("fc/grad_lhs/grad", &[M, K], &draw(2, M * K)),
                dumped("fc/grad_lhs/rhs", &[N, K], &draw(1, N * K)),
                dumped("fc/grad_rhs/lhs", &[K, M], &draw(0, M * K)),
                dumped("fc/grad_rhs/grad", &[N, M], &draw(2, M * N)),
            ]),
            &["different products", "grad_lhs/grad [m, n]"],
        ),
    ];
    for (message, expected) in cases {
        for word in *expected {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
    let mut cut = file(&linear());
    cut.truncate(cut.len() / 2);
    let message = Profile::from_dump(&cut).unwrap_err().to_string();
    assert!(
        message.contains("not a whole safetensors file"),
        "{message}"
    );
}
