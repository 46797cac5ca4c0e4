//! The profile as one safetensors file: the samples as tensors, everything else as JSON in the header.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::dump;
use crate::file;
use crate::profile::{
    OperandStatistics, PassProfile, PassSample, Profile, ProfileError, SAMPLES_KEPT, SCHEMA,
    SiteProfile, tensor_name,
};
use crate::site::{Pass, Site, SiteKind};

/// The header entry that holds everything but the samples.
const METADATA: &str = "mantissa_profile";

/// More than any profile of the samples kept needs; a larger file is not one.
const LARGEST: u64 = 8 << 30;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileHeader {
    schema: u64,
    sites: Vec<SiteHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteHeader {
    name: String,
    kind: SiteKind,
    passes: BTreeMap<Pass, PassHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PassHeader {
    left: OperandStatistics,
    right: OperandStatistics,
    samples: Vec<SampleHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleHeader {
    step: u64,
    left_amax: f32,
    right_amax: f32,
}

/// How many earlier samples of the same step there are; samples are sorted by step.
fn repeat(steps: &[u64], index: usize) -> usize {
    steps[..index]
        .iter()
        .rev()
        .take_while(|&&step| step == steps[index])
        .count()
}

pub(crate) fn save(profile: &Profile, path: &Path) -> Result<(), ProfileError> {
    let bytes = encode(profile)?;
    file::write_atomically(path, &bytes).map_err(|source| ProfileError::Write {
        path: path.to_path_buf(),
        source,
    })
}

pub(crate) fn encode(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    let header = ProfileHeader {
        schema: u64::from(SCHEMA),
        sites: profile.sites.iter().map(site_header).collect(),
    };
    let json =
        serde_json::to_string(&header).map_err(|fault| ProfileError::Encode(fault.to_string()))?;
    let mut tensors: Vec<(String, [usize; 3], Vec<u8>)> = Vec::new();
    for site in &profile.sites {
        for (&pass, measured) in &site.passes {
            let steps: Vec<u64> = measured.samples.iter().map(|sample| sample.step).collect();
            for (index, sample) in measured.samples.iter().enumerate() {
                for (side, role) in pass.operands().into_iter().enumerate() {
                    let name = tensor_name(
                        &site.site.name,
                        pass,
                        role,
                        sample.step,
                        repeat(&steps, index),
                    );
                    let (outer, rows, _) = sample.side(side);
                    let bytes = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
                    tensors.push((name, [sample.batch, outer, sample.depth], bytes));
                }
            }
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let metadata = HashMap::from([(METADATA.to_string(), json)]);
    views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|fault| ProfileError::Encode(fault.to_string()))
}

fn site_header(site: &SiteProfile) -> SiteHeader {
    let passes = site.passes.iter().map(|(&pass, measured)| {
        let samples = measured.samples.iter().map(|sample| SampleHeader {
            step: sample.step,
            left_amax: sample.left_amax,
            right_amax: sample.right_amax,
        });
        let header = PassHeader {
            left: measured.left.clone(),
            right: measured.right.clone(),
            samples: samples.collect(),
        };
        (pass, header)
    });
    SiteHeader {
        name: site.site.name.clone(),
        kind: site.site.kind,
        passes: passes.collect(),
    }
}

pub(crate) fn load(path: &Path) -> Result<Profile, ProfileError> {
    let bytes = file::read_at_most(path, LARGEST).map_err(|source| ProfileError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    decode(&bytes).map_err(|fault| ProfileError::InFile {
        path: path.to_path_buf(),
        fault: Box::new(fault),
    })
}

fn not_tensors(fault: safetensors::SafeTensorError) -> ProfileError {
    ProfileError::Malformed(format!("it is not a whole safetensors file ({fault})"))
}

pub(crate) fn tensors(bytes: &[u8]) -> Result<SafeTensors<'_>, ProfileError> {
    SafeTensors::deserialize(bytes).map_err(not_tensors)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let tensors = tensors(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(not_tensors)?;
    let entries = metadata.metadata().as_ref();
    let Some(json) = entries.and_then(|entries| entries.get(METADATA)) else {
        return dump::read(&tensors);
    };
    let header = read_header(json)?;
    let mut sites: Vec<SiteProfile> = Vec::with_capacity(header.sites.len());
    for site in header.sites {
        sites.push(read_site(site, &tensors)?);
    }
    let mut known: Vec<&str> = sites
        .iter()
        .map(|measured| measured.site.name.as_str())
        .collect();
    known.sort_unstable();
    if let Some(twice) = known.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ProfileError::Malformed(format!(
            "site `{}` is in it twice",
            twice[0]
        )));
    }
    Ok(Profile { sites })
}

fn read_header(json: &str) -> Result<ProfileHeader, ProfileError> {
    #[derive(Deserialize)]
    struct Version {
        schema: u64,
    }
    let malformed = |fault: serde_json::Error| {
        ProfileError::Malformed(format!("its `{METADATA}` is wrong: {fault}"))
    };
    let Version { schema } = serde_json::from_str(json).map_err(malformed)?;
    if schema != u64::from(SCHEMA) {
        return Err(ProfileError::OtherSchema { found: schema });
    }
    serde_json::from_str(json).map_err(malformed)
}

fn read_site(header: SiteHeader, tensors: &SafeTensors<'_>) -> Result<SiteProfile, ProfileError> {
    let site = Site {
        name: header.name,
        kind: header.kind,
    };
    if !site.kind.is_product() && !header.passes.is_empty() {
        return Err(ProfileError::NotAProduct(site.name));
    }
    let mut passes = BTreeMap::new();
    for (pass, measured) in header.passes {
        let measured = read_pass(&site, pass, measured, tensors)?;
        measured
            .check()
            .map_err(|fault| ProfileError::Inconsistent {
                site: site.name.clone(),
                pass,
                fault,
            })?;
        passes.insert(pass, measured);
    }
    Ok(SiteProfile { site, passes })
}

fn read_pass(
    site: &Site,
    pass: Pass,
    header: PassHeader,
    tensors: &SafeTensors<'_>,
) -> Result<PassProfile, ProfileError> {
    let steps: Vec<u64> = header.samples.iter().map(|sample| sample.step).collect();
    let inconsistent = |fault: String| ProfileError::Inconsistent {
        site: site.name.clone(),
        pass,
        fault,
    };
    if steps.is_empty() || steps.len() > SAMPLES_KEPT || !steps.is_sorted() {
        return Err(inconsistent(format!(
            "there must be 1 to {SAMPLES_KEPT} samples with ascending steps, not {}",
            steps.len()
        )));
    }
    let [left_role, right_role] = pass.operands();
    let mut samples = Vec::with_capacity(steps.len());
    for (index, sample) in header.samples.into_iter().enumerate() {
        let name = |role| tensor_name(&site.name, pass, role, sample.step, repeat(&steps, index));
        let (left_shape, left) = read_rows(tensors, &name(left_role))?;
        let (right_shape, right) = read_rows(tensors, &name(right_role))?;
        if (left_shape[0], left_shape[2]) != (right_shape[0], right_shape[2]) {
            return Err(inconsistent(format!(
                "the samples of step {} do not multiply: {left_role} is {left_shape:?} and {right_role} is {right_shape:?} ([batch, outer, depth])",
                sample.step
            )));
        }
        samples.push(PassSample {
            step: sample.step,
            batch: left_shape[0],
            outer_left: left_shape[1],
            outer_right: right_shape[1],
            depth: left_shape[2],
            left,
            right,
            left_amax: sample.left_amax,
            right_amax: sample.right_amax,
        });
    }
    Ok(PassProfile {
        left: header.left,
        right: header.right,
        samples,
    })
}

fn read_rows(
    tensors: &SafeTensors<'_>,
    name: &str,
) -> Result<([usize; 3], Vec<f32>), ProfileError> {
    let tensor = tensors
        .tensor(name)
        .map_err(|_| ProfileError::Malformed(format!("the tensor `{name}` is missing")))?;
    let shape = <[usize; 3]>::try_from(tensor.shape());
    let (Ok(shape), Dtype::F32) = (shape, tensor.dtype()) else {
        return Err(ProfileError::Malformed(format!(
            "the tensor `{name}` must be f32 and have the axes batch, outer, depth"
        )));
    };
    let (words, _) = tensor.data().as_chunks::<4>();
    Ok((
        shape,
        words
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect(),
    ))
}
