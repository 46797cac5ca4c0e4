//! A hidden Markov model and exact inference in it.

use crate::source::BatchShapeError;

/// A hidden Markov model: a chain of states that is not seen, each emitting one symbol that is.
#[derive(Clone, Debug, PartialEq)]
pub struct HiddenMarkov {
    states: usize,
    symbols: usize,
    initial: Vec<f64>,
    transition: Vec<f64>,
    emission: Vec<f64>,
}

/// Why tables are no hidden Markov model, or symbols are none of its sequences.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HiddenMarkovError {
    /// The tables' lengths do not agree, or a table is empty.
    #[error("the {table} table has {length} entries where {expected} are needed")]
    Size {
        /// `initial`, `transition` or `emission`.
        table: &'static str,
        /// Entries given.
        length: usize,
        /// Entries needed.
        expected: usize,
    },
    /// A row is no probability distribution.
    #[error(
        "row {row} of the {table} table is no probability distribution: its entries must be in [0, 1] and sum to 1"
    )]
    Distribution {
        /// `initial`, `transition` or `emission`.
        table: &'static str,
        /// The row.
        row: usize,
    },
    /// A symbol beyond the model's.
    #[error("symbol {symbol} does not exist in a model of {symbols} symbols")]
    Symbol {
        /// The symbol given.
        symbol: usize,
        /// How many there are.
        symbols: usize,
    },
    /// The model cannot emit what is visible.
    #[error("the model emits no sequence whose symbols up to position {0} are these")]
    Impossible(usize),
    /// A configuration that asks for a source that cannot be made.
    #[error("{0}")]
    Config(&'static str),
    /// A shape that no sequence could fill.
    #[error(transparent)]
    Shape(#[from] BatchShapeError),
}

impl HiddenMarkov {
    /// A model from its tables: `initial[s]`, `transition[from * states + to]`, `emission[state * symbols + symbol]`.
    pub fn new(
        symbols: usize,
        initial: Vec<f64>,
        transition: Vec<f64>,
        emission: Vec<f64>,
    ) -> Result<Self, HiddenMarkovError> {
        let states = initial.len();
        check_rows("initial", &initial, states.max(1), 1)?;
        check_rows("transition", &transition, states, states)?;
        check_rows("emission", &emission, symbols.max(1), states)?;
        Ok(Self {
            states,
            symbols,
            initial,
            transition,
            emission,
        })
    }

    /// Number of states.
    pub fn states(&self) -> usize {
        self.states
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        self.symbols
    }

    /// Probability of each first state.
    pub fn initial(&self) -> &[f64] {
        &self.initial
    }

    /// Probabilities of the state after `state`.
    pub fn transition(&self, state: usize) -> &[f64] {
        &self.transition[state * self.states..][..self.states]
    }

    /// Probabilities of the symbol that `state` emits.
    pub fn emission(&self, state: usize) -> &[f64] {
        &self.emission[state * self.symbols..][..self.symbols]
    }

    /// Distribution of the state one step after `distribution`.
    fn advance(&self, distribution: &[f64]) -> Vec<f64> {
        let mut next = vec![0.0; self.states];
        for (from, &mass) in distribution.iter().enumerate() {
            for (to, probability) in next.iter_mut().zip(self.transition(from)) {
                *to += mass * probability;
            }
        }
        next
    }

    /// Distribution of the symbol that a state drawn from `distribution` emits.
    fn emit(&self, distribution: &[f64]) -> Vec<f64> {
        let mut symbols = vec![0.0; self.symbols];
        for (state, &mass) in distribution.iter().enumerate() {
            for (symbol, probability) in symbols.iter_mut().zip(self.emission(state)) {
                *symbol += mass * probability;
            }
        }
        symbols
    }

    /// The same chain begun in the distribution that a long run settles in, so that positions are alike.
    ///
    /// Iterates the lazy chain (half of the mass stays), which settles for periodic chains too.
    pub fn started_stationary(mut self) -> Self {
        let mut distribution = vec![1.0 / self.states as f64; self.states];
        for _ in 0..100_000 {
            let mut next = self.advance(&distribution);
            next.iter_mut()
                .zip(&distribution)
                .for_each(|(n, d)| *n = 0.5 * (*n + d));
            normalize(&mut next);
            let moved: f64 = next
                .iter()
                .zip(&distribution)
                .map(|(n, d)| (n - d).abs())
                .sum();
            distribution = next;
            if moved < 1e-15 {
                break;
            }
        }
        self.initial = distribution;
        self
    }

    /// Distribution of the first symbol; of every symbol, once the chain is [stationary](Self::started_stationary).
    pub fn unigram(&self) -> Vec<f64> {
        self.emit(&self.initial)
    }

    /// Entropy of [`unigram`](Self::unigram) in nats: the loss of the best guess that looks at nothing.
    pub fn unigram_entropy(&self) -> f64 {
        self.unigram()
            .iter()
            .filter(|p| **p > 0.0)
            .map(|p| -p * p.ln())
            .sum()
    }

    /// Draws a sequence; `choose` picks an index from probabilities that sum to one.
    pub fn sample(&self, length: usize, mut choose: impl FnMut(&[f64]) -> usize) -> Vec<usize> {
        let mut sequence = Vec::with_capacity(length);
        let mut state = None;
        while sequence.len() < length {
            let next = choose(state.map_or(&self.initial, |state| self.transition(state)));
            sequence.push(choose(self.emission(next)));
            state = Some(next);
        }
        sequence
    }

    /// For each hidden position (`None`), in order, the distribution of its symbol given every visible one.
    ///
    /// Forward-backward (Rabiner 1989, "A tutorial on hidden Markov models", section III) with each step's vector scaled
    /// to sum to one; a hidden position emits nothing, so its emission factor is 1.
    pub fn posteriors(
        &self,
        sequence: &[Option<usize>],
    ) -> Result<Vec<Vec<f64>>, HiddenMarkovError> {
        if let Some(&symbol) = sequence
            .iter()
            .flatten()
            .find(|&&symbol| symbol >= self.symbols)
        {
            return Err(HiddenMarkovError::Symbol {
                symbol,
                symbols: self.symbols,
            });
        }
        let forward = self.forward(sequence)?;
        let mut backward = vec![1.0; self.states];
        let mut posteriors = Vec::new();
        for (position, &symbol) in sequence.iter().enumerate().rev() {
            if symbol.is_none() {
                let mut state: Vec<f64> = forward[position]
                    .iter()
                    .zip(&backward)
                    .map(|(f, b)| f * b)
                    .collect();
                normalize(&mut state);
                posteriors.push(self.emit(&state));
            }
            self.weigh(&mut backward, symbol);
            backward = (0..self.states)
                .map(|state| {
                    self.transition(state)
                        .iter()
                        .zip(&backward)
                        .map(|(t, b)| t * b)
                        .sum()
                })
                .collect();
            normalize(&mut backward);
        }
        posteriors.reverse();
        Ok(posteriors)
    }

    /// Distribution of the state at each position given the symbols up to and including it.
    fn forward(&self, sequence: &[Option<usize>]) -> Result<Vec<Vec<f64>>, HiddenMarkovError> {
        let mut forward: Vec<Vec<f64>> = Vec::with_capacity(sequence.len());
        for (position, &symbol) in sequence.iter().enumerate() {
            let mut state = forward
                .last()
                .map_or_else(|| self.initial.clone(), |last| self.advance(last));
            self.weigh(&mut state, symbol);
            if !normalize(&mut state) {
                return Err(HiddenMarkovError::Impossible(position));
            }
            forward.push(state);
        }
        Ok(forward)
    }

    /// Multiplies each state's weight by the probability that it emits the visible symbol.
    fn weigh(&self, weights: &mut [f64], symbol: Option<usize>) {
        if let Some(symbol) = symbol {
            for (state, weight) in weights.iter_mut().enumerate() {
                *weight *= self.emission(state)[symbol];
            }
        }
    }
}

/// Scales to a sum of one; `false` where there is nothing to scale.
fn normalize(weights: &mut [f64]) -> bool {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    sum > 0.0
}

/// Refuses a table that is not `rows` probability distributions over `width` outcomes.
fn check_rows(
    table: &'static str,
    values: &[f64],
    width: usize,
    rows: usize,
) -> Result<(), HiddenMarkovError> {
    if values.len() != width * rows {
        return Err(HiddenMarkovError::Size {
            table,
            length: values.len(),
            expected: width * rows,
        });
    }
    let bad = values.chunks(width).position(|row| {
        let sum: f64 = row.iter().sum();
        row.iter().any(|p| !(0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 1e-9
    });
    bad.map_or(Ok(()), |row| {
        Err(HiddenMarkovError::Distribution { table, row })
    })
}
