//! A plan bound to a model, and the autocast that puts it in force.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use mantissa_formats::RandomBits;
use mantissa_plan::{
    Pass, PassNumerics, Plan, PlanError, Role, Site, SiteKind, SiteNumerics, Storage,
};
use mantissa_quant::{AmaxPolicy, Numerics};

use crate::amax_history::AmaxHistories;
use crate::buffer;
use crate::profiler::{Profiler, ProfilerConfig};
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
            faults: Mutex::new(Vec::new()),
            amaxes: Mutex::default(),
        };
        for (index, ((key, site), storage)) in keyed.into_iter().zip(storage).enumerate() {
            if let Some(key) = key {
                bound.by_key.insert(key, index);
            }
            bound.by_name.insert(site.name.clone(), index);
            bound.sites.push(BoundSite {
                numerics: numerics[site.name.as_str()],
                gradients: storage.gradients,
                name: site.name,
                kind: site.kind,
                uses: AtomicU32::new(0),
                runs: AtomicU64::new(0),
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
        let due = self
            .bound
            .profiler()
            .as_ref()
            .is_some_and(|profiler| profiler.is_due(step));
        self.bound.profiling.store(due, Ordering::Relaxed);
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
        let sites = self
            .bound
            .sites
            .iter()
            .map(|site| Site {
                name: site.name.clone(),
                kind: site.kind,
            })
            .collect();
        *self.bound.profiler() = Some(Profiler::new(config, sites, self.bound.seed));
    }

    /// Ends profiling and returns what was measured, or `None` if it was never started.
    pub fn finish_profiling(&self) -> Option<Profiler> {
        self.bound.profiling.store(false, Ordering::Relaxed);
        self.bound.profiler().take()
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

    /// Operands of this step that held or became non-finite values, in the order in which they were met.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    faults: Mutex<Vec<Fault>>,
    amaxes: Mutex<AmaxHistories>,
}

struct BoundSite {
    name: String,
    kind: SiteKind,
    numerics: SiteNumerics,
    /// How the gradient of the site's weight is stored.
    gradients: Storage,
    /// Products computed in this step, so that a module used twice draws different random bits.
    uses: AtomicU32,
    runs: AtomicU64,
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

    pub(crate) fn profiler(&self) -> MutexGuard<'_, Option<Profiler>> {
        self.profiler.lock().unwrap_or_else(PoisonError::into_inner)
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
    step: u64,
    use_index: u32,
    profiling: bool,
    /// Whether nothing is learnt from it.
    evaluating: bool,
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
            step: bound.step.load(Ordering::Relaxed),
            use_index,
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
                        site.is_some_and(|site| site.numerics.is_fp32())
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
        self.entry().numerics.is_fp32() && !self.bound.is_fused()
    }

    /// Whether no product of this site is quantized.
    pub(crate) fn is_fp32(&self) -> bool {
        self.entry().numerics.is_fp32()
    }

    /// Whether this use's operands are to be measured.
    pub(crate) fn is_profiled(&self) -> bool {
        self.profiling
    }

    pub(crate) fn numerics(&self, pass: Pass) -> &PassNumerics {
        self.entry().numerics.pass(pass)
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

    /// The random bits of one operand of one pass: a function of seed, step, site, use, pass and operand.
    pub(crate) fn random(&self, pass: Pass, role: Role) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&self.step.to_le_bytes());
        stream.write(self.entry().name.as_bytes());
        stream.write(&self.use_index.to_le_bytes());
        stream.write(&[pass as u8, role as u8]);
        RandomBits::new(self.bound.seed, stream.value())
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

    /// The random bits of the stored gradient of the site's weight.
    pub(crate) fn gradient_random(&self) -> RandomBits {
        let mut stream = Fnv::default();
        stream.write(&self.step.to_le_bytes());
        stream.write(self.entry().name.as_bytes());
        stream.write(b"gradient");
        RandomBits::new(self.bound.seed, stream.value())
    }

    /// What the operand is scaled by, if not by its own amax.
    pub(crate) fn amax(&self, pass: Pass, role: Role, numerics: &Numerics) -> Option<f32> {
        if numerics.amax == AmaxPolicy::Dynamic {
            return None;
        }
        let operand = (self.entry().name.as_str(), pass, role);
        self.bound.amaxes().amax(operand, numerics.amax, self.step)
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

/// 64-bit FNV-1a: a name for a random stream that is the same on every machine and in every version.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn value(&self) -> u64 {
        self.0
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
