//! How recurrent layers go through time.

use burn::tensor::{Tensor, s};

/// `tensor` with the batch first inside a layer, or as it was outside of it: its first two axes swapped unless `batch_first`.
pub(super) fn swapped_unless(batch_first: bool, tensor: Tensor<3>) -> Tensor<3> {
    if batch_first {
        tensor
    } else {
        tensor.swap_dims(0, 1)
    }
}

/// The hidden states of all time steps of `input`, and the one after the last, of a layer whose only state is hidden. `step` makes
/// a state from a step's input and the state before.
///
/// # Shapes
/// - input: `[batch_size, seq_length, d_input]`
/// - hidden: `[batch_size, d_hidden]`
/// - output: `[batch_size, seq_length, d_hidden]`
pub(super) fn over_time(
    input: Tensor<3>,
    mut hidden: Tensor<2>,
    reverse: bool,
    step: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> (Tensor<3>, Tensor<2>) {
    let [batch_size, seq_length, _] = input.dims();
    let [_, d_hidden] = hidden.dims();
    let mut output = Tensor::empty([batch_size, seq_length, d_hidden], &input.device());
    let mut steps: Vec<(usize, Tensor<3>)> = input.iter_dim(1).enumerate().collect();
    if reverse {
        steps.reverse();
    }
    for (time, input) in steps {
        hidden = step(input.squeeze_dim(1), hidden);
        let hidden = hidden.clone().unsqueeze_dim(1);
        output = output.slice_assign(s![.., time, ..], hidden);
    }
    (output, hidden)
}

/// What two layers that read `input` in opposite directions make of it: their outputs side by side, and their final states.
pub(super) fn both_ways<S>(
    batch_first: bool,
    input: Tensor<3>,
    ahead: impl FnOnce(Tensor<3>) -> (Tensor<3>, S),
    back: impl FnOnce(Tensor<3>) -> (Tensor<3>, S),
) -> (Tensor<3>, Vec<S>) {
    let input = swapped_unless(batch_first, input);
    let (ahead, ahead_state) = ahead(input.clone());
    let (back, back_state) = back(input);
    let output = swapped_unless(batch_first, Tensor::cat(vec![ahead, back], 2));
    (output, vec![ahead_state, back_state])
}
