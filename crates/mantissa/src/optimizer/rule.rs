//! The update rules: what they remember of a parameter, and one step of each.

use mantissa_formats::RandomBits;
use mantissa_kernels::optimizer::{
    Adafactor, AdafactorMoments, AdafactorSettings, Adam, Lamb, Momentum, Sgd, WeightDecay,
};
use mantissa_kernels::state::{Moment, StateBuffer, StateFormat, StateFormats};

use super::config::{AdafactorConfig, AdamConfig, AdamWConfig, LambConfig, SgdConfig, penalty};
use super::groups::Member;
use super::state::ParameterState;

/// A rule for updating parameters in place.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    AdamW(AdamWConfig),
    Adam(AdamConfig),
    Sgd(SgdConfig),
    Lamb(LambConfig),
    Adafactor(AdafactorConfig),
}

/// Something that a rule remembers of a parameter, zero at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    /// Its name in records.
    pub(super) name: &'static str,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// As long as the parameter.
    Whole(Moment),
    /// Of the rows or columns of the matrices in the last two axes.
    Rows,
    Columns,
}

const FIRST: Buffer = Buffer {
    name: "first_moment",
    role: Role::Whole(Moment::First),
};
const SECOND: Buffer = Buffer {
    name: "second_moment",
    role: Role::Whole(Moment::Second),
};
const VELOCITY: Buffer = Buffer {
    name: "velocity",
    role: Role::Whole(Moment::First),
};
const ROWS: Buffer = Buffer {
    name: "row_moments",
    role: Role::Rows,
};
const COLUMNS: Buffer = Buffer {
    name: "column_moments",
    role: Role::Columns,
};

impl Buffer {
    /// Which moment it is of.
    pub(super) fn moment(&self) -> Moment {
        match self.role {
            Role::Whole(moment) => moment,
            Role::Rows | Role::Columns => Moment::Second,
        }
    }

    /// Whether it is as long as its parameter.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.role, Role::Whole(_))
    }

    /// Its format, where moments have `formats`.
    pub(super) fn format(&self, formats: StateFormats) -> StateFormat {
        match self.role {
            Role::Whole(Moment::First) => formats.first,
            Role::Whole(Moment::Second) => formats.second,
            Role::Rows | Role::Columns => StateFormat::FP32,
        }
    }

    /// Its elements, for a parameter of this shape.
    pub(super) fn len(&self, shape: &[usize]) -> usize {
        let without = |axis: usize| {
            let others = shape.iter().enumerate().filter(|(at, _)| *at != axis);
            others.map(|(_, len)| len).product()
        };
        match self.role {
            Role::Whole(_) => shape.iter().product(),
            Role::Rows => without(shape.len() - 1),
            Role::Columns => without(shape.len() - 2),
        }
    }
}

/// A step of one parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) learning_rate: f64,
    /// What gradients are multiplied with.
    pub(super) gradient_factor: f32,
    /// The seed of stochastic rounding.
    pub(super) seed: u64,
}

impl Rule {
    /// Its name in records.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Adam(_) => "adam",
            Self::Sgd(_) => "sgd",
            Self::Lamb(_) => "lamb",
            Self::Adafactor(_) => "adafactor",
        }
    }

    /// What it may remember of a parameter: the alternatives.
    pub(super) fn layouts(&self) -> &'static [&'static [Buffer]] {
        match self {
            Self::AdamW(_) | Self::Adam(_) | Self::Lamb(_) => &[&[FIRST, SECOND]],
            Self::Sgd(SgdConfig {
                momentum: Some(_), ..
            }) => &[&[VELOCITY]],
            Self::Sgd(_) => &[&[]],
            Self::Adafactor(_) => &[&[SECOND], &[ROWS, COLUMNS]],
        }
    }

    /// What it remembers of a parameter of this shape.
    pub(super) fn buffers(&self, shape: &[usize]) -> &'static [Buffer] {
        match (self, self.layouts()) {
            (Self::Adafactor(_), [_, factored]) if shape.len() >= 2 => factored,
            (_, layouts) => layouts[0],
        }
    }

    /// Panics on settings that no step can be taken with.
    pub(super) fn check(&self) {
        self.adam(Member::PLAIN, 0.0, 1);
        self.lamb(Member::PLAIN, 0.0, 1);
        self.adafactor(Member::PLAIN, 0.0, 1);
    }

    /// Takes the next step of a parameter of this shape, and leaves something in `gradients`. `state` has the rule's buffers.
    pub(super) fn update(
        &self,
        turn: &Turn,
        member: &Member,
        shape: &[usize],
        gradients: &mut [f32],
        parameters: &mut [f32],
        state: &mut ParameterState,
    ) {
        state.steps += 1;
        let step = state.steps;
        let learning_rate = turn.learning_rate * member.learning_rate_factor;
        let factor = turn.gradient_factor;
        let random = |buffer: Buffer| member.random(turn.seed, step, buffer.name);
        let buffers = state.buffers.as_mut_slice();
        if let [first, second] = buffers
            && let Some(adam) = self.adam(member, learning_rate, step)
        {
            let moments = [first.view(random(FIRST)), second.view(random(SECOND))];
            adam.update(factor, gradients, parameters, moments);
        } else if let [first, second] = buffers
            && let Some(lamb) = self.lamb(member, learning_rate, step)
        {
            let moments = [first.view(random(FIRST)), second.view(random(SECOND))];
            lamb.update(factor, gradients, parameters, moments);
        } else if let Some(adafactor) = self.adafactor(member, learning_rate, step) {
            let moments = match buffers {
                [rows, columns] => AdafactorMoments::Factored {
                    columns: shape.last().copied().unwrap_or(1),
                    row_moments: rows.as_f32_mut(),
                    column_moments: columns.as_f32_mut(),
                },
                [second] => AdafactorMoments::Whole(second.view(random(SECOND))),
                _ => unreachable!("the rule's buffers"),
            };
            adafactor.update(factor, gradients, parameters, moments);
        } else if let Self::Sgd(config) = self {
            let momentum = config.momentum.as_ref().map(|of| Momentum {
                momentum: of.momentum,
                dampening: of.dampening,
                nesterov: of.nesterov,
            });
            let mut none = StateBuffer::zeros(StateFormat::FP32, Moment::First, 0);
            let velocity = match buffers {
                [velocity] => velocity.view(random(VELOCITY)),
                _ => none.view(RandomBits::NONE),
            };
            let penalty = member.weight_decay.unwrap_or(penalty(&config.weight_decay));
            Sgd::new(penalty, momentum, learning_rate, step)
                .update(factor, gradients, parameters, velocity);
        }
    }

    fn adam(&self, member: &Member, learning_rate: f64, step: u64) -> Option<Adam> {
        let own = member.weight_decay;
        let (betas, epsilon, decay) = match self {
            Self::AdamW(config) => (
                [config.beta_1, config.beta_2],
                config.epsilon,
                WeightDecay::Decoupled(own.unwrap_or(config.weight_decay)),
            ),
            Self::Adam(config) => (
                [config.beta_1, config.beta_2],
                config.epsilon,
                WeightDecay::L2(own.unwrap_or(penalty(&config.weight_decay))),
            ),
            _ => return None,
        };
        Some(Adam::new(betas, epsilon, decay, learning_rate, step))
    }

    fn lamb(&self, member: &Member, learning_rate: f64, step: u64) -> Option<Lamb> {
        let Self::Lamb(config) = self else {
            return None;
        };
        Some(Lamb::new(
            [config.beta_1, config.beta_2],
            config.epsilon,
            member.weight_decay.unwrap_or(config.weight_decay),
            config.use_trust_ratio,
            learning_rate,
            step,
        ))
    }

    fn adafactor(&self, member: &Member, learning_rate: f64, step: u64) -> Option<Adafactor> {
        let Self::Adafactor(config) = self else {
            return None;
        };
        let settings = AdafactorSettings {
            epsilon_1: config.epsilon_1,
            epsilon_2: config.epsilon_2,
            clip_threshold: config.clip_threshold,
            decay_rate: config.decay_rate,
            relative_step: config.relative_step,
            scale_parameter: config.scale_parameter,
            weight_decay: member.weight_decay.unwrap_or(config.weight_decay),
        };
        Some(Adafactor::new(settings, learning_rate, step))
    }
}
