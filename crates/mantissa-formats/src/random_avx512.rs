//! Philox on AVX-512, several counters at once.
//!
//! A round waits seven cycles for its multiplication, shift and exclusive or, and a processor looks ahead by too few instructions
//! to find other work by itself: so the rounds of independent counters alternate in the code.

use std::arch::x86_64::__m512i;

use pulp::bytemuck::cast;
use pulp::x86::V4;

use crate::random::{BLOCK, KEY_STEPS, LANES, MULTIPLIERS, PAIR, ROUNDS};

/// Counters of 64-bit lanes: the four words of eight of them, each in the lower half of its lane.
type State = [__m512i; 4];

/// The random bits of two blocks whose counters begin with these words.
#[inline(always)]
pub(crate) fn two_blocks(
    v: V4,
    first_counters: [[u32; 4]; 2],
    key: [u32; 2],
) -> [[u32; BLOCK]; PAIR] {
    let f = v.avx512f;
    let evens: __m512i = cast([0u64, 2, 4, 6, 8, 10, 12, 14]);
    let odds: __m512i = cast([1u64, 3, 5, 7, 9, 11, 13, 15]);
    let state = |block: usize, lanes: __m512i| -> State {
        let words = first_counters[block].map(|word| f._mm512_set1_epi64(i64::from(word)));
        [
            f._mm512_or_si512(words[0], lanes),
            words[1],
            words[2],
            words[3],
        ]
    };
    let mut states = [
        state(0, evens),
        state(0, odds),
        state(1, evens),
        state(1, odds),
    ];
    let [even_multiplier, odd_multiplier] =
        MULTIPLIERS.map(|multiplier| f._mm512_set1_epi64(i64::from(multiplier)));
    let mut key = key;
    for _ in 0..ROUNDS {
        let keys = key.map(|word| f._mm512_set1_epi64(i64::from(word)));
        for state in &mut states {
            let even = f._mm512_mul_epu32(even_multiplier, state[0]);
            let odd = f._mm512_mul_epu32(odd_multiplier, state[2]);
            // The truth table of the exclusive or of three.
            const XOR: i32 = 0x96;
            let upper = f._mm512_srli_epi64::<32>(odd);
            let first = f._mm512_ternarylogic_epi64::<XOR>(upper, state[1], keys[0]);
            let upper = f._mm512_srli_epi64::<32>(even);
            let third = f._mm512_ternarylogic_epi64::<XOR>(upper, state[3], keys[1]);
            *state = [first, odd, third, even];
        }
        key = [
            key[0].wrapping_add(KEY_STEPS[0]),
            key[1].wrapping_add(KEY_STEPS[1]),
        ];
    }
    let mut blocks = [[0; BLOCK]; PAIR];
    for (block, states) in blocks.iter_mut().zip(states.as_chunks::<2>().0) {
        for (word, bits) in block.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // The lower halves of the odd lanes moved up beside those of the even lanes.
            const TO_UPPER: i32 = 0b10_10_00_00;
            const UPPER: u16 = 0b1010_1010_1010_1010;
            let [even, odd] = [states[0][word], states[1][word]];
            *bits = cast(f._mm512_mask_shuffle_epi32::<TO_UPPER>(even, UPPER, odd));
        }
    }
    blocks
}
