//! Which sites and which candidates.

use std::collections::HashSet;

use mantissa_plan::whatif::{grid, select};
use mantissa_plan::{Pass, Profile, Site, SiteKind};

use crate::{GAUSS, draw, profile};

#[test]
fn the_grid_has_every_format_once_in_each_granularity_and_rounding() {
    let grid = grid();
    let names: HashSet<String> = grid.iter().map(|numerics| numerics.to_string()).collect();
    assert_eq!((grid.len(), names.len()), (34, 34));
    for token in [
        "int8/block128/stochastic",
        "e5m2/channel",
        "bf16",
        "fp16/stochastic",
        "mxfp8",
        "mxint8/stochastic",
        "nvfp4",
    ] {
        assert!(names.contains(token), "{token}");
    }
}

#[test]
fn sites_are_selected_by_name() {
    let measured = profile(Pass::Forward, vec![draw(GAUSS, 1, 4, 8)]);
    for glob in [
        None,
        Some("encoder.query"),
        Some("*.qu?ry"),
        Some("encoder*"),
    ] {
        assert_eq!(select(&measured, glob).unwrap().len(), 1);
    }
    let fault = |glob| select(&measured, Some(glob)).unwrap_err().to_string();
    let text = fault("encoder.qery");
    assert!(
        text.contains("`encoder.qery`") && text.contains("`encoder.query`"),
        "{text}"
    );
    assert!(
        fault("zzz").contains("it has `encoder.query`"),
        "{}",
        fault("zzz")
    );
    assert!(fault("[").contains("not a glob"), "{}", fault("["));
    let empty = Profile::new(&[Site::new("table", SiteKind::Embedding)]);
    let text = select(&empty, None).unwrap_err().to_string();
    assert!(text.contains("no measurement"), "{text}");
}
