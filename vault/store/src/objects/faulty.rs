//! A store that fails on purpose, the same way for the same seed.
//!
//! Faults are ordinary inputs: every reader and writer of the vault is tested over this.
//! A seeded fault depends on the seed, the operation's kind, the object and how often that
//! was asked, so that concurrent callers meet the same faults in any order. Dying counts
//! operations over all objects.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::splitmix::mix;
use super::{Created, Listed, ObjectError, Objects, RequestKind};

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks and nothing was done.
    FailBefore,
    /// It was done, and the answer is lost.
    FailAfter,
    /// It was done or not (by the seed), and no answer comes.
    Timeout,
    /// 503, nothing done.
    Throttled,
    /// A read returns fewer bytes, as if they were all.
    ShortBody,
    /// A read breaks off, and the store layer notices.
    Truncated,
    /// One bit of what a read returns is wrong.
    FlippedBit,
    /// A read returns another object's bytes.
    Swapped,
    /// A list lacks what this handle created.
    StaleList,
}

impl Fault {
    fn applies_to(self, kind: RequestKind) -> bool {
        match self {
            Self::FailBefore | Self::FailAfter | Self::Timeout | Self::Throttled => true,
            Self::ShortBody | Self::Truncated | Self::FlippedBit | Self::Swapped => {
                kind == RequestKind::Get
            }
            Self::StaleList => kind == RequestKind::List,
        }
    }
}

/// When operations fail. Counting begins at 0.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    seed: u64,
    /// Faults and their chance among 1000.
    chances: Vec<(Fault, u32)>,
    at: BTreeMap<u64, Fault>,
    death: Option<Death>,
}

#[derive(Debug, Clone, Copy)]
struct Death {
    at: u64,
    applied: bool,
}

impl FaultPlan {
    /// No faults, until some are added; the seed decides where and how they strike.
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Adds a fault that strikes `per_mille` of the operations that it can apply to.
    pub fn with(mut self, fault: Fault, per_mille: u32) -> Self {
        self.chances.push((fault, per_mille));
        self
    }

    /// Adds a fault to the `operation`th operation, if it can apply to it.
    pub fn at(mut self, operation: u64, fault: Fault) -> Self {
        self.at.insert(operation, fault);
        self
    }

    /// Every operation from the `operation`th on fails with [`ObjectError::Dead`]; that one
    /// itself is done if `applied`, though its caller never learns it.
    pub fn dies_at(mut self, operation: u64, applied: bool) -> Self {
        let at = operation;
        self.death = Some(Death { at, applied });
        self
    }

    fn pick(&self, operation: u64, kind: RequestKind, random: u64) -> Option<Fault> {
        if let Some(fault) = self.at.get(&operation) {
            return fault.applies_to(kind).then_some(*fault);
        }
        let mut roll = (random % 1000) as u32;
        let applicable = self.chances.iter().filter(|(f, _)| f.applies_to(kind));
        for (fault, per_mille) in applicable {
            if roll < *per_mille {
                return Some(*fault);
            }
            roll -= per_mille;
        }
        None
    }
}

/// Objects that fail by plan.
#[derive(Debug)]
pub struct Faulty<O> {
    inner: O,
    plan: FaultPlan,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    operations: u64,
    injected: u64,
    asked: HashMap<(u8, String), u64>,
    created: Vec<String>,
}

/// What was decided about one operation.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    operation: u64,
    random: u64,
    fault: Option<Fault>,
    /// `Some(applied)`: dead, and whether the operation is still done.
    dead: Option<bool>,
}

impl<O: Objects> Faulty<O> {
    pub fn new(inner: O, plan: FaultPlan) -> Self {
        Self {
            inner,
            plan,
            state: Mutex::default(),
        }
    }

    /// Operations so far: run once without faults, then let it die at each of them in turn.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Faults that struck, deaths apart.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// The store without its faults.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn decide(&self, kind: RequestKind, name: &str) -> Verdict {
        let mut state = self.state();
        let operation = state.operations;
        state.operations += 1;
        let times = state
            .asked
            .entry((kind as u8, name.to_owned()))
            .or_default();
        let random = draw(self.plan.seed, kind, name, *times);
        *times += 1;
        let dead = self.plan.death.and_then(|death| {
            (operation >= death.at).then_some(death.applied && operation == death.at)
        });
        let fault = self.plan.pick(operation, kind, random);
        if fault.is_some() && dead.is_none() {
            state.injected += 1;
        }
        Verdict {
            operation,
            random: mix(random),
            fault,
            dead,
        }
    }

    /// Does the operation, or not, and returns what its caller learns of it.
    async fn run<T>(
        &self,
        name: &str,
        verdict: Verdict,
        operation: impl Future<Output = Result<T, ObjectError>> + Send,
    ) -> Result<T, ObjectError> {
        if let Some(applied) = verdict.dead {
            if applied {
                let _ = operation.await;
            }
            let operation = verdict.operation;
            return Err(ObjectError::Dead { operation });
        }
        match verdict.fault {
            Some(Fault::FailBefore) => Err(self.broken(name, "connection refused", false)),
            Some(Fault::FailAfter) => {
                let _ = operation.await;
                Err(self.broken(name, "connection reset", true))
            }
            Some(Fault::Timeout) => {
                if verdict.random & 1 == 1 {
                    let _ = operation.await;
                }
                Err(self.broken(name, "no byte moved", true))
            }
            Some(Fault::Throttled) => Err(ObjectError::Throttled {
                name: name.to_owned(),
                store: self.describe(),
                cause: "HTTP 503 SlowDown".to_owned(),
            }),
            _ => operation.await,
        }
    }

    fn broken(&self, name: &str, cause: &str, connected: bool) -> ObjectError {
        ObjectError::Unreachable {
            name: name.to_owned(),
            store: self.describe(),
            cause: format!("{cause} (injected)"),
            connected,
        }
    }

    /// Applies a read's fault to what was read.
    async fn spoil(
        &self,
        name: &str,
        range: Option<Range<u64>>,
        bytes: Bytes,
        verdict: Verdict,
    ) -> Result<Bytes, ObjectError> {
        let place = match bytes.len() {
            0 => return Ok(bytes),
            length => (verdict.random % length as u64) as usize,
        };
        match verdict.fault {
            Some(Fault::ShortBody) => Ok(bytes.slice(..place)),
            Some(Fault::Truncated) => Err(ObjectError::Truncated {
                name: name.to_owned(),
                store: self.describe(),
                expected: bytes.len() as u64,
                got: place as u64,
            }),
            Some(Fault::FlippedBit) => {
                let mut bytes = bytes.to_vec();
                bytes[place] ^= 1 << (verdict.random >> 32 & 7);
                Ok(bytes.into())
            }
            Some(Fault::Swapped) => Ok(self.other(name, range, verdict).await.unwrap_or(bytes)),
            _ => Ok(bytes),
        }
    }

    /// Bytes of another object of the same top folder; for a range, of one that has it.
    async fn other(
        &self,
        name: &str,
        range: Option<Range<u64>>,
        verdict: Verdict,
    ) -> Option<Bytes> {
        let folder = name.split('/').next().unwrap_or_default();
        let mut others = self.inner.list(folder).await.ok()?;
        let end = range.as_ref().map_or(0, |range| range.end);
        others.retain(|other| other.name != name && other.size >= end);
        let pick = verdict.random.checked_rem(others.len() as u64)? as usize;
        let other = &others[pick].name;
        match range {
            Some(range) => self.inner.get_range(other, range).await.ok(),
            None => self.inner.get(other).await.ok(),
        }
    }
}

fn draw(seed: u64, kind: RequestKind, name: &str, times: u64) -> u64 {
    let start = mix(mix(seed) ^ mix(kind as u64 + 1) ^ mix(!times));
    name.bytes()
        .fold(start, |value, byte| mix(value ^ u64::from(byte)))
}

#[async_trait]
impl<O: Objects> Objects for Faulty<O> {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        let verdict = self.decide(RequestKind::Put, name);
        let operation = async {
            let created = self.inner.create(name, bytes).await?;
            self.state().created.push(name.to_owned());
            Ok(created)
        };
        self.run(name, verdict, operation).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        let verdict = self.decide(RequestKind::Get, name);
        let bytes = self.run(name, verdict, self.inner.get(name)).await?;
        self.spoil(name, None, bytes, verdict).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let verdict = self.decide(RequestKind::Get, name);
        let read = self.inner.get_range(name, range.clone());
        let bytes = self.run(name, verdict, read).await?;
        self.spoil(name, Some(range), bytes, verdict).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        let verdict = self.decide(RequestKind::Head, name);
        self.run(name, verdict, self.inner.size(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let verdict = self.decide(RequestKind::List, prefix);
        let mut listed = self.run(prefix, verdict, self.inner.list(prefix)).await?;
        if verdict.fault == Some(Fault::StaleList) {
            let created = self.state().created.clone();
            listed.retain(|object| !created.contains(&object.name));
        }
        Ok(listed)
    }

    fn store_time(&self) -> Option<Timestamp> {
        self.inner.store_time()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
