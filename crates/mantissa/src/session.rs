//! A plan bound to a model, and the autocast that puts it in force.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use burn::module::Module;
use mantissa_formats::RandomBits;
use mantissa_plan::{
    Pass, PassNumerics, Plan, PlanError, Profile, ProfileError, Role, Sampling, Site, SiteKind,
    SiteNumerics, Storage, guard,
};
use mantissa_quant::{Amax, AmaxPolicy, Granularity, Numerics, ScaleKind, Sharing};
use serde::{Deserialize, Serialize};

use crate::amax_history::{AmaxHistories, AmaxesOfStep};
use crate::buffer;
use crate::flex_tensor::Axis;
use crate::parallel::{Share, ShareError, Sum, Wire, World};
use crate::profiler::{Profiler, ProfilerConfig};
use crate::sampler::Sampler;
use crate::sites::{SiteKey, keyed_sites};

thread_local! {
    static ACTIVE: RefCell<Vec<Arc<Bound>>> = const { RefCell::new(Vec::new()) };
}

/// Which code computes the operations of a model inside an autocast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// Our own: fused operations, and products that read every tensor once. They agree with Burn's compositions
    /// within the rounding of f32.
    #[default]
    Fused,
    /// Burn's, except for products that are quantized: what the `fp32` recipe computes is then Burn's result, bit for
    /// bit.
    Burn,
}

/// Whether an autocast is active on this thread that wants fused operations.
pub(crate) fn is_fused() -> bool {
    ACTIVE.with_borrow(|active| active.last().is_some_and(|bound| bound.is_fused()))
}

/// The random bits of a tensor of `elements` whose rows are those of the batch, given those of the whole batch's tensor.
pub(crate) fn of_share(random: RandomBits, elements: usize) -> RandomBits {
    let share = ACTIVE.with_borrow(|active| active.last().map(|bound| bound.share()));
    let before = share.and_then(|share| share.elements_before(elements));
    random.skip(before.unwrap_or(0))
}

/// A [`Plan`] bound to the products of one model.
///
/// Binding maps the parameter ids of the model to the sites of the plan once; inside [`autocast`](Session::autocast)
/// a module of [`crate::nn`] finds its numerics by the id of its weight. Loading a record changes parameter ids, so
/// bind after loading. Clones share their state.
#[derive(Clone, Debug)]
pub struct Session {
    bound: Arc<Bound>,
}

impl Session {
    /// Binds `plan` to `model`. All stochastic rounding of the session derives from `seed`.
    ///
    /// # Errors
    /// The plan must name exactly the sites of the model (see [`crate::sites`]); otherwise the error names those
    /// that are missing or unknown.
    pub fn bind<M: Module>(model: &M, plan: &Plan, seed: u64) -> Result<Self, PlanError> {
        Self::bind_with_products(model, &[], plan, seed)
    }

    /// Binds `plan` to `model` and to `products` that the model computes with [`crate::matmul`].
    ///
    /// # Errors
    /// The plan must name exactly the sites of the model and `products`.
    pub fn bind_with_products<M: Module>(
        model: &M,
        products: &[Site],
        plan: &Plan,
        seed: u64,
    ) -> Result<Self, PlanError> {
        let keyed: Vec<(Option<SiteKey>, Site)> = keyed_sites(model)
            .into_iter()
            .map(|(key, site)| (Some(key), site))
            .chain(products.iter().map(|site| (None, site.clone())))
            .collect();
        let sites: Vec<Site> = keyed.iter().map(|(_, site)| site.clone()).collect();
        plan.check_sites(&sites)?;

        let storage = plan.storage.assign(&sites)?;
        let numerics: HashMap<&str, SiteNumerics> = plan
            .sites
            .iter()
            .map(|site| (site.name.as_str(), site.numerics))
            .collect();
        let mut bound = Bound {
            sites: Vec::with_capacity(keyed.len()),
            by_key: HashMap::new(),
            by_name: HashMap::new(),
            seed,
            min_stored: plan.storage.min_elements,
            burn_kernels: AtomicBool::new(false),
            step: AtomicU64::new(0),
            profiling: AtomicBool::new(false),
            profiler: Mutex::new(None),
            sampler: Mutex::new(Sampler::new(seed)),
            faults: Mutex::new(Vec::new()),
            amaxes: Mutex::default(),
            ranks: RwLock::new(Ranks {
                world: World::alone(),
                wire: Wire::F32,
                share: Share::ALL,
            }),
        };
        for (index, ((key, site), storage)) in keyed.into_iter().zip(storage).enumerate() {
            if let Some(key) = key {
                bound.by_key.insert(key, index);
            }
            bound.by_name.insert(site.name.clone(), index);
            bound.sites.push(BoundSite {
                numerics: RwLock::new(numerics[site.name.as_str()]),
                gradients: storage.gradients,
                name: site.name,
                kind: site.kind,
                uses: AtomicU32::new(0),
                runs: AtomicU64::new(0),
                outlier: AtomicU32::new(1_f32.to_bits()),
            });
        }
        Ok(Self {
            bound: Arc::new(bound),
        })
    }

    /// Chooses the code that computes the model's operations from the next autocast on.
    pub fn set_kernels(&self, kernels: Kernels) {
        let burn = kernels == Kernels::Burn;
        self.bound.burn_kernels.store(burn, Ordering::Relaxed);
    }

    /// Trains together with the other ranks of `world`: an [optimizer of this
    /// session](crate::MasterOptimizer::with_session) adds the gradients of all ranks up before each step, as `wire`. Let
    /// every batch be cut with [`share`](Self::share).
    ///
    /// Scales that reach over rows of the batch are those of the whole: products with such scales wait for the other ranks,
    /// forward and backward, so that all ranks have to compute the same products in the same order. Products through which no
    /// gradient flows, as in an evaluation, do not wait, and scale by what this rank has.
    pub fn join(&self, world: &World, wire: Wire) {
        let mut ranks = self.bound.ranks_mut();
        ranks.world = world.clone();
        ranks.wire = wire;
    }

    /// This rank's share of a batch of `rows`. It is in force until the next call: random bits of stochastic rounding and
    /// of dropout are those that the rows have in the whole batch. In a world of one it is the whole batch.
    ///
    /// # Errors
    /// If there are more ranks than rows.
    pub fn share(&self, rows: usize) -> Result<Share, ShareError> {
        let mut ranks = self.bound.ranks_mut();
        ranks.share = Share::new(rows, ranks.world.rank(), ranks.world.size())?;
        Ok(ranks.share)
    }

    /// The world that this session [joined](Self::join).
    pub fn world(&self) -> World {
        self.bound.ranks().world.clone()
    }

    /// Calls `f` with the sum over ranks of this step, if there are others.
    pub(crate) fn with_sum<T>(&self, f: impl FnOnce(&Sum<'_>) -> T) -> Option<T> {
        let (world, wire) = {
            let ranks = self.bound.ranks();
            (ranks.world.clone(), ranks.wire)
        };
        (world.size() > 1).then(|| {
            f(&Sum {
                world: &world,
                wire,
                seed: self.bound.seed,
                step: self.bound.step.load(Ordering::Relaxed),
            })
        })
    }

    /// The amaxes of operands with delayed scaling that this step met.
    pub(crate) fn amaxes_of_step(&self) -> AmaxesOfStep {
        let step = self.bound.step.load(Ordering::Relaxed);
        self.bound.amaxes().of_step(step)
    }

    /// Takes in the amaxes that another rank met in this step.
    pub(crate) fn merge_amaxes(&self, met: AmaxesOfStep) {
        let step = self.bound.step.load(Ordering::Relaxed);
        self.bound.amaxes().merge_step(step, met);
    }

    /// Replaces the faults of this step by those of all ranks.
    pub(crate) fn set_faults(&self, faults: Vec<Fault>) {
        *self.bound.faults() = faults;
    }

    /// Starts training step `step`: random bits of this step, and profiling where it is due.
    ///
    /// Call it once before the forward pass of every step, with the step's number also after a resume: the
    /// numerics of a step are a function of the seed and this number alone.
    pub fn begin_step(&self, step: u64) {
        buffer::sweep();
        self.bound.step.store(step, Ordering::Relaxed);
        for site in &self.bound.sites {
            site.uses.store(0, Ordering::Relaxed);
        }
        self.bound.faults().clear();
        let profiled = self
            .bound
            .profiler()
            .as_ref()
            .is_some_and(|profiler| profiler.is_due(step));
        let sampled = self.bound.sampler().begin_step(step);
        self.bound
            .profiling
            .store(profiled || sampled, Ordering::Relaxed);
    }

    /// Runs `f` with the plan in force on this thread: products of [`crate::nn`] modules and [`crate::matmul`] in
    /// it quantize their operands as planned. Their backward passes do so too, wherever `backward` is called.
    pub fn autocast<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                ACTIVE.with_borrow_mut(|active| active.pop());
            }
        }
        ACTIVE.with_borrow_mut(|active| active.push(self.bound.clone()));
        let _leave = Leave;
        f()
    }

    /// Starts measuring the operands of every product on the steps that `config` names.
    pub fn start_profiling(&self, config: ProfilerConfig) {
        *self.bound.profiler() = Some(self.new_profiler(config));
    }

    /// Goes on measuring into the profile that a run had before it stopped. Steps up to `measured` are not measured
    /// again where the run takes them again, because its last checkpoint is older; what the profile says of them counts
    /// once. A rank whose measurements another rank keeps goes on with an empty profile.
    ///
    /// # Errors
    /// If `earlier` is of another model.
    pub fn resume_profiling(
        &self,
        config: ProfilerConfig,
        earlier: &Profile,
        measured: Option<u64>,
    ) -> Result<(), ProfileError> {
        let mut profiler = self.new_profiler(config);
        profiler.resume(earlier, measured)?;
        *self.bound.profiler() = Some(profiler);
        Ok(())
    }

    fn new_profiler(&self, config: ProfilerConfig) -> Profiler {
        let sites = self.bound.sites.iter().map(BoundSite::site);
        Profiler::new(config, sites.collect(), self.bound.seed)
    }

    /// Goes on measuring what `before` was measuring, whose run goes on here from an earlier step; steps that it had
    /// measured are not measured again.
    pub fn take_profiling(&self, before: &Session) {
        let profiler = before.bound.profiler().take();
        *self.bound.profiler() = profiler.map(Profiler::taken_back);
    }

    /// What was measured so far, or `None` if profiling was never started.
    pub fn profile(&self) -> Option<Profile> {
        let profiler = self.bound.profiler();
        profiler.as_ref().map(|profiler| profiler.profile().clone())
    }

    /// Ends profiling and returns what was measured, or `None` if it was never started.
    pub fn finish_profiling(&self) -> Option<Profiler> {
        self.bound.profiling.store(false, Ordering::Relaxed);
        self.bound.profiler().take()
    }

    /// Keeps sampled rows of the operands of every product of step `step`, once it [begins](Self::begin_step), for
    /// [`take_samples`](Self::take_samples).
    pub fn sample_step(&self, step: u64, sampling: Sampling) {
        self.bound.sampler().arm(step, sampling);
    }

    /// The samples of the step, in the order of the model's sites; none if it was not to be
    /// [sampled](Self::sample_step).
    pub fn take_samples(&self) -> Vec<guard::Sample> {
        let taken = self.bound.sampler().take();
        let sites = taken.into_iter().map(|(site, pass, rows)| guard::Sample {
            site: self.bound.sites[site].name.clone(),
            pass,
            rows,
        });
        sites.collect()
    }

    /// The time that sampling steps has taken.
    pub fn sampling_time(&self) -> Duration {
        self.bound.sampler().spent()
    }

    /// Puts other numerics in force from the next autocast on, as if a new session were bound with `plan`: what operands
    /// with delayed scaling remember is forgotten where their numerics change, and kept elsewhere. Backward passes of
    /// products that were computed before keep the numerics they began with.
    ///
    /// How weights are stored, the loss is scaled and moments are coded belongs to the model, the scaler and the optimizer,
    /// and stays as it is.
    ///
    /// # Errors
    /// The plan must name exactly the sites of the session; nothing is changed otherwise.
    pub fn change_numerics(&self, plan: &Plan) -> Result<(), PlanError> {
        let sites: Vec<Site> = self.bound.sites.iter().map(BoundSite::site).collect();
        plan.check_sites(&sites)?;
        let mut amaxes = self.bound.amaxes();
        for planned in &plan.sites {
            let index = self.bound.by_name[planned.name.as_str()];
            let entry = &self.bound.sites[index];
            let mut numerics = entry.numerics_mut();
            amaxes.retain_unchanged(&entry.name, &numerics, &planned.numerics);
            *numerics = planned.numerics;
        }
        Ok(())
    }

    /// Makes one feature of the left operand of a site `factor` times as large from the next autocast on, and what it meets
    /// in the right operand as much smaller: the product stays what it is but for rounding, and in a numerics whose scale
    /// the feature shares with others, these drown. A way to rehearse what outliers do to a plan; [`Kernels::Burn`] does
    /// not know it.
    ///
    /// # Errors
    /// If the session has no such site.
    pub fn set_outlier(&self, site: &str, factor: f32) -> Result<(), PlanError> {
        let Some(&index) = self.bound.by_name.get(site) else {
            return Err(PlanError::UnknownSite {
                name: site.to_string(),
                hint: ".".to_string(),
            });
        };
        let outlier = &self.bound.sites[index].outlier;
        outlier.store(factor.to_bits(), Ordering::Relaxed);
        Ok(())
    }

    /// The amaxes that operands with delayed scaling remember: they decide the scales of later steps, so a checkpoint
    /// keeps them. Evaluating the model adds none.
    pub fn amaxes(&self) -> AmaxHistories {
        self.bound.amaxes().clone()
    }

    /// Goes on with remembered amaxes. Operands without one, such as those of another plan, calibrate themselves.
    pub fn restore_amaxes(&self, amaxes: AmaxHistories) {
        *self.bound.amaxes() = amaxes;
    }

    /// The seed of all random bits.
    pub(crate) fn seed(&self) -> u64 {
        self.bound.seed
    }

    /// Operands of this step that held or became non-finite values, in the order in which they were met; after a step that
    /// was skipped in a [world](Self::join) of several ranks those of all ranks, in the order of the ranks.
    pub fn faults(&self) -> Vec<Fault> {
        self.bound.faults().clone()
    }

    /// Sites of the plan whose product has not been computed since binding: parts of the model that were not
    /// used, or that are built from `burn::nn` instead of [`crate::nn`] and therefore ignore the plan.
    pub fn idle_sites(&self) -> Vec<String> {
        self.bound
            .sites
            .iter()
            .filter(|site| site.runs.load(Ordering::Relaxed) == 0)
            .map(|site| site.name.clone())
            .collect()
    }
}

/// A quantized operand with non-finite values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The site's name.
    pub site: String,
    /// The pass in which it was met.
    pub pass: Pass,
    /// The operand.
    pub role: Role,
    /// How many of its elements were infinite or NaN, before or after quantization.
    pub count: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} non-finite in operand {} of {} ({})",
            self.count, self.role, self.site, self.pass
        )
    }
}

pub(crate) struct Bound {
    sites: Vec<BoundSite>,
    by_key: HashMap<SiteKey, usize>,
    by_name: HashMap<String, usize>,
    seed: u64,
    /// Gradients of fewer elements stay f32.
    min_stored: usize,
    burn_kernels: AtomicBool,
    step: AtomicU64,
    profiling: AtomicBool,
    profiler: Mutex<Option<Profiler>>,
    sampler: Mutex<Sampler>,
    faults: Mutex<Vec<Fault>>,
    amaxes: Mutex<AmaxHistories>,
    ranks: RwLock<Ranks>,
}

/// With whom the session trains.
struct Ranks {
    world: World,
    wire: Wire,
    share: Share,
}

struct BoundSite {
    name: String,
    kind: SiteKind,
    numerics: RwLock<SiteNumerics>,
    /// How the gradient of the site's weight is stored.
    gradients: Storage,
    /// Products computed in this step, so that a module used twice draws different random bits.
    uses: AtomicU32,
    runs: AtomicU64,
    /// The bits of what the outlier of its left operand is multiplied by; those of 1 where it has none.
    outlier: AtomicU32,
}

impl BoundSite {
    fn site(&self) -> Site {
        Site {
            name: self.name.clone(),
            kind: self.kind,
        }
    }

    fn numerics(&self) -> SiteNumerics {
        *self.numerics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn numerics_mut(&self) -> RwLockWriteGuard<'_, SiteNumerics> {
        self.numerics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bound {
    fn is_fused(&self) -> bool {
        !self.burn_kernels.load(Ordering::Relaxed)
    }

    fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn amaxes(&self) -> MutexGuard<'_, AmaxHistories> {
        self.amaxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ranks(&self) -> RwLockReadGuard<'_, Ranks> {
        self.ranks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ranks_mut(&self) -> RwLockWriteGuard<'_, Ranks> {
        self.ranks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self) -> Share {
        self.ranks().share
    }

    pub(crate) fn profiler(&self) -> MutexGuard<'_, Option<Profiler>> {
        self.profiler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("sites", &self.sites.len())
            .field("seed", &self.seed)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// One use of a site in one step: everything its three products need to know.
#[derive(Clone, Debug)]
pub(crate) struct SiteUse {
    bound: Arc<Bound>,
    site: usize,
    /// Those in force when the forward pass began.
    numerics: SiteNumerics,
    step: u64,
    use_index: u32,
    profiling: bool,
    /// Whether nothing is learnt from it.
    evaluating: bool,
    share: Share,
}

impl SiteUse {
    /// The use of the site with `key` by the current autocast, if there is one.
    pub(crate) fn of_key(key: SiteKey) -> Option<Self> {
        ACTIVE.with_borrow(|active| {
            let bound = active.last()?;
            bound
                .by_key
                .get(&key)
                .map(|&site| Self::begin(bound.clone(), site))
        })
    }

    /// The use of the site called `name` by the current autocast, if there is one.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        ACTIVE.with_borrow(|active| {
            let bound = active.last()?;
            bound
                .by_name
                .get(name)
                .map(|&site| Self::begin(bound.clone(), site))
        })
    }

    fn begin(bound: Arc<Bound>, site: usize) -> Self {
        let entry = &bound.sites[site];
        entry.runs.fetch_add(1, Ordering::Relaxed);
        let use_index = entry.uses.fetch_add(1, Ordering::Relaxed);
        Self {
            site,
            numerics: entry.numerics(),
            step: bound.step.load(Ordering::Relaxed),
            use_index,
            share: bound.share(),
            profiling: bound.profiling.load(Ordering::Relaxed),
            evaluating: false,
            bound,
        }
    }

    /// Whether the current autocast neither quantizes nor measures any of these sites; they then count as used.
    pub(crate) fn all_in_full_precision(keys: [SiteKey; 2]) -> bool {
        let plain = ACTIVE.with_borrow(|active| {
            active.last().is_some_and(|bound| {
                !bound.profiling.load(Ordering::Relaxed)
                    && keys.iter().all(|key| {
                        let site = bound.by_key.get(key).map(|&site| &bound.sites[site]);
                        site.is_some_and(|site| site.numerics().is_fp32())
                    })
            })
        });
        plain && keys.into_iter().all(|key| Self::of_key(key).is_some())
    }

    /// The same use, without a backward pass.
    pub(crate) fn evaluating(&self) -> Self {
        Self {
            evaluating: true,
            ..self.clone()
        }
    }

    fn entry(&self) -> &BoundSite {
        &self.bound.sites[self.site]
    }

    /// Whether Burn's own op computes this site's products.
    pub(crate) fn is_burns(&self) -> bool {
        self.numerics.is_fp32() && !self.bound.is_fused()
    }

    /// Whether no product of this site is quantized.
    pub(crate) fn is_fp32(&self) -> bool {
        self.numerics.is_fp32()
    }

    /// What one feature of the left operand is multiplied by, if it is an [outlier](Session::set_outlier).
    pub(crate) fn outlier(&self) -> Option<f32> {
        let factor = f32::from_bits(self.entry().outlier.load(Ordering::Relaxed));
        (factor != 1.0).then_some(factor)
    }

    /// Whether this use's operands are to be measured.
    pub(crate) fn is_profiled(&self) -> bool {
        self.profiling
    }

    pub(crate) fn numerics(&self, pass: Pass) -> &PassNumerics {
        self.numerics.pass(pass)
    }

    pub(crate) fn site_index(&self) -> usize {
        self.site
    }

    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    pub(crate) fn profiler(&self) -> MutexGuard<'_, Option<Profiler>> {
        self.bound.profiler()
    }

    pub(crate) fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.bound.sampler()
    }

    /// The random bits of one operand of one pass: a function of seed, step, site, use, pass and operand, and of the
    /// element in the operand of the whole batch.
    ///
    /// An operand of one matrix that is read along its columns has the batch's rows on the inner axis, so that each
    /// share's elements lie scattered in the whole's. Shares then have streams of their own.
    pub(crate) fn random(&self, pass: Pass, role: Role, order: Order) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&self.step.to_le_bytes());
        stream.write(self.entry().name.as_bytes());
        stream.write(&self.use_index.to_le_bytes());
        stream.write(&[pass as u8, role as u8]);
        if self.share.start() == 0 || !self.is_of_batch(role) {
            return RandomBits::new(self.bound.seed, stream.value());
        }
        let in_rows = match order.axis {
            Axis::Row => order.matrices == 1 || order.matrices.is_multiple_of(self.share.len()),
            Axis::Column => order.matrices > 1 && order.matrices.is_multiple_of(self.share.len()),
        };
        match self.share.elements_before(order.elements) {
            Some(before) if in_rows => {
                RandomBits::new(self.bound.seed, stream.value()).skip(before)
            }
            _ => {
                stream.write(&(self.share.start() as u64).to_le_bytes());
                RandomBits::new(self.bound.seed, stream.value())
            }
        }
    }

    /// How the gradient of the site's weight of so many elements is stored.
    pub(crate) fn gradient_storage(&self, elements: usize) -> Storage {
        if elements < self.bound.min_stored {
            Storage::Fp32
        } else {
            self.entry().gradients
        }
    }

    /// Whether no other product of this site has been computed in this step.
    pub(crate) fn is_the_only_use(&self) -> bool {
        self.step == self.bound.step.load(Ordering::Relaxed)
            && self.entry().uses.load(Ordering::Relaxed) == 1
    }

    /// The random bits of the stored gradient of the site's weight, of which every share computes a summand: their errors
    /// are independent.
    pub(crate) fn gradient_random(&self) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&self.step.to_le_bytes());
        stream.write(self.entry().name.as_bytes());
        stream.write(b"gradient");
        if self.share.start() > 0 {
            stream.write(&(self.share.start() as u64).to_le_bytes());
        }
        RandomBits::new(self.bound.seed, stream.value())
    }

    /// Whose amax the operand of a pass in which `axis` is not contracted is scaled by.
    pub(crate) fn amax_of(
        &self,
        pass: Pass,
        role: Role,
        numerics: &Numerics,
        axis: Axis,
    ) -> AmaxOf {
        let operand = (self.entry().name.as_str(), pass, role);
        let steps = self.bound.amaxes().amax(operand, numerics.amax, self.step);
        if let Some(amax) = steps {
            return AmaxOf::Steps(amax);
        }
        // Only some ranks may evaluate.
        if self.evaluating || !self.is_of_batch(role) || self.bound.ranks().world.size() == 1 {
            return AmaxOf::Operand;
        }
        let groups = match numerics.granularity {
            Granularity::Unscaled => return AmaxOf::Operand,
            Granularity::Tensor => true,
            // The contraction runs over the rows of the batch.
            Granularity::Channel => {
                self.entry().kind != SiteKind::Matmul && matches!(axis, Axis::Column)
            }
            Granularity::Block(_) | Granularity::Tile(..) => false,
        };
        if groups || numerics.scale == ScaleKind::TwoLevel {
            AmaxOf::Batch { groups }
        } else {
            AmaxOf::Operand
        }
    }

    /// Raises the amaxes of an operand of this rank's share to those of the whole batch. All ranks come here for the same
    /// operands in the same order.
    pub(crate) fn raise(&self, pass: Pass, role: Role, amaxes: &mut [f32]) {
        let world = self.bound.ranks().world.clone();
        let operand = format!("{role} of {} ({pass})", self.entry().name);
        world.max_of(&operand, amaxes);
    }

    /// Whether the operand has rows of the batch, which ranks share, and is not a weight.
    fn is_of_batch(&self, role: Role) -> bool {
        role != Role::Rhs || self.entry().kind == SiteKind::Matmul
    }

    /// Remembers the operand's amax for the steps to come if its scaling is delayed.
    pub(crate) fn remember_amax(&self, pass: Pass, role: Role, numerics: &Numerics, amax: f32) {
        if !self.evaluating && numerics.amax != AmaxPolicy::Dynamic {
            let operand = (self.entry().name.as_str(), pass, role);
            let mut amaxes = self.bound.amaxes();
            amaxes.push(operand, numerics.amax, self.step, amax);
        }
    }

    pub(crate) fn report_fault(&self, pass: Pass, role: Role, count: u64) {
        if count > 0 {
            self.bound.faults().push(Fault {
                site: self.entry().name.clone(),
                pass,
                role,
                count,
            });
        }
    }
}

/// Whose amax an operand is scaled by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AmaxOf {
    /// Its own.
    Operand,
    /// That of the steps before.
    Steps(f32),
    /// That of the whole batch, of which ranks have shares.
    Batch {
        /// Whether every group reaches over all shares.
        groups: bool,
    },
}

impl AmaxOf {
    /// As products know it; `raise` is [`SiteUse::raise`].
    pub(crate) fn with(self, raise: &(dyn Fn(&mut [f32]) + Sync)) -> Amax<'_> {
        match self {
            Self::Operand => Amax::Own,
            Self::Steps(amax) => Amax::Given(amax),
            Self::Batch { groups } => Amax::Shared(Sharing { groups, raise }),
        }
    }
}

/// How the elements of an operand are numbered: matrix by matrix, and in each along the rows or the columns.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) elements: usize,
    pub(crate) matrices: usize,
    pub(crate) axis: Axis,
}

/// 64-bit FNV-1a: a name for a random stream that is the same on every machine and in every version.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}
