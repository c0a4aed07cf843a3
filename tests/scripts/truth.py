#!/usr/bin/env python3
"""Asks meterhouse the questions of whole data sets and compares every answer to the last digit.

truth.py --binary target/release/meterhouse --data FOLDER [SET ...]

FOLDER holds a folder per set (web-access-log, llm-requests, retail-invoices) with the packed source,
`to_events.py`, `truth.json` and the answers `truth/*.csv`. Without SET all sets found there are run.
Each set is unpacked, turned into events, ingested into a lake of its own in a temporary folder, and
asked through meter files and `usage`. Prints a line per answer and ends with `N passed, M failed`.
Exit code 1 if one failed. Needs Python 3.11.4 and nothing beyond its standard library.
"""
import argparse
import collections
import csv
import io
import json
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from decimal import Decimal
from fractions import Fraction

SETS = ("web-access-log", "llm-requests", "retail-invoices")
# Names that are fields of every event; all others are properties.
FIELDS = ("customer_id", "event_name", "resource_id")
AGGREGATIONS = {"avg": "average"}
OPERATORS = {"eq": "equals", "ne": "not_equals", "gt": "greater_than", "gte": "greater_or_equal",
             "lt": "less_than", "lte": "less_or_equal"}
AVERAGE_PLACES = 12


class Tally:
    """Prints outcomes and counts them."""

    def __init__(self):
        self.passed = self.failed = 0

    def note(self, name, problem, seconds):
        if problem:
            self.failed += 1
            print(f"FAIL {name}: {problem}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {name} ({seconds:.2f} s)", flush=True)


class Lake:
    """A lake and a folder of meters below a temporary folder, asked through the binary."""

    def __init__(self, binary, folder):
        self.binary, self.meters = binary, folder / "meters"
        self.meters.mkdir(parents=True)
        self.environment = {**os.environ, "METERHOUSE_LAKE": str(folder / "lake")}
        self.environment.pop("METERHOUSE_STATE", None)

    def run(self, *arguments):
        """Output and talk of one command; raises CalledProcessError with both if it fails."""
        command = [self.binary, "--meters", str(self.meters), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, encoding="utf-8",
                              stdin=subprocess.DEVNULL, check=True)
        return done.stdout, done.stderr


def canonical(number):
    """The exact decimal text without exponent and without zeros at the end."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def average(total, count):
    # `round` of a Fraction is exact and half-even.
    unscaled = round(Fraction(total) / int(count) * 10**AVERAGE_PLACES)
    return canonical(Decimal(unscaled).scaleb(-AVERAGE_PLACES))


def right_answer(question, folder):
    """Rows (window, groups, value) of a truth file."""
    rows = collections.Counter()
    with open(folder / question["file"], encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            averaged = question["aggregation"] == "avg"
            value = average(row["sum"], row["count"]) if averaged else canonical(Decimal(row["value"]))
            groups = tuple(row[name] for name in question.get("group_by", []))
            rows[row.get("window_start_local"), groups, value] += 1
    if sum(rows.values()) != question["rows"]:
        raise ValueError(f"{question['file']} has {sum(rows.values())} rows, not {question['rows']}")
    return rows


def our_answer(question, lake):
    """Rows (window, groups, value) of `usage`. Null and empty groups look alike, as in the truth files."""
    (lake.meters / f"{question['id']}.yaml").write_text(meter_file(question), encoding="utf-8")
    output, _ = lake.run(*usage_arguments(question))
    rows = collections.Counter()
    for row in csv.DictReader(io.StringIO(output, newline="")):
        # The truth has no rows for groups without a value.
        if row["value"]:
            window = row["window_start"][:16] if question.get("window") else None
            rows[window, tuple(row[name] for name in question.get("group_by", [])), row["value"]] += 1
    return rows


def meter_file(question):
    """The question as a meter definition; JSON is YAML."""
    def named(name):
        return {"field" if name in FIELDS else "property": name}

    aggregation = question["aggregation"]
    meter = {"meter": question["id"], "aggregation": AGGREGATIONS.get(aggregation, aggregation)}
    if "event_name" in question:
        meter["event"] = question["event_name"]
    if "property" in question:
        meter.update(named(question["property"]))
    conditions = []
    for name, operator, literal in question.get("filters", []):
        if operator == "exists":
            condition = {"exists" if literal else "not_exists": True}
        else:
            condition = {OPERATORS[operator]: literal}
        conditions.append({**named(name), **condition})
    if conditions:
        meter["filter"] = conditions
    return json.dumps(meter, indent=2)


def usage_arguments(question):
    arguments = ["usage", question["id"], "-o", "csv"]
    if question.get("window"):
        arguments += ["--window", question["window"], "--tz", question["timezone"]]
    if question.get("start"):
        arguments += ["--from", question["start"]]
    if question.get("end"):
        arguments += ["--to", question["end"]]
    groups = question.get("group_by")
    return arguments + (["--by", ",".join(groups)] if groups else ["--total"])


def difference(question, folder, lake):
    """What is wrong with our answer, or None."""
    want, have = right_answer(question, folder), our_answer(question, lake)
    if want == have:
        return None
    missing, surplus = sorted(map(str, want - have)), sorted(map(str, have - want))
    return (f"{sum(have.values())} rows, wanted {sum(want.values())}; {len(missing)} missing, "
            f"first {missing[:1]}; {len(surplus)} surplus, first {surplus[:1]}")


def attempt(tally, name, check):
    """Notes what `check` says is wrong, or that it could not be asked."""
    start = time.monotonic()
    try:
        problem = check()
    except subprocess.CalledProcessError as error:
        problem = f"exit code {error.returncode}: {error.stderr.strip()}"
    except (OSError, KeyError, ValueError, ArithmeticError) as error:
        problem = f"{type(error).__name__}: {error}"
    tally.note(name, problem, time.monotonic() - start)
    return problem is None


def unpack(folder, into):
    for path in sorted(folder.glob("*.xz")):
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path, "r:xz") as archive:
                archive.extractall(into, filter="data")
        else:
            with lzma.open(path) as packed, open(into / path.stem, "wb") as plain:
                shutil.copyfileobj(packed, plain)


def events(folder, unpacked, path, *mode):
    with open(path, "wb") as file:
        subprocess.run([sys.executable, folder / "to_events.py", unpacked, *mode], stdout=file, check=True)
    return path


def ingest(lake, path, read, duplicate):
    """What is wrong with the account of an ingest, or None."""
    output, talk = lake.run("ingest", str(path))
    want = f"{read:,} read, {read - duplicate:,} accepted, {duplicate:,} duplicate, 0 conflict, 0 rejected"
    return None if want in output + talk else f"wanted `{want}`, was told {(output + talk).strip()!r}"


def run_set(tally, binary, folder, work):
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    unpacked = work / "source"
    unpacked.mkdir(parents=True)
    unpack(folder, unpacked)
    lake = Lake(binary, work / "lines")
    path = events(folder, unpacked, work / "events.ndjson")
    count = truth["events"]
    if attempt(tally, f"{folder.name} ingest", lambda: ingest(lake, path, count, 0)):
        for question in truth["meters"]:
            name = f"{folder.name} {question['id']} {question['description']}"
            attempt(tally, name, lambda: difference(question, folder, lake))
        attempt(tally, f"{folder.name} ingest again", lambda: ingest(lake, path, count, count))
    if (unpacked / "apache_logs").is_file():
        # The log as it is, without `to_events.py`, has the same answers.
        lake, log = Lake(binary, work / "log"), unpacked / "access.log"
        (unpacked / "apache_logs").rename(log)
        if attempt(tally, f"{folder.name} ingest as a log", lambda: ingest(lake, log, count, 0)):
            for question in truth["meters"]:
                name = f"{folder.name} {question['id']} of the log itself"
                attempt(tally, name, lambda: difference(question, folder, lake))
    if "distinct_keys_in_content_mode" in truth:
        path = events(folder, unpacked, work / "events.ndjson", "content")
        run_content_keys(tally, truth, Lake(binary, work / "content"), path, folder.name)


def run_content_keys(tally, truth, lake, path, name):
    """Events whose key is a hash of their row, so that equal rows must count once."""
    duplicate = truth["events"] - truth["distinct_keys_in_content_mode"]

    def account():
        return ingest(lake, path, truth["events"], duplicate)

    if not attempt(tally, f"{name} ingest by content", account):
        return
    sums = truth["after_dedup_in_content_mode"]
    for summed, key in (("quantity", "sum_quantity"), ("amount", "sum_amount")):
        question = {"id": summed, "property": summed, "aggregation": "sum"}
        want = collections.Counter([(None, (), sums[key])])

        def check():
            have = our_answer(question, lake)
            return None if have == want else f"{list(have)}, wanted {list(want)}"

        attempt(tally, f"{name} {summed} without duplicates", check)


def main():
    parser = argparse.ArgumentParser(description="Compares meterhouse's answers with known ones.")
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"one of {', '.join(SETS)}")
    options = parser.parse_args()
    sets = options.sets or [name for name in SETS if (options.data / name).is_dir()]
    missing = [name for name in sets if not (options.data / name / "truth.json").is_file()]
    if missing or not sets:
        parser.error(f"{options.data} holds no {' and no '.join(missing or SETS)}")
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="meterhouse-truth-") as work:
        for name in sets:
            binary = str(options.binary.resolve())
            run_set(tally, binary, options.data / name, pathlib.Path(work) / name)
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
