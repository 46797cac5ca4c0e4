//! Profiles: recording, merging, files, and files that are damaged or hostile.

use mantissa_formats::RandomBits;
use mantissa_metrics::sample::student_t;
use mantissa_plan::profile::SAMPLES_KEPT;
use mantissa_plan::{OperandStatistics, Pass, PassSample, Profile, ProfileError, Site, SiteKind};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

fn sites() -> Vec<Site> {
    vec![
        Site::new("token", SiteKind::Embedding),
        Site::new("query", SiteKind::Linear),
        Site::new("scores", SiteKind::Matmul),
    ]
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top: f32, x| top.max(x.abs()))
}

fn sample(step: u64, batch: usize) -> PassSample {
    let draw = |stream, count| student_t(5.0, RandomBits::new(step, stream), count);
    let (left, right) = (draw(0, batch * 4 * 10), draw(1, batch * 3 * 10));
    let (left_amax, right_amax) = (2.0 * amax(&left), amax(&right));
    PassSample {
        step,
        batch,
        outer_left: 4,
        outer_right: 3,
        depth: 10,
        left,
        right,
        left_amax,
        right_amax,
    }
}

fn statistics(sample: &PassSample) -> (OperandStatistics, OperandStatistics) {
    let of = |outer, amax, rows: &[f32]| {
        OperandStatistics::of(sample.step, [sample.batch, outer, sample.depth], amax, rows)
    };
    (
        of(400, sample.left_amax, &sample.left),
        of(300, sample.right_amax, &sample.right),
    )
}

fn record(
    profile: &mut Profile,
    site: &str,
    pass: Pass,
    sample: PassSample,
) -> Result<(), ProfileError> {
    let (left, right) = statistics(&sample);
    profile.record(site, pass, sample, left, right)
}

fn profile(steps: impl IntoIterator<Item = u64>) -> Profile {
    let mut profile = Profile::new(&sites());
    for step in steps {
        for pass in Pass::ALL {
            record(&mut profile, "query", pass, sample(step, 1)).unwrap();
            record(&mut profile, "scores", pass, sample(step, 2)).unwrap();
        }
    }
    profile
}

#[test]
fn a_profile_survives_its_file_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.safetensors");
    let measured = profile([5, 10, 10, 15]);
    measured.save(&path).unwrap();
    assert_eq!(Profile::load(&path).unwrap(), measured);
    let first = std::fs::read(&path).unwrap();
    measured.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(
        tensors.tensor("scores/grad_lhs/grad@5").unwrap().shape(),
        [2, 4, 10]
    );
    assert_eq!(
        tensors.tensor("scores/grad_lhs/rhs@10.1").unwrap().shape(),
        [2, 3, 10]
    );

    let empty = Profile::new(&sites());
    empty.save(&path).unwrap();
    assert_eq!(Profile::load(&path).unwrap(), empty);
}

#[test]
fn samples_are_bounded_and_evenly_spread() {
    let measured = profile(0..100);
    let steps = measured.steps();
    assert_eq!(steps.len(), SAMPLES_KEPT);
    assert_eq!((steps[0], steps[SAMPLES_KEPT - 1]), (0, 99));
    let widest = steps
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap();
    assert!(widest <= 4 * 100 / SAMPLES_KEPT as u64, "{steps:?}");
    // Statistics cover every step, not only the samples kept.
    let pass = &measured.site("query").unwrap().passes[&Pass::Forward];
    assert_eq!(pass.left.moments.count, 100 * 40);
    assert_eq!(pass.left.exponents.total(), 100 * 40);
    assert_eq!(pass.left.shape, [1, 400, 10]);
}

#[test]
fn merging_parts_gives_the_statistics_of_the_whole() {
    let whole = profile([1, 2, 3, 4]);
    let mut parts = profile([2, 4]);
    parts.merge(&profile([1, 3])).unwrap();
    assert_eq!(parts.steps(), [1, 2, 3, 4]);
    for (merged, direct) in parts.sites.iter().zip(&whole.sites) {
        for (pass, merged) in &merged.passes {
            let direct = &direct.passes[pass];
            assert_eq!(merged.samples, direct.samples);
            assert_eq!(merged.left.exponents, direct.left.exponents);
            assert_eq!(merged.left.amax, direct.left.amax);
            let (a, b) = (merged.left.moments, direct.left.moments);
            assert_eq!(a.count, b.count);
            assert!((a.m2 - b.m2).abs() < 1e-9 * b.m2);
        }
    }
}

#[test]
fn profiles_of_different_models_do_not_merge() {
    let mut measured = profile([1]);
    let mut others = sites();
    others[1].name = "key".to_string();
    let message = measured
        .merge(&Profile::new(&others))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`query` (linear)") && message.contains("`key` (linear)"),
        "{message}"
    );
    let message = measured
        .merge(&Profile::new(&sites()[..2]))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("one has 3 sites and the other 2"),
        "{message}"
    );
    assert_eq!(measured, profile([1]));
}

#[test]
fn what_contradicts_itself_is_not_recorded() {
    let mut measured = Profile::new(&sites());
    type Spoil = fn(&mut PassSample);
    let cases: [(Spoil, &str); 6] = [
        (
            |sample| sample.depth = 11,
            "40 left elements where 1 x 4 x 11 are announced",
        ),
        (|sample| sample.batch = usize::MAX, "announced"),
        (|sample| sample.outer_right = 0, "no right elements"),
        (|sample| sample.left_amax = f32::NAN, "amax is NaN"),
        (|sample| sample.right_amax *= 0.5, "beyond its amax"),
        (|sample| sample.step = u64::MAX, "steps end at"),
    ];
    for (spoil, expected) in cases {
        let mut spoilt = sample(1, 1);
        let (left, right) = statistics(&spoilt);
        spoil(&mut spoilt);
        let message = measured
            .record("query", Pass::GradLhs, spoilt, left, right)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(expected) && message.contains("`query`, pass grad_lhs"),
            "{message}"
        );
    }
    let message = record(&mut measured, "qurey", Pass::Forward, sample(1, 1))
        .unwrap_err()
        .to_string();
    assert!(message.contains("did you mean `query`?"), "{message}");
    let message = record(&mut measured, "token", Pass::Forward, sample(1, 1))
        .unwrap_err()
        .to_string();
    assert!(message.contains("multiplies nothing"), "{message}");
    assert_eq!(measured, Profile::new(&sites()));

    // NaN in the data is data.
    let mut with_nan = sample(1, 1);
    with_nan.left[3] = f32::NAN;
    record(&mut measured, "query", Pass::Forward, with_nan).unwrap();
}

/// A profile file whose tensors or JSON were changed on the way.
fn rewritten(change: impl Fn(&str) -> String, keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile");
    profile([1]).save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut entries = header.metadata().clone().unwrap();
    let json = entries.get_mut("mantissa_profile").unwrap();
    *json = change(json);
    let kept: Vec<(String, TensorView)> = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| keep(name))
        .collect();
    safetensors::serialize(kept, Some(entries)).unwrap()
}

fn load(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile");
    std::fs::write(&path, bytes).unwrap();
    Profile::load(&path)
}

#[test]
fn damaged_and_foreign_files_say_what_is_wrong() {
    let everything = |_: &str| true;
    let same = |json: &str| json.to_string();
    let other_shape = || {
        let data = [0u8; 16];
        let view = TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap();
        safetensors::serialize([("weight", view)], None).unwrap()
    };
    let cases = [
        (
            rewritten(
                |json| json.replace("\"schema\":2", "\"schema\":9"),
                everything,
            ),
            "schema 9",
        ),
        (
            rewritten(
                |json| json.replace("\"schema\":2", "\"schema\":-1"),
                everything,
            ),
            "wrong",
        ),
        (
            rewritten(|json| json.replace("\"kind\"", "\"knid\""), everything),
            "knid",
        ),
        (
            rewritten(
                |json| json.replace("\"name\":\"scores\"", "\"name\":\"query\""),
                everything,
            ),
            "twice",
        ),
        (
            rewritten(
                |json| json.replace("\"name\":\"scores\"", "\"name\":\"values\""),
                everything,
            ),
            "`values/forward/lhs@1` is missing",
        ),
        (
            rewritten(|json| json.replace("\"step\":1", "\"step\":2"), everything),
            "@2` is missing",
        ),
        (
            rewritten(
                |json| json.replace("\"left_amax\":", "\"left_amax\":-"),
                everything,
            ),
            "amax is -",
        ),
        (
            rewritten(|json| json.replace("\"nu\":", "\"nu\":-"), everything),
            "series holds values at step 1",
        ),
        (
            rewritten(|json| json[..json.len() / 2].to_string(), everything),
            "wrong",
        ),
        (
            rewritten(same, |name| name != "query/grad_rhs/grad@1"),
            "`query/grad_rhs/grad@1` is missing",
        ),
        (other_shape(), "no `mantissa_profile`"),
        (b"schema = 1".to_vec(), "safetensors"),
        (Vec::new(), "safetensors"),
    ];
    for (bytes, expected) in cases {
        let message = load(&bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let message = Profile::load("/no/such/profile").unwrap_err().to_string();
    assert!(message.contains("/no/such/profile"), "{message}");
}

proptest! {
    #[test]
    fn no_damage_makes_loading_panic(place in 0.0..1.0f64, byte: u8, cut in 0.0..1.0f64) {
        let mut bytes = rewritten(str::to_string, |_| true);
        prop_assert!(load(&bytes).is_ok());
        let place = (place * bytes.len() as f64) as usize;
        bytes[place] = byte;
        let _ = load(&bytes);
        bytes.truncate((cut * bytes.len() as f64) as usize);
        prop_assert!(load(&bytes).is_err());
    }
}
