use mantissa_kernels::embedding::{embedding, embedding_gradient};

use crate::comparison::{sample, sample_ids};

#[test]
fn rows_are_gathered() {
    for (ids, rows, width) in [(0, 1, 3), (1, 1, 1), (7, 3, 5), (300, 40, 129)] {
        let ids = sample_ids(1, ids, rows);
        let table = sample(2, rows * width, 1.0);
        let mut out = vec![f32::NAN; ids.len() * width];
        embedding(&ids, &table, width, &mut out);
        for (id, row) in ids.iter().zip(out.chunks(width)) {
            assert_eq!(row, &table[*id as usize * width..][..width]);
        }
    }
}

/// The gradient of `Σ grad · table[ids]` is linear in `grad`: nothing but sums, here in the order of the ids.
#[test]
fn gradients_are_added_in_order() {
    for (count, rows, width) in [
        (0, 1, 3),
        (1, 1, 1),
        (7, 3, 5),
        (1000, 40, 129),
        (1000, 500, 129),
    ] {
        let ids = sample_ids(1, count, rows);
        let grad = sample(2, count * width, 1.0);
        let start = sample(3, rows * width, 1.0);
        let mut table = start.clone();
        embedding_gradient(&ids, &grad, width, &mut table);
        let mut expected = start;
        for (id, grad) in ids.iter().zip(grad.chunks(width)) {
            for (sum, x) in expected[*id as usize * width..].iter_mut().zip(grad) {
                *sum += x;
            }
        }
        assert_eq!(table, expected);
    }
}

#[test]
#[should_panic(expected = "id 5 is not a row of a table of 5")]
fn an_id_out_of_range() {
    embedding(&[0, 5], &[0.0; 10], 2, &mut [0.0; 4]);
}

#[test]
#[should_panic(expected = "id -1 is not a row of a table of 5")]
fn a_negative_id() {
    embedding_gradient(&[-1], &[0.0; 2], 2, &mut [0.0; 10]);
}
