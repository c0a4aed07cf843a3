//! Scheduled work: done when it is due, once, whoever comes and whoever is killed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use meterhouse::clock::Clock;
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::tables::Lake;
use meterhouse::schedule::{
    Claim, Claimed, State, claim, due, finish, forget, parse, release, renew, runs,
};
use serde_json::{Value, json};

use crate::agreement::RUNTIME;
use crate::program::meterhouse;
use crate::storm::random::Random;

const METER: &str = "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\n";

/// Every month since July, and what was due last of two expressions.
const JOBS: &str = "timezone: UTC
jobs:
  - name: rollups
    cron: \"0 0 1 1 *\"
    run: [rollups, refresh]
  - name: bills
    each: month
    since: 2026-07
    after: 1d
    run: [periods, close, \"{period}\"]
  - name: reports
    each: month
    since: 2026-07
    after: 2d
    run: [export, statements, --period, \"{period}\", --out, out, --format, csv]
  - name: tidy
    cron: \"@yearly\"
    run: [compact]
";

fn run(folder: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {data}{said}");
    (data, said)
}

fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(meters.join("bytes.yaml"), METER).unwrap();
    fs::write(folder.path().join("queries/schedule.yaml"), JOBS).unwrap();
    let event = |month: u32| {
        let event = json!({
            "event_name": "e",
            "idempotency_key": format!("{month}"),
            "customer_id": "acme",
            "timestamp": format!("2026-{month:02}-03T00:00:00Z"),
            "properties": { "bytes": month },
        });
        event.to_string() + "\n"
    };
    fs::write(folder.path().join("e.ndjson"), (7..10).map(event).collect::<String>()).unwrap();
    run(folder.path(), &["ingest", "e.ndjson", "-q"], 0);
    folder
}

fn jobs(folder: &Path) -> Vec<Value> {
    let (data, _) = run(folder, &["schedule", "list", "-o", "ndjson", "-q"], 0);
    data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn closed(folder: &Path) -> Vec<String> {
    let (data, _) = run(folder, &["periods", "list", "-o", "ndjson", "-q"], 0);
    let closing = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    data.lines().map(|line| closing(line)["period"].as_str().unwrap().to_owned()).collect()
}

fn spawn(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .args(["schedule", "run", "--once"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What is due of the jobs whenever this is run after October 2026: three months at least.
fn months() -> Vec<String> {
    (7..10).map(|month| format!("2026-{month:02}")).collect()
}

#[test]
fn what_is_due_is_done_once_and_every_missed_period_is() {
    let folder = lake();
    let folder = folder.path();
    let waiting = jobs(folder);
    assert_eq!(waiting[0]["waiting"], "1");
    assert!(waiting[1]["waiting"].as_str().unwrap().parse::<u32>().unwrap() >= 3);
    assert_eq!(
        [&waiting[1]["outcome"], &waiting[1]["at"], &waiting[1]["next"]],
        [&Value::Null, &Value::Null, &json!("2026-08-02T00:00:00Z")]
    );
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert!(
        said.contains("bills: periods close 2026-07") && said.contains("tidy: compact"),
        "{said}"
    );
    assert!(said.contains("reports: export statements --period 2026-09"), "{said}");
    assert_eq!(closed(folder)[..3], months());
    for month in months() {
        let file = folder.join(format!("out/meter=bytes/period={month}/statement.csv"));
        assert!(fs::read_to_string(file).unwrap().contains(",acme,"));
    }
    for job in jobs(folder) {
        assert_eq!((&job["outcome"], &job["waiting"]), (&json!("done"), &json!("0")), "{job}");
        assert!(job["next"].as_str() > job["at"].as_str(), "{job}");
    }
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert_eq!(said, "0 jobs done\n");
}

#[test]
fn of_several_schedulers_one_does_each_job() {
    let folder = lake();
    let folder = folder.path();
    let children: Vec<Child> = (0..3).map(|_| spawn(folder)).collect();
    let mut said = String::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        said.push_str(&told);
    }
    for month in months() {
        assert_eq!(said.matches(&format!("bills: periods close {month}")).count(), 1, "{said}");
        assert_eq!(said.matches(&format!("--period {month} --out")).count(), 1, "{said}");
    }
    assert_eq!(said.matches("rollups: rollups refresh").count(), 1, "{said}");
    assert_eq!(closed(folder)[..3], months());
    assert!(jobs(folder).iter().all(|job| job["outcome"] == "done"));
}

#[test]
fn a_killed_scheduler_leaves_its_job_to_another() {
    let folder = lake();
    let folder = folder.path();
    let mut random = Random::new(20_261_127);
    let undisturbed = lake();
    let started = std::time::Instant::now();
    run(undisturbed.path(), &["schedule", "run", "--once", "-q"], 0);
    let pace = u64::try_from(started.elapsed().as_micros()).unwrap();
    let mut killed = 0;
    for round in 0..4 {
        let mut child = spawn(folder);
        // The first has the most to do: it is killed for certain.
        let most = if round == 0 { pace / 4 } else { pace };
        std::thread::sleep(std::time::Duration::from_micros(random.below(most)));
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
        // The claim of one that was killed holds for a while, until it is too old.
        age_claims(folder);
    }
    assert!(killed > 0);
    run(folder, &["schedule", "run", "--once", "-q"], 0);
    assert_eq!(closed(folder), closed(undisturbed.path()));
    for month in months() {
        let file = format!("out/meter=bytes/period={month}/statement.csv");
        let [here, there] =
            [folder, undisturbed.path()].map(|at| fs::read_to_string(at.join(&file)).unwrap());
        assert_eq!(here, there);
    }
    assert!(jobs(folder).iter().all(|job| job["outcome"] == "done" && job["waiting"] == "0"));
}

/// The claim that nobody else kept from being made.
fn ours(claimed: Claimed) -> Claim {
    match claimed {
        Claimed::Ours(claim) => claim,
        Claimed::Not(state) => panic!("{state:?}"),
    }
}

/// A closing looks at those before it, and an export at what was closed.
#[test]
fn periods_wait_for_those_before_them_while_somebody_is_at_work() {
    let folder = lake();
    let folder = folder.path();
    let schedule = parse(JOBS, "s.yaml").unwrap();
    let now = Clock::System.now();
    let claimed = RUNTIME.block_on(async {
        let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
        let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
        let due = due(&schedule.jobs[1], &jiff::tz::TimeZone::UTC, now).unwrap();
        ours(claim(&lake.events, &schedule.jobs[1], &due[0], false, (now, None)).await.unwrap())
    });
    // What comes by an expression does not hang on periods.
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert!(said.contains("rollups: ") && said.contains("tidy: "), "{said}");
    assert!(!said.contains("bills: ") && !said.contains("reports: "), "{said}");
    assert_eq!(closed(folder), Vec::<String>::new());
    RUNTIME.block_on(async {
        let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
        let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
        release(&lake.events, claimed).await.unwrap();
    });
    run(folder, &["schedule", "run", "--once"], 0);
    assert_eq!(closed(folder)[..3], months());
    assert!(jobs(folder).iter().all(|job| job["outcome"] == "done" && job["waiting"] == "0"));
}

/// One that is asked to stop takes its claim back: nobody has to wait for it to become too old.
#[cfg(unix)]
#[test]
fn a_scheduler_that_is_asked_to_stop_gives_its_job_back() {
    let (folder, undisturbed) = (lake(), lake());
    let folder = folder.path();
    let started = std::time::Instant::now();
    run(undisturbed.path(), &["schedule", "run", "--once", "-q"], 0);
    let pace = u64::try_from(started.elapsed().as_micros()).unwrap();
    let mut random = Random::new(20_261_128);
    let mut stopped = 0;
    for _ in 0..6 {
        let child = spawn(folder);
        std::thread::sleep(std::time::Duration::from_micros(pace / 8 + random.below(pace / 2)));
        let kill = format!("kill -TERM {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().is_ok());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                assert!(told.contains("stopped before everything was done"), "{told}");
                stopped += usize::from(told.contains("it is begun again"));
            }
            // Before it listens, a signal ends it at once; then it has no claim either.
            None => assert_eq!(told, ""),
            code => panic!("{code:?}: {told}"),
        }
    }
    assert!(stopped > 0, "no job was broken off");
    run(folder, &["schedule", "run", "--once", "-q"], 0);
    assert_eq!(closed(folder), closed(undisturbed.path()));
    assert!(jobs(folder).iter().all(|job| job["outcome"] == "done" && job["waiting"] == "0"));
}

/// Makes what lies in the notes of runs an hour older.
fn age_claims(folder: &Path) {
    let notes = folder.join("lake/default/events/_meterhouse/schedule");
    let Ok(entries) = fs::read_dir(notes) else { return };
    for entry in entries {
        let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3_700);
        file.set_modified(hour_ago).unwrap();
    }
}

#[test]
fn what_failed_is_told_and_tried_again() {
    let folder = lake();
    let folder = folder.path();
    fs::rename(folder.join("queries/meters"), folder.join("away")).unwrap();
    let (_, said) = run(folder, &["schedule", "run", "--once"], 1);
    assert!(
        said.contains("bills: error: folder of meters")
            && said.contains("failed: rollups, bills ("),
        "{said}"
    );
    let failed = jobs(folder);
    assert_eq!(failed[1]["outcome"], "failed");
    assert!(failed[1]["message"].as_str().unwrap().contains("folder of meters"), "{}", failed[1]);
    fs::rename(folder.join("away"), folder.join("queries/meters")).unwrap();
    // Not at once, but after an hour; of an expression when it is due again. Until then it stands.
    let (_, said) = run(folder, &["schedule", "run", "--once"], 1);
    let due = failed.iter().map(|job| job["waiting"].as_str().unwrap().parse::<u32>().unwrap());
    let stands = format!("0 jobs done, {} failed\n", due.sum::<u32>());
    assert!(said.starts_with(&stands) && said.contains("failed: rollups, bills ("), "{said}");
    assert!(failed[1]["next"].as_str() > failed[1]["at"].as_str(), "{}", failed[1]);
    age_claims(folder);
    let (_, said) = run(folder, &["schedule", "run", "--once"], 1);
    assert!(said.contains(", 1 failed\n"), "{said}");
    assert_eq!(closed(folder)[..3], months());
    let outcomes: Vec<Value> = jobs(folder).iter().map(|job| job["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed", "done", "done", "done"]);
    // When asked for, at once.
    run(folder, &["schedule", "run", "--once", "--retry"], 0);
    assert!(jobs(folder).iter().all(|job| job["outcome"] == "done"));
}

#[test]
fn what_a_scheduled_closing_warns_of_is_listed() {
    let folder = lake();
    let folder = folder.path();
    let gone = folder.join("queries/meters/gone.yaml");
    fs::write(&gone, METER.replace("meter: bytes", "meter: gone")).unwrap();
    run(folder, &["periods", "close", "2026-07", "gone"], 0);
    fs::remove_file(gone).unwrap();
    let job = "jobs:\n  - { name: bills, cron: \"@yearly\", run: [periods, close, \"2026-08\"] }\n";
    fs::write(folder.join("queries/schedule.yaml"), job).unwrap();
    run(folder, &["schedule", "run", "--once"], 0);
    let [bills] = &jobs(folder)[..] else { panic!("one job") };
    assert_eq!(bills["outcome"], "done");
    assert_eq!(
        bills["message"],
        "meter `gone` was closed until 2026-08-01T00:00:00Z and has no file any more"
    );
}

#[test]
fn a_job_whose_periods_have_not_all_ended_is_not_done() {
    let folder = lake();
    let folder = folder.path();
    // The month before this one began anna's month, which has ended, and carl's year, which has not.
    let month = {
        let this = Clock::System.now().to_string();
        let (year, month): (i32, i32) = (this[..4].parse().unwrap(), this[5..7].parse().unwrap());
        if month == 1 { format!("{}-12", year - 1) } else { format!("{year}-{:02}", month - 1) }
    };
    let anna = format!("customer,since,length\nanna,{month}-01,monthly\n");
    let cycles = |rows: &str| fs::write(folder.join("queries/meters/cycles.csv"), rows).unwrap();
    cycles(&format!("{anna}carl,{month}-01,annual\n"));
    let meter = format!(
        "{METER}billing: {{ file: cycles.csv, key: customer, anchor: since, cycle: length }}\n"
    );
    fs::write(folder.join("queries/meters/bytes.yaml"), meter).unwrap();
    let jobs_file = format!(
        "timezone: UTC\njobs:\n  - name: bills\n    each: month\n    since: {month}\n    run: [periods, \
         close, \"billing:{{period}}\", --grace, 0h]\n"
    );
    fs::write(folder.join("queries/schedule.yaml"), jobs_file).unwrap();
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert!(said.contains("closed bytes") && said.contains("1 waiting"), "{said}");
    assert_eq!(closed(folder).len(), 1);
    let job = &jobs(folder)[0];
    assert_eq!(job["outcome"], json!("later"), "{job}");
    assert_eq!(job["waiting"], json!("1"), "{job}");
    // It is not looked at again with every breath, and done where all have ended.
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert!(!said.contains("closed"), "{said}");
    age_claims(folder);
    cycles(&anna);
    let (_, said) = run(folder, &["schedule", "run", "--once"], 0);
    assert!(said.contains("1 job done"), "{said}");
    assert_eq!(jobs(folder)[0]["outcome"], json!("done"));
}

#[test]
fn what_is_wrong_with_a_schedule_is_said_before_anything_is_done() {
    let folder = lake();
    let folder = folder.path();
    let write = |text: &str| fs::write(folder.join("queries/schedule.yaml"), text).unwrap();
    for (run_words, want) in [
        ("[ingest, e.ndjson]", "`ingest e.ndjson` is no work for a schedule"),
        ("[compact, --watch]", "is no work for a schedule"),
        ("[periods, close]", "job `j`: the following required arguments were not provided"),
        ("[compact, --lake, elsewhere]", "unexpected argument '--lake'"),
        ("[nothing]", "unrecognized subcommand 'nothing'"),
    ] {
        write(&format!("jobs:\n  - {{ name: j, cron: \"@hourly\", run: {run_words} }}\n"));
        let (_, said) = run(folder, &["schedule", "run", "--once"], 1);
        assert!(
            said.contains("queries/schedule.yaml, line 2: job `j`") && said.contains(want),
            "{said}"
        );
    }
    write("jobs:\n  - { name: j, cron: \"99 * * * *\", run: [compact] }\n");
    let (_, said) = run(folder, &["schedule", "list"], 1);
    assert!(said.contains("schedule.yaml:2:"), "{said}");
    let (_, said) = run(folder, &["schedule", "list", "--file", "none.yaml"], 1);
    assert!(
        said.contains("file of jobs none.yaml") && said.contains("--file names another"),
        "{said}"
    );
    assert!(closed(folder).is_empty());
}

#[test]
fn a_claim_that_is_renewed_holds_and_one_that_is_not_is_given_away() {
    let folder = lake();
    let text = "jobs:\n  - { name: j, each: month, since: 2026-07, run: [verify] }\n";
    let job = parse(text, "s.yaml").unwrap().jobs.remove(0);
    let zone = jiff::tz::TimeZone::UTC;
    let now = || Clock::System.now();
    let of = due(&job, &zone, now()).unwrap().remove(0);
    RUNTIME.block_on(async {
        let location = Location::parse(folder.path().join("lake").to_str().unwrap()).unwrap();
        let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
        let who = || (now(), None);
        let first = ours(claim(&lake.events, &job, &of, false, who()).await.unwrap());
        for retries in [false, true] {
            let not = claim(&lake.events, &job, &of, retries, who()).await.unwrap();
            assert_eq!(not, Claimed::Not(State::Begun));
        }
        age_claims(folder.path());
        renew(&lake.events, &first, who()).await.unwrap();
        let not = claim(&lake.events, &job, &of, false, who()).await.unwrap();
        assert_eq!(not, Claimed::Not(State::Begun));
        age_claims(folder.path());
        let second = ours(claim(&lake.events, &job, &of, false, who()).await.unwrap());
        assert_ne!(first, second);
        // Whichever ends first, it is done.
        finish(&lake.events, first, (State::Done, None), who()).await.unwrap();
        age_claims(folder.path());
        let not = claim(&lake.events, &job, &of, false, who()).await.unwrap();
        assert_eq!(not, Claimed::Not(State::Done));
        finish(&lake.events, second, (State::Failed, Some("late".to_owned())), who())
            .await
            .unwrap();
        forget(&lake.events, &job).await.unwrap();
        let left = runs(&lake.events).await.unwrap();
        assert_eq!(left.iter().map(|run| run.state).collect::<Vec<_>>(), [State::Done]);
    });
}
