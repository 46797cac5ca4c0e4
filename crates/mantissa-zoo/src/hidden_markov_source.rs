//! A synthetic language whose best reachable loss is known: sequences of a hidden Markov model with slow and fast memory.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::draws::{Draws, Purpose};
use crate::hidden_markov::{HiddenMarkov, HiddenMarkovError};
use crate::source::{BatchShape, MASK_TOKEN, MaskedBatch, MaskedSource, SPECIAL_TOKENS};

/// The make of a synthetic language.
///
/// A state is a topic and a phase. The topic changes rarely, so far neighbours tell it; the phase walks a cycle that
/// each topic orders in its own way, so near neighbours tell it, once the topic is known. Each state prefers a few symbols
/// and shares them with other states, so one neighbour tells little and many must be combined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HiddenMarkovConfig {
    /// Slow part of the state.
    pub topics: usize,
    /// Fast part of the state.
    pub phases: usize,
    /// Symbols that are emitted; the vocabulary has [`SPECIAL_TOKENS`] more.
    pub symbols: usize,
    /// Symbols that each state prefers, the i-th with a weight of `1 / (i + 1)`.
    pub symbols_per_state: usize,
    /// Probability that the topic changes from one token to the next.
    pub topic_change: f64,
    /// Probabilities that the phase stays, moves to the next of the topic's cycle, and skips one.
    pub phase_moves: [f64; 3],
    /// Probability that a symbol is drawn from all symbols alike, whatever the state.
    pub background: f64,
    /// Which language of this make: seeds the tables, not the sequences.
    pub language: u64,
}

impl Default for HiddenMarkovConfig {
    /// 24 topics without phases and 64 token ids: many near neighbours must be combined to tell the topic, and a small
    /// network comes close to the floor within a few hundred steps. More phases make a language whose cycles are learnt
    /// late and all at once.
    fn default() -> Self {
        Self {
            topics: 24,
            phases: 1,
            symbols: 62,
            symbols_per_state: 6,
            topic_change: 1.0 / 12.0,
            phase_moves: [1.0, 0.0, 0.0],
            background: 0.02,
            language: 1,
        }
    }
}

impl HiddenMarkovConfig {
    /// The model, begun in its stationary distribution.
    pub fn model(&self) -> Result<HiddenMarkov, HiddenMarkovError> {
        self.check()?;
        let mut draws = Draws::new(self.language, Purpose::Structure, 0);
        let transition = self.transition(&mut draws);
        let emission = self.emission(&mut draws);
        let states = self.topics * self.phases;
        let uniform = vec![1.0 / states as f64; states];
        Ok(HiddenMarkov::new(self.symbols, uniform, transition, emission)?.started_stationary())
    }

    fn check(&self) -> Result<(), HiddenMarkovError> {
        let share = |p: f64| (0.0..=1.0).contains(&p);
        let problem = if self.topics == 0 || self.phases == 0 {
            "a hidden Markov source needs at least one topic and one phase"
        } else if self.topics.saturating_mul(self.phases) > 4096 || self.symbols > 65_536 {
            "a hidden Markov source has at most 4096 states and 65536 symbols"
        } else if self.symbols_per_state == 0 || self.symbols_per_state > self.symbols {
            "symbols_per_state must be between 1 and the number of symbols"
        } else if !share(self.topic_change)
            || !share(self.background)
            || !self.phase_moves.iter().all(|&p| share(p))
        {
            "topic_change, background and phase_moves are probabilities between 0 and 1"
        } else if (self.phase_moves.iter().sum::<f64>() - 1.0).abs() > 1e-9 {
            "phase_moves must sum to 1"
        } else {
            return Ok(());
        };
        Err(HiddenMarkovError::Config(problem))
    }

    /// State `topic * phases + phase`; a change of topic goes to each other topic alike.
    fn transition(&self, draws: &mut Draws) -> Vec<f64> {
        let (topics, phases) = (self.topics, self.phases);
        let states = topics * phases;
        let change = if topics > 1 { self.topic_change } else { 0.0 };
        let mut table = vec![0.0; states * states];
        for topic in 0..topics {
            let cycle = shuffled(phases, draws);
            for place in 0..phases {
                let from = topic * phases + cycle[place];
                for (skip, phase_move) in self.phase_moves.iter().enumerate() {
                    let phase = cycle[(place + skip) % phases];
                    for next in 0..topics {
                        let topic_move = if next == topic {
                            1.0 - change
                        } else {
                            change / (topics - 1) as f64
                        };
                        table[from * states + next * phases + phase] += phase_move * topic_move;
                    }
                }
            }
        }
        table
    }

    /// Each state's preferred symbols over a uniform background.
    fn emission(&self, draws: &mut Draws) -> Vec<f64> {
        let states = self.topics * self.phases;
        let weights: Vec<f64> = (1..=self.symbols_per_state)
            .map(|rank| 1.0 / rank as f64)
            .collect();
        let total: f64 = weights.iter().sum();
        let mut table = vec![self.background / self.symbols as f64; states * self.symbols];
        for row in table.chunks_mut(self.symbols) {
            for (symbol, weight) in shuffled(self.symbols, draws).into_iter().zip(&weights) {
                row[symbol] += (1.0 - self.background) * weight / total;
            }
        }
        table
    }
}

/// `0..count` in an order drawn uniformly (Fisher-Yates).
fn shuffled(count: usize, draws: &mut Draws) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, draws.below(last as u64 + 1) as usize);
    }
    order
}

/// Masked sequences of a hidden Markov model, and the best loss that any predictor of them can reach.
#[derive(Clone, Debug)]
pub struct HiddenMarkovSource {
    model: HiddenMarkov,
    shape: BatchShape,
    seed: u64,
    evaluation: Vec<MaskedBatch>,
    floor: f64,
    unigram_loss: f64,
}

impl HiddenMarkovSource {
    /// A source of the language that `config` describes. `seed` chooses the training sequences; the evaluation set of
    /// `evaluation_batches` batches belongs to the language, so runs of different seeds are compared on the same set.
    pub fn new(
        config: &HiddenMarkovConfig,
        shape: BatchShape,
        evaluation_batches: usize,
        seed: u64,
    ) -> Result<Self, HiddenMarkovError> {
        shape.check()?;
        let model = config.model()?;
        let evaluation: Vec<MaskedBatch> = (0..evaluation_batches as u64)
            .map(|index| {
                let purposes = [Purpose::Evaluation, Purpose::EvaluationMask];
                let whole = shape.part(index, 0..shape.batch_size);
                draw_batch(&model, whole, config.language, purposes)
            })
            .collect();
        let floor = floor(&model, &evaluation)?;
        let unigram = model.unigram();
        let unigram_loss = mean_loss(
            evaluation
                .iter()
                .flat_map(|batch| &batch.targets)
                .map(|&t| unigram[symbol(t)]),
        );
        Ok(Self {
            model,
            shape,
            seed,
            evaluation,
            floor,
            unigram_loss,
        })
    }

    /// The model that draws the sequences. Token `t` of a batch is its symbol `t - SPECIAL_TOKENS`.
    pub fn model(&self) -> &HiddenMarkov {
        &self.model
    }
}

impl MaskedSource for HiddenMarkovSource {
    fn vocab_size(&self) -> usize {
        self.model.symbols() + SPECIAL_TOKENS
    }

    fn shape(&self) -> BatchShape {
        self.shape
    }

    fn rows(&self, step: u64, rows: Range<usize>) -> MaskedBatch {
        let purposes = [Purpose::Training, Purpose::TrainingMask];
        let part = self.shape.part(step, rows);
        draw_batch(&self.model, part, self.seed, purposes)
    }

    fn evaluation(&self) -> &[MaskedBatch] {
        &self.evaluation
    }

    fn floor(&self) -> Option<f64> {
        Some(self.floor)
    }

    fn unigram_loss(&self) -> f64 {
        self.unigram_loss
    }
}

/// The sequences of these numbers from the stream that belongs to the seed and the purposes.
fn draw_batch(
    model: &HiddenMarkov,
    (numbers, shape): (impl Iterator<Item = u64>, BatchShape),
    seed: u64,
    [text, mask]: [Purpose; 2],
) -> MaskedBatch {
    let mut batch = MaskedBatch::with_capacity(shape);
    for number in numbers {
        let mut draws = Draws::new(seed, text, number);
        let sequence = model.sample(shape.seq_len, |probabilities| draws.choice(probabilities));
        let tokens = sequence
            .into_iter()
            .map(|symbol| (symbol + SPECIAL_TOKENS) as i32);
        batch.push_masked(tokens, MASK_TOKEN, &mut Draws::new(seed, mask, number));
    }
    batch
}

/// Mean loss on `batches` of the predictor that knows the model: the posterior of each masked token given the visible
/// ones of its sequence. In expectation nothing is better; on a finite set luck can beat it by about its sampling error.
fn floor(model: &HiddenMarkov, batches: &[MaskedBatch]) -> Result<f64, HiddenMarkovError> {
    let mut probabilities = Vec::new();
    for batch in batches {
        let masked = batch.shape.masked_per_sequence();
        for (sequence, targets) in batch
            .tokens
            .chunks(batch.shape.seq_len)
            .zip(batch.targets.chunks(masked))
        {
            let visible: Vec<_> = sequence
                .iter()
                .map(|&t| (t != MASK_TOKEN).then(|| symbol(t)))
                .collect();
            let posteriors = model.posteriors(&visible)?;
            probabilities.extend(
                posteriors
                    .iter()
                    .zip(targets)
                    .map(|(posterior, &t)| posterior[symbol(t)]),
            );
        }
    }
    Ok(mean_loss(probabilities.into_iter()))
}

/// The symbol that a token stands for.
fn symbol(token: i32) -> usize {
    token as usize - SPECIAL_TOKENS
}

/// Mean negative logarithm; zero for none.
fn mean_loss(probabilities: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = probabilities.fold((0.0, 0u64), |(sum, count), p| (sum - p.ln(), count + 1));
    sum / count.max(1) as f64
}
