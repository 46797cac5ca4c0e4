//! What it takes to ask of a whole network what every candidate would do: the sites of a BERT of 4 layers and width 256,
//! sampled as the profiler samples them, on all cores. The limit is the time of nothing but the candidates' products, in
//! f32 with the `gemm` crate.
//!
//! `cargo bench -p mantissa-plan --bench whatif -- [same|all] [LAYERS]`

use std::hint::black_box;
use std::time::Instant;

use gemm::Parallelism;
use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::whatif::{Pairs, WhatIf, grid};
use mantissa_plan::{OperandStatistics, Pass, PassSample, Profile, Site, SiteKind, SiteProfile};
use rayon::prelude::*;

const STEPS: u64 = 8;
/// Rows of an operand, matrices of a batch and elements of an operand in a sample: the profiler's defaults.
const ROWS: usize = 32;
const MATRICES: usize = 4;
const ELEMENTS: usize = 1 << 16;

const WIDTH: usize = 256;
const WIDE: usize = 1024;
const HEAD_WIDTH: usize = 64;
const LENGTH: usize = 128;
const TOKENS: usize = 32 * LENGTH;
const VOCABULARY: usize = 8192;

/// A site: its name, its matrices, and the depths of its three passes.
struct Shape {
    name: String,
    kind: SiteKind,
    matrices: usize,
    depths: [usize; 3],
}

fn shapes(layers: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for layer in 0..layers {
        let mut add = |name: &str, kind, matrices, depths| {
            shapes.push(Shape {
                name: format!("encoder.layers.{layer}.{name}"),
                kind,
                matrices,
                depths,
            });
        };
        for name in ["query", "key", "value", "output"] {
            add(name, SiteKind::Linear, 1, [WIDTH, WIDTH, TOKENS]);
        }
        add(
            "scores",
            SiteKind::Matmul,
            MATRICES,
            [HEAD_WIDTH, LENGTH, LENGTH],
        );
        add(
            "context",
            SiteKind::Matmul,
            MATRICES,
            [LENGTH, HEAD_WIDTH, LENGTH],
        );
        add("inner", SiteKind::Linear, 1, [WIDTH, WIDE, TOKENS]);
        add("outer", SiteKind::Linear, 1, [WIDE, WIDTH, TOKENS]);
    }
    shapes.push(Shape {
        name: "head".to_string(),
        kind: SiteKind::Linear,
        matrices: 1,
        depths: [WIDTH, VOCABULARY, TOKENS],
    });
    shapes
}

fn measured(layers: usize) -> Profile {
    let shapes = shapes(layers);
    let sites: Vec<Site> = shapes
        .iter()
        .map(|shape| Site::new(shape.name.clone(), shape.kind))
        .collect();
    let mut profile = Profile::new(&sites);
    for (index, shape) in shapes.iter().enumerate() {
        for (pass, depth) in Pass::ALL.into_iter().zip(shape.depths) {
            for step in 0..STEPS {
                let rows = (ROWS / shape.matrices).min(ELEMENTS / depth / shape.matrices);
                let draw = |side| {
                    let stream = (index as u64) << 8 | (pass as u64) << 4 | side;
                    student_t(
                        5.0,
                        RandomBits::new(step, stream),
                        shape.matrices * rows * depth,
                    )
                };
                let (left, right) = (draw(0), draw(1));
                let amax = |rows: &[f32]| rows.iter().fold(0f32, |top, x| top.max(x.abs()));
                let sample = PassSample {
                    step,
                    batch: shape.matrices,
                    outer_left: rows,
                    outer_right: rows,
                    depth,
                    left_amax: amax(&left),
                    right_amax: amax(&right),
                    left,
                    right,
                };
                let statistics = |amax, elements: &[f32]| {
                    OperandStatistics::of(0, [shape.matrices, rows, depth], amax, elements)
                };
                let left = statistics(sample.left_amax, &sample.left);
                let right = statistics(sample.right_amax, &sample.right);
                profile
                    .record(&shape.name, pass, sample, left, right)
                    .expect("a sample of a site of this profile");
            }
        }
    }
    profile
}

/// The products of one candidate pair after another, and nothing else.
fn products(site: &SiteProfile, pairs: usize) {
    for sample in site.passes.values().flat_map(|pass| &pass.samples) {
        let (m, n, k) = (sample.outer_left, sample.outer_right, sample.depth);
        let mut out = vec![0f32; m * n];
        for _ in 0..pairs {
            for matrix in 0..sample.batch {
                let left = &sample.left[matrix * m * k..][..m * k];
                let right = &sample.right[matrix * n * k..][..n * k];
                // SAFETY: both operands and the result are row-major and as long as their shapes say.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        out.as_mut_ptr(),
                        1,
                        n as isize,
                        false,
                        left.as_ptr(),
                        1,
                        k as isize,
                        right.as_ptr(),
                        k as isize,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    );
                }
                black_box(&mut out);
            }
        }
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let which = arguments.next().unwrap_or_else(|| "same".to_string());
    let layers = arguments.next().map_or(4, |word| {
        word.parse()
            .expect("the second argument is a number of layers")
    });
    let profile = measured(layers);
    let settings = WhatIf {
        pairs: match which.as_str() {
            "all" => Pairs::All(grid()),
            _ => Pairs::Same(grid()),
        },
        ..WhatIf::default()
    };
    let pairs = settings.pairs.len();
    let evaluating = seconds(|| {
        profile.sites.par_iter().for_each(|site| {
            black_box(settings.site(site));
        });
    });
    let limit = seconds(|| {
        profile
            .sites
            .par_iter()
            .for_each(|site| products(site, pairs));
    });
    let passes: usize = profile.sites.iter().map(|site| site.passes.len()).sum();
    println!(
        "{} sites, {passes} passes, {pairs} pairs, {} threads",
        profile.sites.len(),
        rayon::current_num_threads()
    );
    println!(
        "{evaluating:.2} s in all, {:.1} ms a site and pass; {:.1} times its products in f32 ({limit:.2} s)",
        1e3 * evaluating / passes as f64,
        evaluating / limit
    );
}
