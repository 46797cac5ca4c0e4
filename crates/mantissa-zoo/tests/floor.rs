//! The floor is what it says: exact inference, checked against enumeration, and the best that the visible tokens allow.

use mantissa_zoo::{
    BatchShape, HiddenMarkov, HiddenMarkovConfig, HiddenMarkovError, HiddenMarkovSource,
    MASK_TOKEN, MaskedSource, SPECIAL_TOKENS,
};

const SHAPE: BatchShape = BatchShape {
    batch_size: 8,
    seq_len: 32,
};

fn tiny() -> HiddenMarkov {
    HiddenMarkov::new(
        4,
        vec![0.5, 0.3, 0.2],
        vec![0.7, 0.3, 0.0, 0.1, 0.2, 0.7, 0.5, 0.0, 0.5],
        vec![0.4, 0.3, 0.2, 0.1, 0.0, 0.5, 0.0, 0.5, 0.1, 0.0, 0.8, 0.1],
    )
    .expect("valid tables")
}

/// Probability of a whole sequence of symbols, summed over every sequence of states.
fn probability(model: &HiddenMarkov, symbols: &[usize]) -> f64 {
    let states = model.states();
    let paths = states.pow(symbols.len() as u32);
    let path_probability = |mut path: usize| {
        let mut previous = None;
        symbols.iter().fold(1.0, |product, &symbol| {
            let state = path % states;
            path /= states;
            let step = previous.map_or(model.initial()[state], |p| model.transition(p)[state]);
            previous = Some(state);
            product * step * model.emission(state)[symbol]
        })
    };
    (0..paths).map(path_probability).sum()
}

#[test]
fn posteriors_equal_enumeration() {
    let model = tiny();
    let cases: [&[Option<usize>]; 4] = [
        &[Some(0), None, Some(3), None, Some(2)],
        &[None, None, None, None],
        &[None, Some(1), Some(2), Some(2), None],
        &[Some(3), None, None, Some(1), Some(0)],
    ];
    for case in cases {
        let hidden: Vec<usize> = (0..case.len()).filter(|&i| case[i].is_none()).collect();
        let mut joint = vec![vec![0.0; model.symbols()]; hidden.len()];
        for mut filling in 0..model.symbols().pow(hidden.len() as u32) {
            let mut symbols: Vec<usize> = case.iter().map(|s| s.unwrap_or(0)).collect();
            for &place in &hidden {
                symbols[place] = filling % model.symbols();
                filling /= model.symbols();
            }
            let p = probability(&model, &symbols);
            hidden
                .iter()
                .zip(&mut joint)
                .for_each(|(&place, row)| row[symbols[place]] += p);
        }
        let posteriors = model.posteriors(case).expect("possible");
        assert_eq!(posteriors.len(), hidden.len());
        for (posterior, row) in posteriors.iter().zip(&joint) {
            let total: f64 = row.iter().sum();
            for (a, b) in posterior.iter().zip(row) {
                assert!(
                    (a - b / total).abs() < 1e-12,
                    "{a} where enumeration gives {}",
                    b / total
                );
            }
        }
    }
}

#[test]
fn long_sequences_do_not_underflow() {
    let model = HiddenMarkovConfig::default().model().expect("valid");
    let mut sequence = vec![Some(3); 20_000];
    sequence[10_000] = None;
    let posterior = &model.posteriors(&sequence).expect("possible")[0];
    assert!((posterior.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn bad_tables_and_impossible_sequences_are_errors() {
    let bad = HiddenMarkov::new(1, vec![0.5, 0.4], vec![0.5; 4], vec![1.0; 2]);
    assert!(matches!(
        bad,
        Err(HiddenMarkovError::Distribution {
            table: "initial",
            row: 0
        })
    ));
    let bad = HiddenMarkov::new(1, vec![0.5, 0.5], vec![0.5; 3], vec![1.0; 2]);
    assert!(matches!(
        bad,
        Err(HiddenMarkovError::Size {
            table: "transition",
            length: 3,
            expected: 4
        })
    ));
    let bad = HiddenMarkov::new(
        1,
        vec![0.5, 0.5],
        vec![f64::NAN, 1.0, 0.5, 0.5],
        vec![1.0; 2],
    );
    assert!(matches!(
        bad,
        Err(HiddenMarkovError::Distribution {
            table: "transition",
            row: 0
        })
    ));
    let never = HiddenMarkov::new(2, vec![1.0], vec![1.0], vec![1.0, 0.0]).expect("valid");
    assert_eq!(
        never.posteriors(&[Some(0), Some(1)]),
        Err(HiddenMarkovError::Impossible(1))
    );
    assert_eq!(
        never.posteriors(&[Some(2)]),
        Err(HiddenMarkovError::Symbol {
            symbol: 2,
            symbols: 2
        })
    );
    let config = HiddenMarkovConfig {
        symbols_per_state: 99,
        ..HiddenMarkovConfig::default()
    };
    assert!(matches!(config.model(), Err(HiddenMarkovError::Config(_))));
}

#[test]
fn stationary_distribution_is_reproduced_by_advancing_and_by_sampling() {
    let model = HiddenMarkovConfig::default().model().expect("valid");
    for to in 0..model.states() {
        let after: f64 = (0..model.states())
            .map(|from| model.initial()[from] * model.transition(from)[to])
            .sum();
        assert!((after - model.initial()[to]).abs() < 1e-12);
    }
    // Sequences are independent, so their per-sequence counts give the standard error.
    let source =
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 1, 5).expect("valid");
    let mut rows = Vec::new();
    for step in 0..1000 {
        let mut batch = source.batch(step);
        for (&position, &target) in batch.positions.iter().zip(&batch.targets) {
            batch.tokens[position as usize] = target;
        }
        for sequence in batch.tokens.chunks(SHAPE.seq_len) {
            let mut counts = vec![0.0; model.symbols()];
            sequence
                .iter()
                .for_each(|&t| counts[t as usize - SPECIAL_TOKENS] += 1.0 / SHAPE.seq_len as f64);
            rows.push(counts);
        }
    }
    let unigram = model.unigram();
    for symbol in 0..model.symbols() {
        let n = rows.len() as f64;
        let mean = rows.iter().map(|row| row[symbol]).sum::<f64>() / n;
        let variance = rows
            .iter()
            .map(|row| (row[symbol] - mean).powi(2))
            .sum::<f64>()
            / (n - 1.0);
        let z = (mean - unigram[symbol]) / (variance / n).sqrt();
        assert!(
            z.abs() < 4.5,
            "symbol {symbol}: {mean} where {} is expected",
            unigram[symbol]
        );
    }
}

#[test]
fn floor_lies_between_zero_and_the_unigram_loss() {
    let source =
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 32, 0).expect("valid");
    let (floor, unigram) = (source.floor().expect("known"), source.unigram_loss());
    assert!(
        floor > 0.5 && floor < 0.75 * unigram,
        "floor {floor}, unigram {unigram}"
    );
    assert!((unigram - source.model().unigram_entropy()).abs() < 0.1);
}

#[test]
fn floor_is_calibrated() {
    // The loss of a calibrated predictor equals the mean entropy of its predictions, up to sampling.
    let source =
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 64, 0).expect("valid");
    let (mut entropy, mut square, mut count) = (0.0, 0.0, 0.0);
    for batch in source.evaluation() {
        for (row, sequence) in batch.tokens.chunks(SHAPE.seq_len).enumerate() {
            let visible: Vec<_> = sequence
                .iter()
                .map(|&t| (t != MASK_TOKEN).then(|| t as usize - SPECIAL_TOKENS))
                .collect();
            let masked = SHAPE.masked_per_sequence();
            let targets = &batch.targets[row * masked..][..masked];
            for (posterior, &target) in source
                .model()
                .posteriors(&visible)
                .expect("possible")
                .iter()
                .zip(targets)
            {
                let surprise = -posterior[target as usize - SPECIAL_TOKENS].ln();
                let expected: f64 = posterior
                    .iter()
                    .filter(|p| **p > 0.0)
                    .map(|p| -p * p.ln())
                    .sum();
                entropy += expected;
                square += (surprise - expected).powi(2);
                count += 1.0;
            }
        }
    }
    let error = f64::sqrt(square) / count;
    let floor = source.floor().expect("known");
    assert!(
        (floor - entropy / count).abs() < 4.0 * error,
        "{floor} against {} +- {error}",
        entropy / count
    );
}

#[test]
fn far_neighbours_matter() {
    // Seeing only the two tokens beside a masked one leaves a good part of what the whole sequence tells.
    let source =
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 16, 0).expect("valid");
    let (mut near, mut count) = (0.0, 0.0);
    for batch in source.evaluation() {
        for (&position, &target) in batch.positions.iter().zip(&batch.targets) {
            let (row, place) = (
                position as usize / SHAPE.seq_len,
                position as usize % SHAPE.seq_len,
            );
            let sequence = &batch.tokens[row * SHAPE.seq_len..][..SHAPE.seq_len];
            let window = place.saturating_sub(1)..(place + 2).min(SHAPE.seq_len);
            let visible: Vec<_> = window
                .clone()
                .map(|i| (sequence[i] != MASK_TOKEN).then(|| sequence[i] as usize - SPECIAL_TOKENS))
                .collect();
            let hidden_before = (window.start..place)
                .filter(|&i| sequence[i] == MASK_TOKEN)
                .count();
            let posterior = &source.model().posteriors(&visible).expect("possible")[hidden_before];
            near -= posterior[target as usize - SPECIAL_TOKENS].ln();
            count += 1.0;
        }
    }
    let (near, floor) = (near / count, source.floor().expect("known"));
    assert!(
        near > floor + 0.15,
        "two neighbours give {near}, all give {floor}"
    );
}

#[test]
fn batches_are_a_pure_function_of_seed_and_step() {
    let make = |seed| {
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 2, seed).expect("valid")
    };
    let (one, again, other) = (make(1), make(1), make(2));
    let forward: Vec<_> = (0..10).map(|step| one.batch(step)).collect();
    for step in (0..10).rev() {
        assert_eq!(again.batch(step), forward[step as usize]);
        assert_ne!(other.batch(step), forward[step as usize]);
    }
    assert_ne!(forward[0], forward[1]);
    assert_eq!(one.evaluation(), other.evaluation());
}

#[test]
fn each_sequence_hides_the_same_number_of_tokens() {
    let source =
        HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 1, 3).expect("valid");
    let mut at = vec![0u32; SHAPE.seq_len];
    for step in 0..500 {
        let batch = source.batch(step);
        assert_eq!(batch.positions.len(), SHAPE.batch_size * 5);
        assert!(batch.positions.is_sorted_by(|a, b| a < b));
        for (index, &position) in batch.positions.iter().enumerate() {
            assert_eq!(position as usize / SHAPE.seq_len, index / 5);
            assert_eq!(batch.tokens[position as usize], MASK_TOKEN);
            at[position as usize % SHAPE.seq_len] += 1;
        }
        assert_eq!(
            batch.tokens.iter().filter(|&&t| t == MASK_TOKEN).count(),
            batch.positions.len()
        );
        assert!(batch.targets.iter().all(|&t| t >= SPECIAL_TOKENS as i32));
    }
    // 4000 draws of 5 in 32: a place is hidden 625 times, give or take 4.5 standard deviations of 23.
    assert!(at.iter().all(|&count| count.abs_diff(625) < 104), "{at:?}");
}
