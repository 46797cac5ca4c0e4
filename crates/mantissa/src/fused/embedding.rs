use burn::tensor::{Int, Tensor};
use mantissa_kernels::embedding::{embedding as gather, embedding_gradient};

use crate::buffer::Buffer;
use crate::flex_tensor::{contiguous, elements, shape};
use crate::operation::{Gradient, Operation, Outcome};
use crate::product::stored_gradient;
use crate::session::SiteUse;
use crate::storage::widened_flex;

/// Rows of a table `[rows, width]`, of a site if it is the site's own; keeps the ids only.
///
/// # Panics
/// If an id is no row of the table.
pub(crate) fn embedding(table: Tensor<2>, site: Option<SiteUse>, ids: Tensor<2, Int>) -> Tensor<3> {
    let [batch_size, seq_length] = ids.dims();
    let ids: Vec<i32> = ids.into_data().iter::<i32>().collect();
    Operation::new("embedding", move |inputs, wanted| {
        let table = inputs.into_iter().map(widened_flex).map(contiguous).next();
        let Some(table) = table else {
            unreachable!("one table")
        };
        let [rows, width] = shape(&table)[..] else {
            unreachable!("a table has two axes")
        };
        let mut out = Buffer::new(ids.len() * width);
        gather(&ids, elements(&table), width, &mut out);
        let gradient = wanted.contains(&true).then(|| -> Gradient {
            let (ids, site) = (ids.clone(), site.clone());
            Box::new(move |grad| {
                let grad = contiguous(grad);
                let mut grad_table = Buffer::zeros(rows * width);
                embedding_gradient(&ids, elements(&grad), width, &mut grad_table);
                let grad_table = grad_table.into_tensor(&[rows, width]);
                vec![Some(match &site {
                    Some(site) => stored_gradient(site, grad_table),
                    None => grad_table,
                })]
            })
        });
        Outcome {
            result: out.into_tensor(&[batch_size, seq_length, width]),
            gradient,
        }
    })
    .apply(vec![table.into()])
}
