//! Runs that differ by their seeds alone, and what they came to together.

use serde::Serialize;

use super::folders::Found;
use super::run::Run;
use crate::training::RunConfig;

/// Runs that differ by their seeds alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    /// Its name, unique in the report.
    pub name: String,
    /// Its runs, as places among those of the report.
    pub runs: Vec<usize>,
    /// Mean of their final losses; absent where not all have one.
    pub final_loss: Option<f64>,
    /// Sample standard deviation of their final losses.
    pub deviation: Option<f64>,
    /// Mean final loss above the floor.
    pub above_floor: Option<f64>,
    /// Mean difference to the first group, seed by seed.
    pub gap: Option<f64>,
    /// Sample standard deviation of those differences.
    pub gap_deviation: Option<f64>,
    /// [`gap`](Self::gap) in units of the first group's deviation.
    pub gap_sigma: Option<f64>,
    /// The share of a step's progress that their numerics are predicted to take, where the study predicted it.
    pub predicted_quality_loss: Option<f64>,
    /// Skipped steps of all runs.
    pub skipped_steps: u64,
    /// Runs that learnt nothing.
    pub diverged: usize,
    /// Runs that are not finished.
    pub unfinished: usize,
    /// Mean bytes an element of the operands takes, scales included.
    pub bytes_per_element: Option<f64>,
}

/// What a run is told apart by.
#[derive(PartialEq)]
enum Key {
    Named(String),
    Configured(Box<RunConfig>),
    Alone(usize),
}

impl Key {
    fn of(place: usize, found: &Found, config: Option<&RunConfig>) -> Self {
        match (&found.name, config) {
            (Some(name), _) => Self::Named(name.clone()),
            (None, Some(config)) => {
                let mut config = config.clone();
                config.training.seed = 0;
                Self::Configured(Box::new(config))
            }
            (None, None) => Self::Alone(place),
        }
    }
}

/// Groups the runs of a report, gives each run its group and its name, and compares the groups with the first one.
pub fn group(runs: &mut [Run], found: &[Found], configs: &[Option<RunConfig>]) -> Vec<Group> {
    let mut keys: Vec<Key> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for (place, (found, config)) in found.iter().zip(configs).enumerate() {
        let key = Key::of(place, found, config.as_ref());
        let index = keys.iter().position(|known| *known == key);
        let index = index.unwrap_or_else(|| {
            keys.push(key);
            groups.push(Group::default());
            keys.len() - 1
        });
        groups[index].runs.push(place);
        runs[place].group = index;
    }
    for index in 0..groups.len() {
        let first = groups[index].runs[0];
        let name = match (&found[first].name, groups[index].runs.len()) {
            (Some(name), _) => name.clone(),
            (None, 1) => found[first].label.clone(),
            (None, _) => runs[first]
                .facts
                .first()
                .map_or(found[first].label.clone(), |(_, numerics)| numerics.clone()),
        };
        let taken = groups.iter().any(|group| group.name == name);
        groups[index].predicted_quality_loss = found[first].predicted_quality_loss;
        groups[index].name = match taken {
            true => format!("{name} ({})", found[first].folder.display()),
            false => name,
        };
    }
    for run in &mut *runs {
        let group = &groups[run.group];
        run.name = match (group.runs.len(), run.seed) {
            (1, _) | (_, None) => group.name.clone(),
            (_, Some(seed)) => format!("{}, seed {seed}", group.name),
        };
    }
    for group in &mut groups {
        group.summarize(runs);
    }
    compare(&mut groups, runs);
    groups
}

impl Group {
    fn summarize(&mut self, runs: &[Run]) {
        let own = || self.runs.iter().map(|&run| &runs[run]);
        let losses: Option<Vec<f64>> = own().map(|run| run.outcome.final_loss).collect();
        let floors: Option<Vec<f64>> = own()
            .map(|run| Some(run.outcome.final_loss? - run.outcome.loss_floor?))
            .collect();
        self.final_loss = losses.as_deref().and_then(mean);
        self.deviation = losses.as_deref().and_then(deviation);
        self.above_floor = floors.as_deref().and_then(mean);
        self.skipped_steps = own()
            .map(|run| run.outcome.skipped_steps.unwrap_or(0))
            .sum();
        self.diverged = own()
            .filter(|run| run.outcome.diverged == Some(true))
            .count();
        self.unfinished = own()
            .filter(|run| run.state == super::run::State::Unfinished)
            .count();
        self.bytes_per_element = runs[self.runs[0]].bytes_per_element;
    }
}

/// Takes the gaps to the first group, over the seeds that both have.
fn compare(groups: &mut [Group], runs: &[Run]) {
    let Some((first, others)) = groups.split_first_mut() else {
        return;
    };
    for group in others {
        let gaps = group.runs.iter().filter_map(|&run| {
            let run = &runs[run];
            let same_seed = |other: &&usize| runs[**other].seed == run.seed;
            let reference = &runs[*first.runs.iter().find(same_seed)?];
            Some(run.outcome.final_loss? - reference.outcome.final_loss?)
        });
        let gaps: Vec<f64> = gaps.collect();
        group.gap = mean(&gaps);
        group.gap_deviation = deviation(&gaps);
        let sigma = first.deviation.filter(|sigma| *sigma > 0.0);
        group.gap_sigma = group.gap.zip(sigma).map(|(gap, sigma)| gap / sigma);
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of a sample: with n - 1 in the denominator.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((square / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn run(name: Option<&str>, seed: u64, loss: Option<f64>) -> (Run, Found, Option<RunConfig>) {
        let mut run = Run {
            seed: Some(seed),
            ..Run::default()
        };
        run.outcome.final_loss = loss;
        run.outcome.loss_floor = Some(1.0);
        let found = Found {
            folder: PathBuf::from(format!("runs/{seed}")),
            study: None,
            name: name.map(str::to_owned),
            label: format!("run-{seed}"),
            predicted_quality_loss: None,
        };
        let mut config = RunConfig::default();
        config.training.seed = seed;
        (run, found, Some(config))
    }

    fn grouped(rows: Vec<(Run, Found, Option<RunConfig>)>) -> (Vec<Group>, Vec<Run>) {
        let (mut runs, mut found, mut configs) = (Vec::new(), Vec::new(), Vec::new());
        for (run, place, config) in rows {
            runs.push(run);
            found.push(place);
            configs.push(config);
        }
        (group(&mut runs, &found, &configs), runs)
    }

    #[test]
    fn gaps_are_taken_seed_by_seed_in_units_of_the_first_groups_spread() {
        let (groups, runs) = grouped(vec![
            run(Some("fp32"), 0, Some(2.0)),
            run(Some("fp32"), 1, Some(2.5)),
            run(Some("fp32"), 2, Some(3.0)),
            run(Some("plan"), 1, Some(3.0)),
        ]);
        let [fp32, plan] = &groups[..] else {
            panic!("{groups:?}")
        };
        assert_eq!((fp32.final_loss, fp32.deviation), (Some(2.5), Some(0.5)));
        assert_eq!((fp32.gap, fp32.above_floor), (None, Some(1.5)));
        assert_eq!((plan.gap, plan.gap_sigma), (Some(0.5), Some(1.0)));
        assert_eq!(plan.deviation, None);
        assert_eq!(
            (runs[1].name.as_str(), runs[3].name.as_str()),
            ("fp32, seed 1", "plan")
        );
    }

    #[test]
    fn runs_of_one_configuration_are_a_group_and_a_mean_is_of_all_of_them() {
        let mut other = run(None, 3, Some(1.5));
        other.2.as_mut().unwrap().training.steps = 7;
        let (groups, _) = grouped(vec![run(None, 1, Some(2.0)), run(None, 2, None), other]);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].runs.len(), groups[0].final_loss), (2, None));
        assert_eq!(groups[1].name, "run-3");
    }
}
