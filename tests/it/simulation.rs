//! Seeded lives of a lake: writers, a compactor, a cleaner, kills, faults, clocks that disagree.
//!
//! Operations follow one another, and some of them begin in the middle of another one: when that
//! makes its n-th call to the store. So the interleavings are those of the seed, whatever the
//! machine does. A kill makes every call from the n-th on fail; the process is then started anew
//! with what it left on its disk.
//!
//! A failing seed is printed and replays with `METERHOUSE_SIMULATION_SEED=n`; the number of seeds is
//! `METERHOUSE_SIMULATIONS`, 300 in CI and 10,000 for the long test:
//! `METERHOUSE_SIMULATIONS=10000 cargo test --release --test it simulation -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use meterhouse::error::ErrorKind;
use meterhouse::time::Timestamp;
use tokio::runtime::Handle;

use super::faults::random_fate;
use super::storm::random::{Random, mixed};
use super::storm::store::{Call, Fate, Trouble, Weather};
use super::storm::world::{Ended, Operation, Process, World, calm, remove};

const SEEDS: u64 = 60;
/// Lives that are lived side by side.
const WORKERS: u64 = 2;

const NOW_MICROS: i64 = 1_790_000_000_000_000;
const MINUTE_MICROS: i64 = 60_000_000;
const DAY_MICROS: i64 = 1_440 * MINUTE_MICROS;
const WRITERS: [&str; 3] = ["one", "two", "three"];
const KEYS: u64 = 40;
/// Most operations have made all their calls by then.
const CALLS: u64 = 80;

#[test]
fn whatever_happens_each_event_counts_once() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("METERHOUSE_SIMULATION_SEED") {
        Life::new(seed, true).live();
        return;
    }
    let seeds = number("METERHOUSE_SIMULATIONS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    let seen = Mutex::new(BTreeMap::<&str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| Life::new(seed, false).live())) {
                        Ok(of_life) => {
                            let mut seen = seen.lock().unwrap();
                            for (what, times) in of_life {
                                *seen.entry(what).or_default() += times;
                            }
                        }
                        Err(_) => {
                            eprintln!("seed {seed} failed: METERHOUSE_SIMULATION_SEED={seed}");
                            failed.lock().unwrap().insert(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
    let seen = seen.into_inner().unwrap();
    eprintln!("{seeds} lives: {seen:?}");
    // A simulation in which nothing goes wrong shows nothing.
    for what in [
        "failed",
        "killed",
        "within another",
        "compacted",
        "corrected",
        "pinned",
        "vacuumed",
        "shortened",
    ] {
        let times = seen.get(what).copied().unwrap_or_default();
        assert!(times >= seeds / 10, "{what} happened {times} times in {seeds} lives");
    }
}

/// What is known apart from the lake.
#[derive(Debug, Default)]
struct Known {
    /// The contents that were ever sent for a key.
    sent: BTreeMap<u64, BTreeSet<u64>>,
    /// The contents that a key was ever to be amended to.
    amended: BTreeSet<(u64, u64)>,
    acknowledged: BTreeSet<u64>,
    read: Vec<PathBuf>,
    pinned: BTreeMap<u64, BTreeMap<u64, Vec<u64>>>,
    seen: BTreeMap<&'static str, u64>,
}

impl Known {
    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

struct Life {
    seed: u64,
    told: bool,
    random: Random,
    world: Arc<World>,
    known: Arc<Mutex<Known>>,
    now: i64,
}

/// One operation of one process, with what happens to it.
#[derive(Clone)]
struct Step {
    process: Process,
    operation: Operation,
}

impl Life {
    fn new(seed: u64, told: bool) -> Self {
        let (world, known) = (Arc::new(World::new()), Arc::default());
        Self { seed, told, random: Random::new(seed), world, known, now: NOW_MICROS }
    }

    /// Lives it to its end and looks at what is left; says what happened how often.
    fn live(mut self) -> BTreeMap<&'static str, u64> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let steps = 5 + self.random.below(8);
        for number in 0..steps {
            self.pass_time();
            if self.random.happens(80) {
                let writer = self.writer();
                self.say(&format!("{writer} loses its state"));
                remove(&self.world.state(writer));
            }
            let step = self.step(number, true);
            self.say(&format!("{number}: {} does {:?}", step.process.name, step.operation));
            let done = run(Arc::clone(&self.world), Arc::clone(&self.known), step, self.told);
            runtime.block_on(done);
        }
        runtime.block_on(self.look_at_what_is_left());
        let mut known = self.known.lock().unwrap();
        std::mem::take(&mut known.seen)
    }

    fn say(&self, text: &str) {
        if self.told {
            eprintln!("{text}");
        }
    }

    fn writer(&mut self) -> &'static str {
        WRITERS[usize::try_from(self.random.below(3)).unwrap()]
    }

    fn pass_time(&mut self) {
        // Days only while nobody is at work: what lies uncommitted for a day may be deleted.
        let long = self.random.happens(200);
        let micros = if long { 3 * DAY_MICROS } else { MINUTE_MICROS };
        self.now += i64::try_from(self.random.below(micros.unsigned_abs())).unwrap();
        self.world.objects.set_now(self.now);
    }

    /// What a process of clock, disk and fortune of its own does next.
    fn step(&mut self, number: u64, outermost: bool) -> Step {
        let (name, operation) = match self.random.below(15) {
            0..=5 => {
                let keys = 1 + self.random.below(12);
                let contents = (0..keys).map(|_| {
                    let key = self.random.below(KEYS);
                    // Now and then a key comes with another content.
                    (key, key * 10 + u64::from(self.random.happens(50)))
                });
                let contents: BTreeMap<u64, u64> = contents.collect();
                (self.writer(), Operation::Ingest(contents))
            }
            6 | 7 => ("compactor", Operation::Compact),
            8 => ("cleaner", Operation::Vacuum),
            9 => ("shortener", Operation::ShortenLog),
            10..=12 => {
                let (key, content) = (self.random.below(KEYS), 1_000 + self.random.below(1_000));
                ("corrector", Operation::Amend(key, content))
            }
            13 => ("corrector", Operation::Revert),
            _ => ("keeper", Operation::Pin),
        };
        let skew = i64::try_from(self.random.below(20)).unwrap() - 10;
        let faults = [0, 0, 20, 100][usize::try_from(self.random.below(4)).unwrap()];
        let kill = self.random.happens(250).then(|| self.random.below(CALLS));
        let within = (outermost && self.random.happens(500))
            .then(|| (self.random.below(CALLS), self.step(number + 1_000, false)))
            // Of two processes of one disk the second is turned away, which shows nothing here.
            .filter(|(_, inner)| inner.process.name != name);
        let fortune = Fortune {
            seed: mixed(&[self.seed, number]),
            faults,
            kill,
            within: Mutex::new(within),
            calls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            of_class: Mutex::default(),
        };
        let process = Process {
            name: name.to_owned(),
            now: Timestamp::from_micros(self.now + skew * MINUTE_MICROS),
            weather: weather(Arc::new(fortune), Arc::clone(&self.world), Arc::clone(&self.known)),
            // With many faults, the store's client tries again by itself, as those of clouds do.
            tries: if faults > 50 { 5 } else { 1 },
        };
        Step { process, operation }
    }

    /// Every process comes back to life in good weather; then what is there must be what was sent.
    async fn look_at_what_is_left(&mut self) {
        self.pass_time();
        let now = Timestamp::from_micros(self.now);
        let process =
            |name: &str| Process { name: name.to_owned(), now, weather: calm(), tries: 1 };
        let one = process(WRITERS[0]);
        // A key that nobody else has, so that there is a lake to look at.
        let first = Operation::Ingest(BTreeMap::from([(KEYS, 1)]));
        self.world.run(&one, &first).await.unwrap();
        let contents = self.world.contents(&one, None).await.unwrap();
        let sent = self.known.lock().unwrap().sent.clone();
        let amended = self.known.lock().unwrap().amended.clone();
        for (key, found) in contents.iter().filter(|(key, _)| **key != KEYS) {
            assert_eq!(found.len(), 1, "key {key} counts {} times", found.len());
            let is_sent = sent.get(key).is_some_and(|sent| sent.contains(&found[0]));
            assert!(is_sent || amended.contains(&(*key, found[0])), "key {key}: {found:?}");
        }
        let acknowledged = self.known.lock().unwrap().acknowledged.clone();
        let lost: Vec<_> = acknowledged.iter().filter(|key| !contents.contains_key(key)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let read = self.known.lock().unwrap().read.clone();
        assert!(self.world.has_read(&one, &read).await.unwrap(), "files would be read again");
        let pinned = self.known.lock().unwrap().pinned.clone();
        for (version, then) in pinned {
            let now = self.world.contents(&one, Some(version)).await.unwrap();
            assert_eq!(sorted(now), sorted(then), "the pinned version {version}");
        }
        for name in WRITERS {
            // The first content of each key: new where no run of it got through.
            let all = sent.iter().map(|(key, sent)| (*key, *sent.first().unwrap())).collect();
            self.world.run(&process(name), &Operation::Ingest(all)).await.unwrap();
        }
        let writer = process(self.writer());
        self.world.run(&writer, &Operation::Verify).await.unwrap();
        let all = self.world.contents(&one, None).await.unwrap();
        let keys: BTreeSet<u64> = sent.into_keys().chain([KEYS]).collect();
        assert_eq!(all.keys().copied().collect::<BTreeSet<_>>(), keys);
        assert!(all.values().all(|found| found.len() == 1));
    }
}

fn sorted(mut contents: BTreeMap<u64, Vec<u64>>) -> BTreeMap<u64, Vec<u64>> {
    contents.values_mut().for_each(|found| found.sort_unstable());
    contents
}

/// What happens to the calls of one operation.
struct Fortune {
    seed: u64,
    /// So many calls in a thousand fail.
    faults: u64,
    /// From this call on nothing goes out or comes back.
    kill: Option<u64>,
    /// At this call somebody else does something.
    within: Mutex<Option<(u64, Step)>>,
    calls: AtomicU64,
    dead: AtomicBool,
    of_class: Mutex<HashMap<String, u64>>,
}

fn weather(fortune: Arc<Fortune>, world: Arc<World>, known: Arc<Mutex<Known>>) -> Weather {
    Arc::new(move |call| {
        let (fortune, world, known) =
            (Arc::clone(&fortune), Arc::clone(&world), Arc::clone(&known));
        Box::pin(async move {
            let number = fortune.calls.fetch_add(1, Ordering::SeqCst);
            let within = {
                let mut within = fortune.within.lock().unwrap();
                within.take_if(|(at, _)| *at <= number).map(|(_, step)| step)
            };
            if let Some(step) = within {
                known.lock().unwrap().saw("within another");
                run(world, Arc::clone(&known), step, false).await;
            }
            fortune.fate(number, &call, &known)
        })
    })
}

impl Fortune {
    fn fate(&self, number: u64, call: &Call, known: &Mutex<Known>) -> Fate {
        if self.dead.load(Ordering::SeqCst) {
            return Fate::Before(Trouble::TimedOut);
        }
        // Which of the calls for one folder comes first may depend on the machine, so a call's fate
        // depends on its folder and on how many there were for it.
        let (folder, _) = call.place.rsplit_once('/').unwrap_or_default();
        let class = format!("{:?} {folder}", call.kind);
        let times = {
            let mut of_class = self.of_class.lock().unwrap();
            let times = of_class.entry(class.clone()).or_default();
            *times += 1;
            *times
        };
        let class = class.bytes().fold(0, |class, byte| mixed(&[class, u64::from(byte)]));
        let mut random = Random::new(mixed(&[self.seed, class, times]));
        if self.kill.is_some_and(|kill| number >= kill) {
            self.dead.store(true, Ordering::SeqCst);
            known.lock().unwrap().saw("killed");
            // The last call may still have reached the store.
            let landed = random.happens(500);
            let trouble = Trouble::TimedOut;
            return if landed { Fate::After(trouble) } else { Fate::Before(trouble) };
        }
        random_fate(&mut random, call, self.faults)
    }
}

/// Runs one step and notes what is known from its end.
fn run(
    world: Arc<World>,
    known: Arc<Mutex<Known>>,
    step: Step,
    told: bool,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Step { process, operation } = step;
        if let Operation::Ingest(contents) = &operation {
            let mut known = known.lock().unwrap();
            for (key, content) in contents {
                known.sent.entry(*key).or_default().insert(*content);
            }
        }
        let handle = Handle::current();
        if let Operation::Amend(key, content) = &operation {
            known.lock().unwrap().amended.insert((*key, *content));
        }
        let (process, operation, ended) = tokio::task::spawn_blocking(move || {
            let ended = handle.block_on(world.run(&process, &operation));
            (process, operation, ended)
        })
        .await
        .unwrap();
        if told {
            eprintln!("   {} ended {:?}: {ended:?}", process.name, operation);
        }
        let mut known = known.lock().unwrap();
        match ended {
            Ok(Ended::Acknowledged(keys, path)) => {
                known.acknowledged.extend(keys);
                known.read.push(path);
            }
            Ok(Ended::Pinned(version, contents)) => {
                known.saw("pinned");
                known.pinned.insert(version, contents);
            }
            Ok(Ended::Done) => known.saw(match operation {
                Operation::Compact => "compacted",
                Operation::Amend(..) | Operation::Revert => "corrected",
                Operation::ShortenLog => "shortened",
                _ => "vacuumed",
            }),
            Err(error) => {
                known.saw("failed");
                assert_ne!(error.kind(), ErrorKind::Internal, "{operation:?}: {error}");
                // Nothing stored is damaged, so nobody may say so.
                assert_ne!(error.kind(), ErrorKind::Corrupt, "{operation:?}: {error}");
            }
        }
    })
}
