//! Every single call to the store fails once, before and after its effect: each event counts once.
//!
//! The scenario is a short life of a lake: two writers with common keys, a compaction, a vacuum, a
//! read. Whoever fails is started again, as a user would. Every so many-th call is tried unless
//! `METERHOUSE_FAULT_STRIDE=1` says all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        ("compactor", 3, Operation::Compact),
        ("cleaner", 40, Operation::Vacuum),
        ("one", 41, Operation::Ingest(keys(0..60))),
        ("one", 41, Operation::Read),
        ("one", 41, Operation::Verify),
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
        let ended = (0..STARTS).find_map(|_| {
            let ended = runtime.block_on(world.run(&process, &operation));
            failed += u32::from(ended.is_err());
            ended.map_err(|error| assert_ne!(error.kind(), ErrorKind::Internal, "{error}")).ok()
        });
        assert!(ended.is_some(), "{name}: {operation:?} never ended");
    }
    let reader = Process {
        name: "one".to_owned(),
        now: Timestamp::from_micros(NOW_MICROS + 42 * DAY_MICROS),
        weather: calm(),
        tries: 1,
    };
    let contents = runtime.block_on(world.contents(&reader, None)).unwrap();
    let want: BTreeMap<u64, Vec<u64>> = (0..60).map(|key| (key, vec![key * 10])).collect();
    assert_eq!(contents, want, "{name}");
    runtime.block_on(world.run(&reader, &Operation::Verify)).unwrap();
    failed
}

/// The weather in which the call `number` has this fate, and the number of calls there were.
fn one_fault(number: u64, fate: Fate) -> (Weather, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let weather: Weather = Arc::new(move |call: Call| {
        let this = counter.fetch_add(1, Ordering::SeqCst);
        let creates = call.kind == Kind::Create;
        Box::pin(async move {
            match fate {
                _ if this != number => Fate::Fine,
                // Only of a create can a name be taken.
                Fate::Before(Trouble::Taken) if !creates => Fate::Before(Trouble::Busy),
                Fate::After(Trouble::Taken) if !creates => Fate::After(Trouble::Busy),
                fate => fate,
            }
        })
    });
    (weather, calls)
}

#[test]
fn every_call_fails_once_before_and_after_its_effect() {
    let stride =
        std::env::var("METERHOUSE_FAULT_STRIDE").map_or(STRIDE, |text| text.parse().unwrap());
    let (weather, calls) = one_fault(u64::MAX, Fate::Fine);
    assert_eq!(live(&weather, 1, "calm"), 0);
    let calls = calls.load(Ordering::SeqCst);
    eprintln!("{calls} calls, one in {stride} of which fails, twice");
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
                    let trouble = [Trouble::TimedOut, Trouble::Taken];
                    for fate in [
                        Fate::Before(trouble[usize::from(number.is_multiple_of(2))]),
                        Fate::After(trouble[usize::from(!number.is_multiple_of(2))]),
                    ] {
                        let (weather, _) = one_fault(number, fate);
                        let times = live(&weather, 1, &format!("call {number} {fate:?}"));
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
