//! Recurrent and gated layers are Burn's outside an autocast and under `fp32` with Burn's kernels, bit for bit; under quantized
//! numerics they equal a reference that quantizes with the scalar codec and does everything else in f64.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::activation::ActivationConfig;
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor, TensorData};
use mantissa::plan::{PassNumerics, Plan, Recipe, SiteNumerics};
use mantissa::{Kernels, Session, nn};

mod reference;

use reference::{Matrices, product};

const BATCH: usize = 3;
const TIME: usize = 4;
const INPUT: usize = 5;
const HIDDEN: usize = 6;

fn device() -> Device {
    Device::flex().autodiff()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device())
}

/// Numbers of both signs that no two elements share.
fn upstream<const D: usize>(output: &Tensor<D>) -> Tensor<D> {
    let shape = output.shape();
    let count = Tensor::<1, Int>::arange(1..shape.num_elements() as i64 + 1, &device());
    count.float().sin().reshape::<D, _>(shape)
}

/// All outputs and the gradients of the input and every parameter.
fn run<M: Module>(
    layer: &M,
    input: &Tensor<3>,
    forward: impl Fn(&M, Tensor<3>) -> Vec<Tensor<3>>,
) -> Vec<Vec<f32>> {
    struct Collector<'a>(&'a Gradients, Vec<Vec<f32>>);
    impl ModuleVisitor for Collector<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(values(param.val().grad(self.0).unwrap()));
        }
    }
    let input = input.clone().detach().require_grad();
    let outputs = forward(layer, input.clone());
    let losses = outputs.iter().map(|y| (y.clone() * upstream(y)).sum());
    let gradients = losses.reduce(|a, b| a + b).unwrap().backward();
    let mut collected = outputs.into_iter().map(values).collect::<Vec<_>>();
    collected.push(values(input.grad(&gradients).unwrap()));
    let mut collector = Collector(&gradients, collected);
    layer.visit(&mut collector);
    collector.1
}

fn bits(tensors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let bits = |tensor: &Vec<f32>| tensor.iter().map(|x| x.to_bits()).collect();
    tensors.iter().map(bits).collect()
}

fn assert_close(what: &str, actual: &[Vec<f32>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (tensor, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(actual.len(), expected.len(), "{what}, tensor {tensor}");
        let amax = expected.iter().fold(0.0_f64, |amax, x| amax.max(x.abs()));
        for (a, e) in actual.iter().zip(expected) {
            assert!(
                (f64::from(*a) - e).abs() <= tolerance * amax,
                "{what}, tensor {tensor}: {a} instead of {e}, of {amax}"
            );
        }
    }
}

fn session<M: Module>(layer: &M, numerics: SiteNumerics) -> Session {
    let recipe = Recipe::preset("fp32").unwrap();
    let mut plan = Plan::from_recipe(&recipe, &mantissa::sites(layer)).unwrap();
    for site in &mut plan.sites {
        site.numerics = numerics;
    }
    Session::bind(layer, &plan, 5).unwrap()
}

/// What a layer of `config` must share with Burn's.
macro_rules! check {
    ($config:expr, $layer:ty, $forward:expr) => {{
        let what = stringify!($config).split_whitespace().collect::<String>();
        let plain = $config.init(&device());
        let mixed = <$layer>::from(plain.clone());
        assert_eq!(plain.to_string(), mixed.to_string());
        let input = random([BATCH, TIME, INPUT]);
        let expected = run(&plain, &input, $forward);
        let outside = run(&mixed, &input, $forward);
        assert!(
            bits(&outside) == bits(&expected),
            "{what} outside an autocast"
        );

        let session = session(&mixed, SiteNumerics::FP32);
        session.set_kernels(Kernels::Burn);
        let burns = session.autocast(|| run(&mixed, &input, $forward));
        assert!(
            bits(&burns) == bits(&expected),
            "{what} with Burn's kernels"
        );
        assert!(session.idle_sites().is_empty());
        session.set_kernels(Kernels::Fused);
        let fused = session.autocast(|| run(&mixed, &input, $forward));
        let exact = |tensor: &Vec<f32>| tensor.iter().copied().map(f64::from).collect();
        let expected: Vec<Vec<f64>> = expected.iter().map(exact).collect();
        assert_close(&what, &fused, &expected, 1e-5);

        let loaded = $config
            .init(&device())
            .load_record(mixed.clone().into_record());
        assert!(
            bits(&run(&loaded, &input, $forward)) == bits(&outside),
            "{what} loaded"
        );
        let loaded = <$layer>::from($config.init(&device())).load_record(plain.into_record());
        assert!(
            bits(&run(&loaded, &input, $forward)) == bits(&outside),
            "{what} loaded"
        );
    }};
}

#[test]
fn lstms_are_burns() {
    use burn::nn::LstmConfig;
    check!(LstmConfig::new(INPUT, HIDDEN, true), nn::Lstm, |l, x| {
        let (output, state) = l.forward(x, None);
        vec![output, state.cell.unsqueeze(), state.hidden.unsqueeze()]
    });
    check!(
        LstmConfig::new(INPUT, HIDDEN, false)
            .with_batch_first(false)
            .with_reverse(true)
            .with_input_forget(true)
            .with_clip(Some(0.1))
            .with_cell_activation(ActivationConfig::Relu),
        nn::Lstm,
        |l, x| {
            let cell = Tensor::full([TIME, HIDDEN], 0.25, &device());
            let state = nn::LstmState::new(cell.clone(), cell.neg());
            let (output, state) = l.forward(x, Some(state));
            vec![output, state.cell.unsqueeze(), state.hidden.unsqueeze()]
        }
    );
}

#[test]
fn lstms_in_both_directions_are_burns() {
    use burn::nn::BiLstmConfig;
    check!(
        BiLstmConfig::new(INPUT, HIDDEN, true),
        nn::BiLstm,
        |l, x| {
            let (output, state) = l.forward(x, None);
            vec![output, state.cell, state.hidden]
        }
    );
    check!(
        BiLstmConfig::new(INPUT, HIDDEN, true).with_batch_first(false),
        nn::BiLstm,
        |l, x| {
            let cell = upstream(&Tensor::zeros([2, TIME, HIDDEN], &device()));
            let state = nn::LstmState::new(cell.clone(), cell.neg());
            let (output, state) = l.forward(x, Some(state));
            vec![output, state.cell, state.hidden]
        }
    );
}

#[test]
fn grus_are_burns() {
    use burn::nn::{BiGruConfig, GruConfig};
    check!(GruConfig::new(INPUT, HIDDEN, true), nn::Gru, |l, x| vec![
        l.forward(x, None)
    ]);
    check!(
        GruConfig::new(INPUT, HIDDEN, false)
            .with_reset_after(false)
            .with_clip(Some(0.3)),
        nn::Gru,
        |l, x| {
            let state = upstream(&Tensor::zeros([BATCH, HIDDEN], &device()));
            vec![l.forward(x, Some(state))]
        }
    );
    check!(BiGruConfig::new(INPUT, HIDDEN, true), nn::BiGru, |l, x| {
        let (output, state) = l.forward(x, None);
        vec![output, state]
    });
    check!(
        BiGruConfig::new(INPUT, HIDDEN, true).with_batch_first(false),
        nn::BiGru,
        |l, x| {
            let state = upstream(&Tensor::zeros([2, TIME, HIDDEN], &device()));
            let (output, state) = l.forward(x, Some(state));
            vec![output, state]
        }
    );
}

#[test]
fn plain_recurrent_layers_are_burns() {
    use burn::nn::{BiRnnConfig, RnnConfig};
    check!(RnnConfig::new(INPUT, HIDDEN, true), nn::Rnn, |l, x| {
        let (output, state) = l.forward(x, None);
        vec![output, state.hidden.unsqueeze()]
    });
    check!(
        RnnConfig::new(INPUT, HIDDEN, false)
            .with_batch_first(false)
            .with_reverse(true)
            .with_clip(Some(0.1))
            .with_hidden_activation(ActivationConfig::Relu),
        nn::Rnn,
        |l, x| {
            let state = upstream(&Tensor::zeros([TIME, HIDDEN], &device()));
            let (output, state) = l.forward(x, Some(nn::RnnState::new(state)));
            vec![output, state.hidden.unsqueeze()]
        }
    );
    check!(
        BiRnnConfig::new(INPUT, HIDDEN, true).with_batch_first(false),
        nn::BiRnn,
        |l, x| {
            let state = upstream(&Tensor::zeros([2, TIME, HIDDEN], &device()));
            let (output, state) = l.forward(x, Some(nn::RnnState::new(state)));
            vec![output, state.hidden]
        }
    );
}

#[test]
fn gated_linear_units_are_burns() {
    use burn::nn::SwiGluConfig;
    check!(SwiGluConfig::new(INPUT, HIDDEN), nn::SwiGlu, |l, x| vec![
        l.forward(x)
    ]);
    check!(
        SwiGluConfig::new(INPUT, HIDDEN).with_bias(true),
        nn::SwiGlu,
        |l, x| vec![l.forward(x)]
    );
}

/// A row-major matrix in f64.
#[derive(Clone)]
struct Matrix {
    values: Vec<f64>,
    columns: usize,
}

impl Matrix {
    fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        let columns = tensor.dims()[D - 1];
        let values = values(tensor).into_iter().map(f64::from).collect();
        Self { values, columns }
    }

    fn zeros(rows: usize, columns: usize) -> Self {
        let values = vec![0.0; rows * columns];
        Self { values, columns }
    }

    fn zip(&self, other: &Matrix, f: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.values.iter().zip(&other.values);
        let values = pairs.map(|(a, b)| f(*a, *b)).collect();
        let columns = self.columns;
        Self { values, columns }
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        self.zip(self, |x, _| f(x))
    }

    fn add(&mut self, other: &Matrix) {
        *self = self.zip(other, |a, b| a + b);
    }

    fn times(&self, other: &Matrix) -> Self {
        self.zip(other, |a, b| a * b)
    }

    /// Rows are the values that are not contracted; f32, as the products read them.
    fn operand(&self) -> Matrices {
        Matrices {
            values: self.values.iter().map(|x| *x as f32).collect(),
            outer: self.values.len() / self.columns,
            depth: self.columns,
        }
    }
}

fn multiply(left: Matrices, right: Matrices, numerics: &PassNumerics) -> Matrix {
    let products = product(&left, &right, numerics);
    Matrix {
        values: products.into_iter().map(|(exact, _)| exact).collect(),
        columns: right.outer,
    }
}

/// A linear layer of a gate, with the gradients of its weight and bias.
struct Affine<'a> {
    numerics: &'a SiteNumerics,
    weight: Matrix,
    bias: Matrix,
    gradients: [Matrix; 2],
}

impl<'a> Affine<'a> {
    fn of(linear: &nn::Linear, numerics: &'a SiteNumerics) -> Self {
        let weight = Matrix::of(linear.weight.val());
        let bias = Matrix::of(linear.bias.as_ref().unwrap().val());
        let gradients = [weight.map(|_| 0.0), bias.map(|_| 0.0)];
        Self {
            numerics,
            weight,
            bias,
            gradients,
        }
    }

    fn forward(&self, x: &Matrix) -> Matrix {
        let weight = self.weight.operand().transposed();
        let mut y = multiply(x.operand(), weight, &self.numerics.forward);
        for row in y.values.chunks_mut(y.columns) {
            for (y, bias) in row.iter_mut().zip(&self.bias.values) {
                *y += bias;
            }
        }
        y
    }

    /// The gradient of `x`.
    fn backward(&mut self, x: &Matrix, grad: &Matrix) -> Matrix {
        let (left, right) = (x.operand().transposed(), grad.operand().transposed());
        self.gradients[0].add(&multiply(left, right, &self.numerics.grad_rhs));
        for row in grad.values.chunks(grad.columns) {
            for (sum, g) in self.gradients[1].values.iter_mut().zip(row) {
                *sum += g;
            }
        }
        multiply(
            grad.operand(),
            self.weight.operand(),
            &self.numerics.grad_lhs,
        )
    }
}

/// A gate's two linear layers.
struct Gate<'a>([Affine<'a>; 2]);

impl<'a> Gate<'a> {
    fn of(gate: &nn::GateController, numerics: &'a SiteNumerics) -> Self {
        let layers = [&gate.input_transform, &gate.hidden_transform];
        Self(layers.map(|linear| Affine::of(linear, numerics)))
    }

    fn forward(&self, x: &Matrix, hidden: &Matrix) -> [Matrix; 2] {
        [self.0[0].forward(x), self.0[1].forward(hidden)]
    }

    /// Adds to the gradients of input and hidden state.
    fn backward(&mut self, inputs: [&Matrix; 2], grads: [&Matrix; 2], sums: [&mut Matrix; 2]) {
        for (((layer, input), grad), sum) in self.0.iter_mut().zip(inputs).zip(grads).zip(sums) {
            sum.add(&layer.backward(input, grad));
        }
    }

    fn gradients(self) -> impl Iterator<Item = Vec<f64>> {
        let layers = self.0.into_iter();
        layers.flat_map(|layer| layer.gradients.map(|gradient| gradient.values))
    }
}

/// `layer` with the same parameters in every run: one value in 10^5 rounds another way than in the reference, and tests
/// should not depend on which.
fn fixed<M: Module>(layer: M) -> M {
    struct Fixer(u64);
    impl ModuleMapper for Fixer {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            param.map(|tensor| fixed_tensor(self.0, tensor.dims()).require_grad())
        }
    }
    layer.map(&mut Fixer(0))
}

fn fixed_tensor<const D: usize>(stream: u64, shape: [usize; D]) -> Tensor<D> {
    let values = reference::values(shape.iter().product(), stream);
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `[BATCH, columns]` at each time step.
fn steps(tensor: &Tensor<3>) -> Vec<Matrix> {
    let at = |time| Matrix::of(tensor.clone().narrow(1, time, 1));
    (0..TIME).map(at).collect()
}

/// Batch first again.
fn batched(steps: &[Matrix]) -> Vec<f64> {
    let rows = |row: usize| {
        let row = move |step: &Matrix| step.values[row * step.columns..][..step.columns].to_vec();
        steps.iter().flat_map(row)
    };
    (0..BATCH).flat_map(rows).collect()
}

fn cases() -> impl Iterator<Item = (String, SiteNumerics)> {
    let pairs = [
        ("int8/tensor", "e4m3/tensor"),
        ("int8/channel", "e5m2/channel"),
        ("bf16", "int8/block4"),
    ];
    pairs.into_iter().map(|(first, second)| {
        let [left, right] = [first, second].map(|text| text.parse().unwrap());
        let pass = PassNumerics { left, right };
        let swapped = PassNumerics {
            left: right,
            right: left,
        };
        let numerics = SiteNumerics {
            forward: pass,
            grad_lhs: swapped,
            grad_rhs: pass,
        };
        (format!("{first} x {second}"), numerics)
    })
}

#[test]
fn a_quantized_lstm_equals_the_slow_reference() {
    for (what, numerics) in cases() {
        let layer: nn::Lstm = fixed(nn::LstmConfig::new(INPUT, HIDDEN, true).init(&device()));
        let input = fixed_tensor(100, [BATCH, TIME, INPUT]);
        let session = session(&layer, numerics);
        let forward = |layer: &nn::Lstm, x| vec![layer.forward(x, None).0];
        let actual = session.autocast(|| run(&layer, &input, forward));

        let forget = layer.forget_gate.as_ref().unwrap();
        let gates = [
            &layer.input_gate,
            forget,
            &layer.output_gate,
            &layer.cell_gate,
        ];
        let mut gates = gates.map(|gate| Gate::of(gate, &numerics));
        let xs = steps(&input);
        let mut hidden = vec![Matrix::zeros(BATCH, HIDDEN)];
        let mut cells = hidden.clone();
        let mut opened = Vec::new();
        for (x, time) in xs.iter().zip(0..) {
            let sums = [0, 1, 2, 3].map(|gate: usize| {
                let [x, h] = gates[gate].forward(x, &hidden[time]);
                let squash = if gate == 3 { f64::tanh } else { sigmoid };
                x.zip(&h, |x, h| squash(x + h))
            });
            let [i, f, o, g] = &sums;
            let mut cell = f.times(&cells[time]);
            cell.add(&i.times(g));
            hidden.push(o.zip(&cell, |o, c| o * c.tanh()));
            cells.push(cell);
            opened.push(sums);
        }
        let output = batched(&hidden[1..]);
        let shape = Tensor::<3>::zeros([BATCH, TIME, HIDDEN], &device());
        let grads = steps(&upstream(&shape));

        let mut grad_xs = vec![Matrix::zeros(BATCH, INPUT); TIME];
        let mut grad_hidden = Matrix::zeros(BATCH, HIDDEN);
        let mut grad_cell = Matrix::zeros(BATCH, HIDDEN);
        for time in (0..TIME).rev() {
            let [i, f, o, g] = &opened[time];
            let mut grad = grads[time].clone();
            grad.add(&grad_hidden);
            let shown = cells[time + 1].map(f64::tanh);
            let through = grad.times(o).zip(&shown, |g, t| g * (1.0 - t * t));
            grad_cell.add(&through);
            let slope = |y: &Matrix| y.map(|y| y * (1.0 - y));
            let sums = [
                grad_cell.times(g).times(&slope(i)),
                grad_cell.times(&cells[time]).times(&slope(f)),
                grad.times(&shown).times(&slope(o)),
                grad_cell.times(i).zip(g, |d, g| d * (1.0 - g * g)),
            ];
            grad_hidden = Matrix::zeros(BATCH, HIDDEN);
            for (gate, sum) in gates.iter_mut().zip(&sums) {
                let inputs = [&xs[time], &hidden[time]];
                gate.backward(inputs, [sum; 2], [&mut grad_xs[time], &mut grad_hidden]);
            }
            grad_cell = grad_cell.times(f);
        }
        let mut expected = vec![output, batched(&grad_xs)];
        expected.extend(gates.into_iter().flat_map(Gate::gradients));
        assert_close(&what, &actual, &expected, 1e-5);
    }
}

#[test]
fn a_quantized_gru_equals_the_slow_reference() {
    for (what, numerics) in cases() {
        let layer: nn::Gru = fixed(nn::GruConfig::new(INPUT, HIDDEN, true).init(&device()));
        let input = fixed_tensor(100, [BATCH, TIME, INPUT]);
        let session = session(&layer, numerics);
        let forward = |layer: &nn::Gru, x| vec![layer.forward(x, None)];
        let actual = session.autocast(|| run(&layer, &input, forward));

        let gates = [&layer.update_gate, &layer.reset_gate, &layer.new_gate];
        let mut gates = gates.map(|gate| Gate::of(gate, &numerics));
        let xs = steps(&input);
        let mut hidden = vec![Matrix::zeros(BATCH, HIDDEN)];
        let mut opened = Vec::new();
        for (x, time) in xs.iter().zip(0..) {
            let h = &hidden[time];
            let [u, r] = [0, 1].map(|gate: usize| {
                let [x, h] = gates[gate].forward(x, h);
                x.zip(&h, |x, h| sigmoid(x + h))
            });
            let [nx, nh] = gates[2].forward(x, h);
            let n = r.times(&nh).zip(&nx, |h, x| (h + x).tanh());
            let mut next = n.zip(&u, |n, u| n * (1.0 - u));
            next.add(&u.times(h));
            hidden.push(next);
            opened.push([u, r, n, nh]);
        }
        let output = batched(&hidden[1..]);
        let shape = Tensor::<3>::zeros([BATCH, TIME, HIDDEN], &device());
        let grads = steps(&upstream(&shape));

        let mut grad_xs = vec![Matrix::zeros(BATCH, INPUT); TIME];
        let mut grad_hidden = Matrix::zeros(BATCH, HIDDEN);
        for time in (0..TIME).rev() {
            let [u, r, n, nh] = &opened[time];
            let mut grad = grads[time].clone();
            grad.add(&grad_hidden);
            let slope = |y: &Matrix| y.map(|y| y * (1.0 - y));
            let inputs = [&xs[time], &hidden[time]];
            let sum_n = grad.zip(u, |d, u| d * (1.0 - u));
            let sum_n = sum_n.zip(n, |d, n| d * (1.0 - n * n));
            let sum_u = hidden[time].zip(n, |h, n| h - n);
            let sum_u = sum_u.times(&grad).times(&slope(u));
            let sum_r = sum_n.times(nh).times(&slope(r));
            let reset = sum_n.times(r);
            grad_hidden = grad.times(u);
            for (gate, sums) in gates
                .iter_mut()
                .zip([[&sum_u; 2], [&sum_r; 2], [&sum_n, &reset]])
            {
                gate.backward(inputs, sums, [&mut grad_xs[time], &mut grad_hidden]);
            }
        }
        let mut expected = vec![output, batched(&grad_xs)];
        expected.extend(gates.into_iter().flat_map(Gate::gradients));
        assert_close(&what, &actual, &expected, 1e-5);
    }
}
