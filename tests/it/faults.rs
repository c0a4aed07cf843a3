//! Every single call to the store fails once, before and after its effect: each event counts once.
//!
//! The scenario is a short life of a lake: two writers with common keys, a closed period, a rollup, a
//! compaction, a vacuum, an export, a read. Whoever fails is started again, as a user would. Every so many-th call is tried unless
//! `METERHOUSE_FAULT_STRIDE=1` says all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use meterhouse::error::ErrorKind;
use meterhouse::time::Timestamp;

use super::storm::random::{Random, mixed};
use super::storm::store::{Call, Fate, Kind, Trouble, Weather};
use super::storm::world::{Operation, Process, World, calm};

const STRIDE: u64 = 7;
const NOW_MICROS: i64 = 1_790_000_000_000_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// How often an operation is started before it is given up.
const STARTS: u32 = 40;

/// What is sent: keys of the two writers overlap, and one has another content at the second.
fn scenario() -> Vec<(&'static str, i64, Operation)> {
    let keys = |range: std::ops::Range<u64>| range.map(|key| (key, key * 10)).collect();
    let mut second: BTreeMap<u64, u64> = keys(20..50);
    second.insert(25, 1);
    vec![
        ("one", 0, Operation::Ingest(keys(0..30))),
        ("two", 1, Operation::Ingest(second)),
        ("one", 2, Operation::Ingest(keys(45..60))),
        ("corrector", 2, Operation::Amend(7, 777)),
        ("biller", 2, Operation::Close),
        ("roller", 2, Operation::Refresh),
        ("compactor", 3, Operation::Compact),
        ("cleaner", 40, Operation::Vacuum),
        ("shortener", 42, Operation::ShortenLog),
        ("one", 44, Operation::Ingest(keys(0..60))),
        ("biller", 44, Operation::Close),
        ("exporter", 44, Operation::Export),
        ("roller", 44, Operation::Refresh),
        ("one", 44, Operation::Read),
    ]
}

/// Lives through the scenario in this weather, starting again what failed; says how often.
fn live(weather: &Weather, tries: u32, name: &str) -> u32 {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = World::new();
    let mut failed = 0;
    for (process, day, operation) in scenario() {
        let now = NOW_MICROS + day * DAY_MICROS;
        world.objects.set_now(now);
        let process = Process {
            name: process.to_owned(),
            now: Timestamp::from_micros(now),
            weather: Arc::clone(weather),
            tries,
        };
        let mut last = None;
        let ended = (0..STARTS).find_map(|_| {
            let ended = runtime.block_on(world.run(&process, &operation));
            failed += u32::from(ended.is_err());
            last = ended.as_ref().err().map(ToString::to_string);
            ended.map_err(|error| assert_ne!(error.kind(), ErrorKind::Internal, "{error}")).ok()
        });
        assert!(ended.is_some(), "{name}: {operation:?} never ended: {last:?}");
    }
    let reader = Process {
        name: "one".to_owned(),
        now: Timestamp::from_micros(NOW_MICROS + 45 * DAY_MICROS),
        weather: calm(),
        tries: 1,
    };
    let contents = runtime.block_on(world.contents(&reader, None)).unwrap();
    let content = |key| if key == 7 { 777 } else { key * 10 };
    let want: BTreeMap<u64, Vec<u64>> = (0..60).map(|key| (key, vec![content(key)])).collect();
    assert_eq!(contents, want, "{name}");
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    for key in 0..60 {
        *used.entry(format!("c{}", key % 3)).or_default() += content(key);
    }
    let (from_states, is_of_states) = runtime.block_on(world.used(&reader)).unwrap();
    assert_eq!((from_states, is_of_states), (used.clone(), true), "{name}");
    assert_eq!(runtime.block_on(world.exported(&reader)), used, "{name}");
    assert_eq!(runtime.block_on(world.closed(&reader)).unwrap(), [used], "{name}");
    runtime.block_on(world.run(&reader, &Operation::Verify)).unwrap();
    failed
}

/// The weather in which the call `number` has this fate, and the number of calls there were.
///
/// Notes which of the calls are creates.
fn one_fault(number: u64, fate: Fate, creates: &Creates) -> (Weather, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let (counter, creates) = (Arc::clone(&calls), Arc::clone(creates));
    let weather: Weather = Arc::new(move |call: Call| {
        let this = counter.fetch_add(1, Ordering::SeqCst);
        if call.kind == Kind::Create {
            creates.lock().unwrap().insert(this);
        }
        let fate = if this == number { fate } else { Fate::Fine };
        Box::pin(async move { fate })
    });
    (weather, calls)
}

/// The numbers of calls that create something.
type Creates = Arc<Mutex<BTreeSet<u64>>>;

#[test]
fn every_call_fails_once_before_and_after_its_effect() {
    let stride =
        std::env::var("METERHOUSE_FAULT_STRIDE").map_or(STRIDE, |text| text.parse().unwrap());
    let creates = Creates::default();
    let (weather, calls) = one_fault(u64::MAX, Fate::Fine, &creates);
    assert_eq!(live(&weather, 1, "calm"), 0);
    let calls = calls.load(Ordering::SeqCst);
    eprintln!("{calls} calls, one in {stride} of which fails");
    assert!(calls > 100, "{calls} calls");
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(stride, Ordering::SeqCst);
                    if number >= calls {
                        return;
                    }
                    for fate in [
                        Fate::Before(Trouble::TimedOut),
                        Fate::After(Trouble::TimedOut),
                        Fate::Before(Trouble::Taken),
                        Fate::After(Trouble::Taken),
                    ] {
                        let (weather, _) = one_fault(number, fate, &creates);
                        let name = format!("call {number} {fate:?}");
                        // Only of a create can a name be taken.
                        if matches!(
                            fate,
                            Fate::Before(Trouble::Taken) | Fate::After(Trouble::Taken)
                        ) && !creates.lock().unwrap().contains(&number)
                        {
                            continue;
                        }
                        let times = live(&weather, 1, &name);
                        failed.fetch_add(u64::from(times), Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let failed = failed.load(Ordering::SeqCst);
    // Not every fault is felt: an upload that is there already is as good as one that was made.
    assert!(failed > calls / stride / 2, "{failed} operations of {calls} calls failed");
}

#[test]
fn a_tenth_of_all_calls_fails_at_random() {
    for seed in 0..10 {
        let calls = AtomicU64::new(0);
        let weather: Weather = Arc::new(move |call: Call| {
            let mut random = Random::new(mixed(&[seed, calls.fetch_add(1, Ordering::SeqCst)]));
            let fate = random_fate(&mut random, &call, 100);
            Box::pin(async move { fate })
        });
        // What a store's client tries again by itself is tried again here, too.
        live(&weather, 5, &format!("seed {seed}"));
    }
}

/// A fate of which so many in a thousand are bad.
pub(crate) fn random_fate(random: &mut Random, call: &Call, in_a_thousand: u64) -> Fate {
    if !random.happens(in_a_thousand) {
        return Fate::Fine;
    }
    let taken = call.kind == Kind::Create && random.happens(300);
    let trouble = match taken {
        true => Trouble::Taken,
        false => [Trouble::TimedOut, Trouble::Busy][usize::from(random.happens(500))],
    };
    if random.happens(500) { Fate::Before(trouble) } else { Fate::After(trouble) }
}
