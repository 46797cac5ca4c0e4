use mantissa_formats::RandomBits;

/// Draws that are the same in every run: those of sample `stream`.
pub struct Draws {
    bits: RandomBits,
    next: u64,
}

impl Draws {
    /// The draws of one sample.
    pub fn of(sample: u64) -> Self {
        let bits = RandomBits::new(2024, sample);
        Self { bits, next: 0 }
    }

    /// Uniform from `from` to `to`.
    pub fn uniform(&mut self, from: f32, to: f32) -> f32 {
        self.next += 1;
        let share = (self.bits.at(self.next) >> 8) as f32 / (1 << 24) as f32;
        from + share * (to - from)
    }

    /// A whole number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.uniform(0.0, count as f32) as usize).min(count - 1)
    }
}
