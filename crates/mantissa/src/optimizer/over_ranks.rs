//! Making one step of many: gradients, losses, amaxes and faults of all ranks.

use burn::module::{Module, ParamId};
use serde::{Deserialize, Serialize};

use super::gradients::ScannedGradients;
use super::step::NonFinite;
use crate::amax_history::AmaxesOfStep;
use crate::session::{Fault, Session};

/// What each rank says before gradients travel.
#[derive(Serialize, Deserialize)]
struct Report {
    /// Elements of each gradient, in the model's order.
    lengths: Vec<usize>,
    /// The bits of this rank's part of the loss, which JSON could not tell if it is not finite.
    loss: u32,
    /// The largest finite magnitude, still scaled.
    amax: f32,
    /// Gradients that are not finite, by their places in the model's order.
    non_finite: Vec<(usize, NonFinite)>,
    /// Of operands with delayed scaling.
    amaxes: AmaxesOfStep,
    /// Of this step; said only if gradients are not finite.
    faults: Vec<Fault>,
}

/// Replaces `gradients` and `loss` of this rank's share by those of the whole batch, the same bits on every rank. If
/// gradients are not finite on any rank, all learn which, and none travel.
///
/// Ends the world if ranks have gradients of different sizes.
pub(super) fn reduce<M: Module>(
    session: &Session,
    model: &M,
    gradients: &mut ScannedGradients,
    loss: &mut f32,
) {
    session.with_sum(|sum| {
        let order = gradients.order(model);
        let report = Report {
            lengths: order.iter().map(|&id| gradients.len_of(id)).collect(),
            loss: loss.to_bits(),
            amax: gradients.amax(),
            non_finite: gradients
                .found()
                .iter()
                .filter_map(|(id, found)| {
                    let place = order.iter().position(|other| other == id)?;
                    Some((place, found.clone()))
                })
                .collect(),
            amaxes: session.amaxes_of_step(),
            faults: if gradients.are_finite() {
                Vec::new()
            } else {
                session.faults()
            },
        };
        let message = serde_json::to_vec(&report).expect("a report has no map with odd keys");
        let mut reports: Vec<Report> = sum
            .world
            .gather(&message)
            .iter()
            .map(|message| match serde_json::from_slice(message) {
                Ok(report) => report,
                Err(error) => sum
                    .world
                    .abort(&format!("a rank's report of its gradients is none: {error}")),
            })
            .collect();
        for (rank, theirs) in reports.iter().enumerate() {
            if theirs.lengths != report.lengths {
                let [other, own] = [theirs, &report].map(|report| {
                    let elements: usize = report.lengths.iter().sum();
                    format!("{} tensors, {elements} elements", report.lengths.len())
                });
                sum.world.abort(&format!(
                    "rank {rank} has other gradients ({other}) than this rank ({own}): the ranks train different models"
                ));
            }
        }

        *loss = reports
            .iter()
            .map(|report| f32::from_bits(report.loss))
            .sum();
        for report in &mut reports {
            session.merge_amaxes(std::mem::take(&mut report.amaxes));
        }
        if reports.iter().all(|report| report.non_finite.is_empty()) {
            gradients.replace(&order, |tensors| sum.add_up(tensors));
        } else {
            let amax = reports.iter().map(|report| report.amax).fold(0.0, f32::max);
            gradients.give_up(merged(&order, &reports), amax);
            session.set_faults(reports.into_iter().flat_map(|report| report.faults).collect());
        }
    });
}

/// The gradients that are not finite on any rank, with what all ranks found in each, in the model's order.
fn merged(order: &[ParamId], reports: &[Report]) -> Vec<(ParamId, NonFinite)> {
    let found = |place: usize| {
        let of_place = reports
            .iter()
            .flat_map(|report| &report.non_finite)
            .filter(move |(other, _)| *other == place)
            .map(|(_, found)| found.clone());
        of_place.reduce(|all, one| NonFinite {
            count: all.count + one.count,
            elements: all.elements + one.elements,
            amax: all.amax.max(one.amax),
            ..all
        })
    };
    let places = order.iter().enumerate();
    places
        .filter_map(|(place, &id)| Some((id, found(place)?)))
        .collect()
}
