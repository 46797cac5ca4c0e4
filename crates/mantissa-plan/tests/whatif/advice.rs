//! Which format, how fine, and how to round.

use mantissa_formats::{Format, RandomBits};
use mantissa_metrics::sample::student_t;
use mantissa_plan::whatif::Pairs;
use mantissa_plan::whatif::advice::{granularity_advice, rounding_advice};
use mantissa_plan::whatif::prediction::{crossover, predict, prediction};
use mantissa_plan::whatif::{grid, summarize};
use mantissa_plan::{Pass, Thresholds};
use mantissa_quant::Granularity;

use crate::{GAUSS, both, draw, numerics, outcome, sample, site_outcome};

#[test]
fn heavy_tails_cross_over_between_a_tensor_and_its_blocks() {
    let found = outcome(vec![draw(4.0, 3, 256, 512)], Pairs::Same(grid()));
    let interval = |token: &str| {
        let error = found.same(numerics(token)).unwrap();
        error.product.unwrap().median_interval.unwrap()
    };
    assert!(interval("e4m3/tensor").high < interval("int8/tensor").low);
    assert!(interval("int8/block32").high < interval("e4m3/block32").low);
    assert!(interval("mxint8").high < interval("mxfp8").low);

    let nu = found.nu.map(Option::unwrap);
    assert!(nu.iter().all(|nu| (3.6..4.4).contains(nu)), "{nu:?}");
    let prediction = prediction(&found).unwrap();
    let measured: Vec<Format> = prediction.winners.iter().map(|w| w.measured).collect();
    let expected = [Format::E4M3, Format::INT8, Format::INT8, Format::INT8];
    assert_eq!(measured, expected);
    assert!(prediction.winners.iter().all(|w| w.predicted == w.measured));
    let text = prediction.to_string();
    assert!(
        text.contains("e4m3 at tensor") && text.ends_with("the same"),
        "{text}"
    );
}

#[test]
fn crossovers_move_to_heavier_tails_with_finer_scales() {
    for (granularity, range) in [
        (Granularity::Tensor, 6.0..10.0),
        (Granularity::Channel, 2.0..3.0),
        (Granularity::Block(128), 1.0..2.0),
        (Granularity::Block(32), 1.0..2.0),
    ] {
        let nu = crossover(granularity).unwrap();
        assert!(range.contains(&nu), "{granularity}: {nu}");
    }
    assert_eq!(crossover(Granularity::Block(64)), None);
    // The table itself at its corners, and between two operands their errors' mean square.
    let tensor = |nu, format| predict(nu, format, Granularity::Tensor).unwrap();
    let (light, heavy) = (
        tensor([GAUSS; 2], Format::INT8),
        tensor([3.0; 2], Format::INT8),
    );
    assert!(light < 1e-3 && heavy > 1e-2);
    let mixed = tensor([GAUSS, 3.0], Format::INT8);
    assert!((mixed - ((light * light + heavy * heavy) / 2.0).sqrt()).abs() < 1e-12);
    assert_eq!(
        tensor([0.5; 2], Format::E5M2),
        tensor([1.0; 2], Format::E5M2)
    );
    assert_eq!(predict([3.0; 2], Format::BF16, Granularity::Tensor), None);
}

#[test]
fn the_coarsest_scales_that_suffice_are_named_with_what_finer_ones_gain() {
    let pairs = || Pairs::Same(grid());
    let advice = |nu, format| {
        let found = site_outcome(Pass::Forward, vec![draw(nu, 4, 128, 512)], pairs());
        let all = granularity_advice(&found.passes[0], &Thresholds::default());
        all.into_iter()
            .find(|advice| advice.format == format)
            .unwrap()
    };
    let light = advice(GAUSS, Format::INT8);
    assert!(light.suffices && light.granularity == Granularity::Tensor);
    let finer = light.finer.unwrap();
    assert_eq!(finer.granularity, Granularity::Channel);
    // 0.000721 / 0.000487 for 512 x 512; a scale of 32 bits for 512 elements.
    assert!((1.2..1.6).contains(&finer.gain), "{finer:?}");
    assert_eq!(finer.bits, 32.0 / 512.0);
    assert!(
        light
            .to_string()
            .contains("channel divides the backward error by")
    );

    let heavy = advice(2.0, Format::INT8);
    assert!(
        heavy.suffices && heavy.granularity != Granularity::Tensor,
        "{heavy:?}"
    );
    let coarse = advice(1.0, Format::INT8);
    assert!(!coarse.suffices && coarse.granularity == Granularity::Block(32));
    assert!(
        coarse.to_string().starts_with("int8 does not suffice"),
        "{coarse}"
    );
}

#[test]
fn rounding_advice_tells_bias_from_none() {
    let stochastic = ["int8/tensor", "int8/tensor/stochastic"];
    let advice = |left: Vec<f32>| {
        let right = student_t(GAUSS, RandomBits::new(3, 1), 64 * 256)
            .iter()
            .map(|x| x.abs())
            .collect();
        let found = outcome(vec![sample([left, right], 1, 256)], both(&stochastic));
        rounding_advice(&found, numerics("int8/tensor")).unwrap()
    };
    let fair = advice(student_t(GAUSS, RandomBits::new(3, 0), 64 * 256));
    assert!(!fair.is_biased(), "{fair}");
    assert!(fair.to_string().contains("shows no bias"), "{fair}");

    // Everything lies 0.3 steps above a code: nearest rounding always goes down.
    let mut above: Vec<f32> = (0..64 * 256)
        .map(|i| (i * 7919 % 90) as f32 + 1.3)
        .collect();
    above[0] = 127.0;
    let leaning = advice(above);
    assert!(
        leaning.is_biased() && leaning.nearest_bias.value < 0.0,
        "{leaning}"
    );
    assert!(leaning.products_until_bias() < 2.0, "{leaning}");
    let zero = leaning.stochastic_bias;
    assert!(
        zero.value.abs() < 4.0 * zero.standard_error.unwrap(),
        "{leaning}"
    );
    assert!(zero.value.abs() < 0.1 * leaning.nearest_bias.value.abs());
}

#[test]
fn a_summary_names_the_worst_site() {
    let pairs = || both(&["int8/tensor", "e4m3/tensor"]);
    let mut sites = Vec::new();
    for (name, nu) in [("light", GAUSS), ("heavy", 2.0), ("middle", 8.0)] {
        let mut site = site_outcome(Pass::GradRhs, vec![draw(nu, 6, 32, 256)], pairs());
        site.site.name = name.to_string();
        sites.push(site);
    }
    let summaries = summarize(&sites);
    let int8 = &summaries[0];
    let spread = &int8.backward_error[&Pass::GradRhs];
    assert_eq!(spread.worst.site, "heavy");
    assert_eq!(int8.worst(), spread.worst.value);
    let middle = sites[2].passes[0].same(numerics("int8/tensor")).unwrap();
    assert_eq!(spread.median, middle.product.unwrap().median);
    let (gradient, update) = (
        int8.gradient_cosine.as_ref().unwrap(),
        int8.update_cosine.as_ref().unwrap(),
    );
    assert_eq!(
        (gradient.site.as_str(), update.site.as_str()),
        ("heavy", "heavy")
    );
    // Signs forget magnitudes, so small gradients that were lost weigh as much as large ones.
    assert!(update.value.value < gradient.value.value);
    assert!(summarize(&[]).is_empty());
}
