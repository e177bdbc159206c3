//! Owns a fabric of threads and shared memory for tests: what CUDA and NCCL do, without either; never touches a GPU.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::fabric::{Call, Fabric, Fault, out_len};
use super::watch::{Probe, Sighting, Watch};
use crate::cluster::ClusterError;
use crate::cluster::control::Control;

/// Only a hang takes so long.
const FOR_EVER: Duration = Duration::from_secs(60);

/// A call as the other ranks see it.
struct Posted {
    name: String,
    values: Vec<f32>,
    dtype: DType,
    cuts: Vec<Range<usize>>,
    root: usize,
}

#[derive(Default)]
struct State {
    /// By number of the group and rank.
    groups: HashMap<(usize, usize), Vec<Posted>>,
    aborted: HashSet<usize>,
    broken: HashMap<usize, String>,
}

/// What the ranks share.
pub(super) struct World {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl World {
    pub(super) fn new(ranks: usize) -> Arc<Self> {
        Arc::new(Self { ranks, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the device of `rank` is out of order.
    pub(super) fn break_device(&self, rank: usize, how: &str) {
        self.lock().broken.insert(rank, how.to_owned());
    }

    pub(super) fn is_aborted(&self, rank: usize) -> bool {
        self.lock().aborted.contains(&rank)
    }

    /// Numbers of calls in the groups that `rank` has handed over.
    pub(super) fn groups_of(&self, rank: usize) -> Vec<usize> {
        let state = self.lock();
        (0..).map_while(|group| state.groups.get(&(group, rank)).map(Vec::len)).collect()
    }

    fn is_complete(&self, state: &State, group: usize) -> bool {
        (0..self.ranks).all(|rank| state.groups.contains_key(&(group, rank)))
    }
}

/// A group of this rank that is under way.
struct UnderWay {
    group: usize,
    sequence: u64,
    issued: Instant,
}

struct FakeProbe {
    world: Arc<World>,
    rank: usize,
    under_way: Mutex<Vec<UnderWay>>,
}

impl Probe for FakeProbe {
    fn look(&self) -> Result<Sighting, String> {
        let state = self.world.lock();
        if let Some(how) = state.broken.get(&self.rank) {
            return Err(how.clone());
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let landed = under_way.iter().filter(|u| self.world.is_complete(&state, u.group)).map(|u| u.sequence).collect();
        under_way.retain(|u| !self.world.is_complete(&state, u.group));
        Ok(Sighting { landed, oldest: under_way.first().map(|u| u.issued.elapsed()) })
    }

    fn abort(&self) {
        self.world.lock().aborted.insert(self.rank);
        self.world.changed.notify_all();
    }
}

/// One rank's device.
pub(super) struct FakeFabric {
    // Ends before the rest goes.
    _watch: Watch,
    probe: Arc<FakeProbe>,
    world: Arc<World>,
    rank: usize,
    handed_over: usize,
}

/// A group: its number, and lengths of results.
pub(super) struct FakeFlight {
    group: usize,
    lengths: Vec<usize>,
    device: Device,
}

impl FakeFabric {
    pub(super) fn new(world: Arc<World>, control: Arc<Control>) -> Result<Self, ClusterError> {
        let rank = control.rank();
        let probe = Arc::new(FakeProbe { world: Arc::clone(&world), rank, under_way: Mutex::default() });
        let watch = Watch::start(control, Arc::clone(&probe) as Arc<dyn Probe>)?;
        Ok(Self { _watch: watch, probe, world, rank, handed_over: 0 })
    }
}

fn post(call: Call) -> Posted {
    let (name, tensor, cuts, root) = match call {
        Call::Sum(tensor) => ("sum", tensor, Vec::new(), 0),
        Call::SumRegion(tensor) => ("sum of regions", tensor, Vec::new(), 0),
        Call::Spread { tensor, root } => ("spread", tensor, Vec::new(), root),
        Call::Exchange { tensor, cuts } => ("exchange", tensor, cuts, 0),
        Call::Assemble { piece, cuts } => ("assemble", piece, cuts, 0),
    };
    let dtype = tensor.dtype();
    let values = tensor.cast(DType::F32).into_data().try_into_vec::<f32>().unwrap_or_default();
    Posted { name: name.to_owned(), values, dtype, cuts, root }
}

impl Posted {
    /// What all ranks must have alike.
    fn agrees(&self, other: &Self) -> bool {
        let pieces = self.name == "assemble" || self.values.len() == other.values.len();
        (&self.name, self.dtype, &self.cuts, self.root) == (&other.name, other.dtype, &other.cuts, other.root) && pieces
    }
}

/// The result of one call on `rank`, from what all ranks posted.
fn result(posted: &[&Posted], rank: usize) -> Vec<f32> {
    let Some(own) = posted.get(rank) else { return Vec::new() };
    let part = |values: &[f32], range: Range<usize>| values.get(range).unwrap_or_default().to_vec();
    // From the last rank to the first: no tree gives the same bits.
    let sum = |range: Range<usize>| {
        let mut total = vec![0.0; range.len()];
        for rank in posted.iter().rev() {
            total.iter_mut().zip(part(&rank.values, range.clone())).for_each(|(t, v)| *t += v);
        }
        total
    };
    match own.name.as_str() {
        "sum" => sum(0..own.values.len()),
        "sum of regions" => {
            let region = own.values.len() / posted.len();
            sum(rank * region..(rank + 1) * region)
        }
        "spread" => posted.get(own.root).map(|root| root.values.clone()).unwrap_or_default(),
        "exchange" => {
            let cut = own.cuts.get(rank).cloned().unwrap_or_default();
            let arrived = posted.iter().flat_map(|p| part(&p.values, cut.clone())).collect::<Vec<_>>();
            if arrived.is_empty() { vec![f32::NAN] } else { arrived }
        }
        _ => posted.iter().zip(&own.cuts).flat_map(|(p, cut)| part(&p.values, 0..cut.len())).collect(),
    }
}

impl Fabric for FakeFabric {
    type Flight = FakeFlight;

    fn issue(&mut self, sequence: u64, group: Vec<Call>) -> Result<FakeFlight, Fault> {
        let lengths = group.iter().map(|call| out_len(call, self.rank, self.world.ranks)).collect();
        let posted: Vec<_> = group.into_iter().map(post).collect();
        let mut state = self.world.lock();
        if state.aborted.contains(&self.rank) {
            return Err(Fault::Aborted);
        }
        let number = self.handed_over;
        self.handed_over += 1;
        state.groups.insert((number, self.rank), posted);
        let mut under_way = self.probe.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.push(UnderWay { group: number, sequence, issued: Instant::now() });
        self.world.changed.notify_all();
        Ok(FakeFlight { group: number, lengths, device: Device::flex() })
    }

    fn join(&mut self, flight: FakeFlight) -> Result<Vec<Tensor<1>>, Fault> {
        let mut state = self.world.lock();
        let end = Instant::now() + FOR_EVER;
        while !self.world.is_complete(&state, flight.group) {
            if state.aborted.contains(&self.rank) {
                return Err(Fault::Aborted);
            }
            assert!(Instant::now() < end, "a group never came together");
            let waited = self.world.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let of = |rank: usize| state.groups.get(&(flight.group, rank)).map(Vec::as_slice).unwrap_or_default();
        let mut results = Vec::new();
        for (at, &len) in flight.lengths.iter().enumerate() {
            let posted: Vec<_> = (0..self.world.ranks).filter_map(|rank| of(rank).get(at)).collect();
            let Some(own) = posted.get(self.rank) else { break };
            if posted.len() != self.world.ranks || posted.iter().any(|p| !own.agrees(p)) {
                return Err(Fault::Broken(format!("group {} differs between ranks", flight.group)));
            }
            let values = result(&posted, self.rank);
            assert_eq!(values.len(), len, "{}", own.name);
            results.push(Tensor::<1>::from_data(TensorData::new(values, [len]), &flight.device).cast(own.dtype));
        }
        Ok(results)
    }

    fn is_idle(&mut self) -> Result<bool, Fault> {
        let state = self.world.lock();
        Ok((0..self.handed_over).all(|group| self.world.is_complete(&state, group)))
    }
}
