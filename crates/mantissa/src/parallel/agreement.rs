//! What must be the same on all ranks before they begin.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use crc32fast::Hasher;

use super::World;
use crate::flex_tensor::{contiguous, elements, into_flex};
use crate::storage::widened_flex;

/// Something that must be the same on all ranks: its name, and what it is here, in one line or more.
pub type Fact<'a> = (&'a str, String);

/// Something that is not the same on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {what} of rank {rank} is not that of rank 0: `{theirs}` there, `{first}` on rank 0; start all ranks alike, from the \
     same files"
)]
pub struct Disagreement {
    /// The name of what differs.
    pub what: String,
    /// The first rank that differs.
    pub rank: usize,
    /// The first line that differs, as that rank has it.
    pub theirs: String,
    /// The same line on rank 0.
    pub first: String,
}

impl World {
    /// Compares facts between all ranks; each must name the same ones.
    ///
    /// # Errors
    /// If one differs: every rank gets the same error, about the first that does.
    pub fn agree(&self, facts: &[Fact<'_>]) -> Result<(), Disagreement> {
        let message = serde_json::to_vec(facts).expect("pairs of texts are JSON");
        // What is no list of facts, from a program of another version perhaps, differs from one.
        let told: Vec<Vec<(String, String)>> = self
            .gather(&message)
            .iter()
            .map(|message| serde_json::from_slice(message).unwrap_or_default())
            .collect();
        for (rank, theirs) in told.iter().enumerate().skip(1) {
            let names = |facts: &[(String, String)]| {
                let names: Vec<&str> = facts.iter().map(|(name, _)| name.as_str()).collect();
                names.join(", ")
            };
            let (our_names, their_names) = (names(&told[0]), names(theirs));
            if our_names != their_names {
                return Err(disagreement(
                    rank,
                    "list of facts",
                    &our_names,
                    &their_names,
                ));
            }
            for ((name, ours), (_, theirs)) in told[0].iter().zip(theirs) {
                if ours != theirs {
                    return Err(disagreement(rank, name, ours, theirs));
                }
            }
        }
        Ok(())
    }
}

/// A checksum of all float parameters of `model`, in its order: models with different weights have, but for one in four
/// billion, different ones.
pub fn fingerprint<M: Module>(model: &M) -> String {
    let mut checksum = Checksum(Hasher::new());
    model.visit(&mut checksum);
    format!("{:08x}", checksum.0.finalize())
}

struct Checksum(Hasher);

impl ModuleVisitor for Checksum {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let wide = contiguous(widened_flex(into_flex(param.val())));
        for element in elements(&wide) {
            self.0.update(&element.to_le_bytes());
        }
    }
}

/// What to say about two texts that differ.
fn disagreement(rank: usize, what: &str, first: &str, theirs: &str) -> Disagreement {
    let (mut ours, mut others) = (first.lines(), theirs.lines());
    let (first, theirs) = loop {
        match (ours.next(), others.next()) {
            (None, None) => break ("", ""),
            (ours, others) if ours == others => {}
            (ours, others) => break (ours.unwrap_or("nothing"), others.unwrap_or("nothing")),
        }
    };
    Disagreement {
        what: what.to_owned(),
        rank,
        theirs: theirs.to_owned(),
        first: first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::tests::on_ranks;
    use super::fingerprint;
    use crate::nn::LinearConfig;

    #[test]
    fn other_weights_have_another_fingerprint() {
        let device = Device::flex();
        let linear = LinearConfig::new(4, 3).init(&device);
        assert_eq!(fingerprint(&linear), fingerprint(&linear.clone()));
        let mut other = linear.clone();
        other.weight = other.weight.map(|weight| -weight);
        assert_ne!(fingerprint(&linear), fingerprint(&other));
    }

    #[test]
    fn ranks_that_agree_go_on() {
        let told = on_ranks(3, |world| {
            world.agree(&[("version", "1.0".into()), ("plan", "a\nb".into())])
        });
        assert_eq!(told, [const { Ok(()) }; 3]);
    }

    #[test]
    fn the_first_difference_is_named_on_every_rank() {
        let told = on_ranks(3, |world| {
            let step = if world.rank() == 2 { 8 } else { 7 };
            world.agree(&[
                ("version", "1.0".into()),
                ("configuration", format!("seed = 1\nsteps = {step}\n")),
            ])
        });
        for told in told {
            let error = told.unwrap_err();
            assert_eq!((error.rank, error.what.as_str()), (2, "configuration"));
            let message = error.to_string();
            assert!(
                message.contains("steps = 8") && message.contains("steps = 7"),
                "{message}"
            );
        }
    }

    #[test]
    fn other_programs_say_other_things() {
        let told = on_ranks(2, |world| match world.rank() {
            0 => world.agree(&[("version", "1.0".into())]),
            _ => world.agree(&[("version", "1.0".into()), ("plan", "p".into())]),
        });
        for told in told {
            assert!(told.unwrap_err().to_string().contains("plan"));
        }
    }
}
