#!/usr/bin/env python3
"""Feeds meterhouse a corpus of odd inputs: every file must end in an account or in an error that names it.

    cargo build --release
    python3 tests/scripts/odd.py --binary target/release/meterhouse --data FOLDER [CORPUS ...]

FOLDER holds parquet-testing, arrow-testing, json-test-suite, naughty-strings and cloudevents, and `parquet-outcomes.json`
with what other readers made of each Parquet file; without CORPUS all are run. Each file is tried in every format, and
ingested for real into a lake of its own in the format that it is in. No run may panic, die of a signal, take longer than
--seconds or more memory than --mebibytes. Where there is a second answer (Python's json and csv, the recorded outcomes,
pyarrow if it is installed), counts and values must be the same. Prints failures, then a table. Exit code 1 if one failed.
Needs Linux, Python 3.11 and nothing beyond its standard library; values of Parquet and Arrow files also need pyarrow:

    python3 -m venv venv && venv/bin/pip install pyarrow
    venv/bin/python tests/scripts/odd.py ...
"""
import argparse
import collections
import concurrent.futures
import csv
import datetime
import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
from decimal import Decimal, InvalidOperation

FORMATS = ("json", "csv", "parquet", "arrow", "access-log", "cloudevents")
# What lets records of any shape be events.
# Instants of any year are compared, so that none is refused for lying ahead.
MAPPED = ("--event-name", "odd", "--key", "content", "--allow-missing-customer", "--future-hours", "100000000")
# Columns of Parquet and CSV files that are instants, to be read as those of the events.
INSTANTS = {"alltypes_plain.parquet": "timestamp_col", "alltypes_plain.snappy.parquet": "timestamp_col",
            "alltypes_dictionary.parquet": "timestamp_col", "alltypes_tiny_pages.parquet": "timestamp_col",
            "alltypes-java.parquet": "timestamptz_ns", "int96_from_spark.parquet": "a",
            "aggregate_test_100_with_dates.csv": "c15"}
# Parquet files that others read and our reader refuses, and why that is no mistake of ours.
REFUSED = {"repeated_no_annotation.parquet": "its footer tells of other rows than its groups",
           "dict-page-offset-zero.parquet": "a list in its footer is of a type that Parquet does not have there",
           "nation.dict-malformed.parquet": "the offset of a dictionary page is wrong",
           "clusterfuzz-testcase-minimized-parquet-arrow-fuzz-5068991573000192": "45 digits do not fit in 6 bytes",
           "ARROW-17100.parquet": "pages are compressed, although their headers say otherwise"}
# Placeholders that the library for Parquet leaves in its messages.
UNFILLED = ("expected {levels_to_read}, got {levels_read}", "remote {}LogicalType")
# Fields that a mapping takes from the columns of the same names.
FIELDS = ("customer_id", "resource_id", "source", "timestamp")
ACCOUNT = re.compile(r"^([\d,]+) read, ([\d,]+) accepted, ([\d,]+) duplicate, ([\d,]+) conflict, ([\d,]+) rejected$", re.M)
EPOCH = datetime.datetime(1970, 1, 1)
DIGITS_MAX = 38
DEPTH_MAX = 64
# Larger Parquet files are not loaded by pyarrow: what this process holds counts as its children's memory.
REFERENCE_MAX_BYTES = 64 << 20

Ran = collections.namedtuple("Ran", "code out err seconds mebibytes")


class Records:
    """What a second reader found: for every record its properties as texts, None where it must be refused. `unsure` are
    properties it has no say about, `may_refuse` is set where a refusal is as good an answer."""

    def __init__(self, records, names=None, unsure=(), may_refuse=False, field=None):
        self.records, self.unsure, self.may_refuse, self.field = records, set(unsure), may_refuse, field
        every = dict.fromkeys(name for record in records if record is not None for name in record)
        # A property without a name cannot be asked for.
        self.names = [name for name in (names or every) if name and name not in self.unsure]


# ---- Running the program ----


class Program:
    """The binary, and what is demanded of each of its runs."""

    def __init__(self, binary, seconds, mebibytes):
        self.binary, self.seconds, self.mebibytes = binary, seconds, mebibytes
        self.environment = {**os.environ, "RUST_BACKTRACE": "0"}
        self.longest = self.largest = self.runs = 0

    def run(self, *words):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([self.binary, *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       env=self.environment)
            start, late = datetime.datetime.now(), threading.Timer(self.seconds, process.kill)
            late.start()
            _, status, usage = os.wait4(process.pid, 0)
            late.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = (datetime.datetime.now() - start).total_seconds()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
        ran = Ran(process.returncode, *texts, seconds, usage.ru_maxrss / 1024)
        self.runs += 1
        self.longest, self.largest = max(self.longest, seconds), max(self.largest, ran.mebibytes)
        return ran

    def faults(self, ran, path):
        """What no run may do, and what an error must say."""
        if ran.seconds >= self.seconds:
            yield f"not done after {self.seconds} s"
        elif ran.code not in (0, 1, 3):
            yield f"exit code {ran.code}: {ran.err.strip()[-300:]!r}"
        if "panicked" in ran.err:
            yield f"panicked: {ran.err.strip()[:400]!r}"
        elif ran.code == 1:
            unclear = unclear_because(ran.err, path)
            if unclear:
                yield f"an error that {unclear}: {ran.err.strip()[:400]!r}"
        if ran.mebibytes > self.mebibytes:
            yield f"{ran.mebibytes:.0f} MiB of memory"
        if ran.code in (0, 3):
            account = account_of(ran)
            if account is None:
                yield f"no account: {ran.err.strip()[:300]!r}"
            elif account[0] != sum(account[1:]) or (ran.code == 3) != (account[3] + account[4] > 0):
                yield f"an account that does not add up, with exit code {ran.code}: {account}"


def unclear_because(text, path):
    """Why a person cannot make sense of an error, or None."""
    if not text.startswith("error: "):
        return "does not begin with `error: `"
    if str(path) not in text:
        return "does not name the file"
    words = text.replace(str(path), "")
    if len(re.findall(r"\w{2,}", words)) < 4:
        return "has no words"
    if len(words) > 600 or not all(letter.isprintable() or letter == "\n" for letter in words):
        return "is too long or not printable"
    for unfilled in UNFILLED:
        words = words.replace(unfilled, "")
    if re.search(r"\{\w*\}|\bSome\(|\bErr\(|::", words):
        return "speaks to programmers"
    return None


def account_of(ran):
    found = ACCOUNT.search(ran.err)
    return found and [int(number.replace(",", "")) for number in found.groups()]


# ---- Trying a file ----


class Tally:
    """Counts of one corpus."""

    def __init__(self, name):
        self.name, self.files, self.failures = name, set(), []
        self.taken = self.partly = self.refused = self.events = self.rejected = self.compared = 0

    def fail(self, path, problem):
        self.failures.append(problem)
        print(f"FAIL {path}: {problem}", flush=True)


class Trial:
    """Tries files of a corpus and notes what is wrong."""

    def __init__(self, program, tally, work):
        self.program, self.tally, self.work = program, tally, work
        self.count = 0

    def lake(self):
        self.count += 1
        return self.work / f"lake-{self.tally.name}-{self.count}"

    def other_formats(self, path, own):
        """One dry run in each format but its own: nothing but robustness."""
        self.tally.files.add(path)
        for form in FORMATS:
            if form == own:
                continue
            ran = self.program.run("ingest", "--dry-run", "--format", form, *MAPPED, path)
            for fault in self.program.faults(ran, path):
                self.tally.fail(path, f"--format {form} {' '.join(MAPPED)} --dry-run: {fault}")

    def ingest(self, path, *flags, want=None, rows=()):
        """Ingests a file dry, then for real, then again. `want` are its records, `rows` the numbers it may have."""
        said = []
        lake = self.lake()
        dry = self.program.run("--lake", lake, "ingest", "--dry-run", *flags, path)
        done = self.program.run("--lake", lake, "ingest", *flags, path)
        said += list(self.program.faults(done, path)) or [f"dry: {fault}" for fault in self.program.faults(dry, path)]
        account = account_of(done)
        if dry.code != done.code or account_of(dry) != account:
            said.append(f"dry run {dry.code} {account_of(dry)}, real run {done.code} {account}")
        if done.code == 1:
            self.tally.refused += 1
            verified = self.program.run("--lake", lake, "verify")
            if verified.code != 0:
                said.append(f"verify after the error: {verified.out} {verified.err}")
            if want and not want.may_refuse:
                said.append(f"refused: {done.err.strip()[:300]!r}")
        elif account:
            self.tally.taken += done.code == 0
            self.tally.partly += done.code == 3
            self.tally.events += account[1]
            self.tally.rejected += account[4]
            if rows and account[0] not in rows:
                said.append(f"{account[0]} rows read, wanted {' or '.join(map(str, sorted(rows)))}")
            said += self.stored(lake, path, flags, account, want)
        for problem in said:
            self.tally.fail(path, f"{' '.join(flags)}: {problem}")
        return done

    def stored(self, lake, path, flags, account, want):
        """What is wrong with the lake after an ingest."""
        read, accepted, _, conflict, rejected = account
        if conflict + rejected:
            ran = self.program.run("--lake", lake, "events", "rejected", "-o", "csv")
            refused = list(csv.DictReader(io.StringIO(ran.out, newline="")))
            if not 1 <= len(refused) <= conflict + rejected or not all(row["message"] for row in refused):
                yield f"{len(refused)} of {conflict + rejected} refused events listed"
            if any(row["input"] != str(path) or not row["line"] for row in refused):
                yield f"a refused event without its place: {refused[:1]}"
        if not accepted:
            if want and any(record is not None for record in want.records) and not want.may_refuse and not want.unsure:
                yield f"nothing accepted of {len(want.records)} records: {account}"
            return
        again = self.program.run("--lake", lake, "ingest", *flags, path)
        if account_of(again) != [read, 0, read - conflict - rejected, conflict, rejected]:
            yield f"{account}, but again {account_of(again)}: {again.err.strip()[:200]!r}"
        verified = self.program.run("--lake", lake, "verify")
        if verified.code != 0 or "all as written" not in verified.out + verified.err:
            yield f"verify: {verified.out} {verified.err}"
        if want:
            yield from self.differences(lake, account, want)
        else:
            rows = self.ask(lake, ["count(*)"])
            if rows != [[str(accepted)]]:
                yield f"{accepted} accepted, but {rows} in the lake"

    def ask(self, lake, columns):
        """The events' columns as rows of texts, None for null."""
        # From a file, as names may hold what an argument cannot.
        question = self.work / "question.sql"
        question.write_text(f"SELECT {', '.join(columns)} FROM events", encoding="utf-8")
        ran = self.program.run("--lake", lake, "sql", "-q", "-o", "csv", "-f", question)
        if ran.code != 0:
            return f"cannot be asked: {ran.err.strip()[:300]}"
        return csv_rows(ran.out)[1:]

    def differences(self, lake, account, want):
        """How the events differ from the records that they should be. Equal records are one event where the key is
        the content, so that distinct ones are compared."""
        right = [record for record in want.records if record is not None]
        if account[0] != len(want.records) or (account[4] != len(want.records) - len(right) and not want.unsure):
            yield f"{account}, wanted {len(want.records)} records, {len(want.records) - len(right)} of them refused"
        # Each property by its text, and by its own column where it has one.
        lower = collections.Counter(name.lower() for name in want.names)
        plain = [name for name in want.names if re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,80}", name)
                 and lower[name.lower()] == 1 and name not in RESERVED and kinds(right, name) == {"plain"}]
        asked = [f"property({quoted(name)}) AS p{place}" for place, name in enumerate(want.names)]
        asked += [f'"{name}" AS c{place}' for place, name in enumerate(plain)]
        fields = [want.field] if want.field else []
        rows = self.ask(lake, asked + fields or ["event_name"])
        if isinstance(rows, str):
            yield rows
            return
        nested = {name for name in want.names if "json" in kinds(right, name)}
        have = collections.Counter()
        for row in rows:
            record = tuple(shape_of_text(cell) if name in nested else cell for name, cell in zip(want.names, row))
            own = dict(zip(plain, row[len(want.names):]))
            odd = {name: (cell, own[name]) for name, cell in zip(want.names, record)
                   if name in own and not same(cell, own[name])}
            if odd:
                yield f"a column that differs from property(): {str(odd)[:300]}"
                return
            have[record + tuple(row[len(asked):] if fields else ())] += 1
        names = want.names + ([""] if want.field else [])
        wanted = {tuple(text_of(record.get(name)) for name in names) for record in right}
        self.tally.compared += len(rows) * len(names)
        missing, surplus = wanted - set(have), set(have) - wanted
        if surplus or (missing and not want.unsure):
            first = [str(sorted(records, key=str)[:1])[:400] for records in (missing, surplus)]
            yield (f"values differ: {len(missing)} of {len(wanted)} records missing, such as {first[0]}; "
                   f"{len(surplus)} surplus, such as {first[1]}")
        elif not want.unsure and sum(have.values()) != account[1]:
            yield f"{sum(have.values())} rows in the lake, {account[1]} accepted"


RESERVED = {"event_name", "idempotency_key", *FIELDS, "ingested_at", "ordinal", "timestamp_source", "kind", "properties",
            "event_date"}


def quoted(name):
    return "'" + name.replace("'", "''") + "'"


def kinds(records, name):
    """Of what kinds the values of a property are: `json`, `wide` (a number beyond decimal(38,18)) or `plain`."""
    values = (record[name] for record in records if record.get(name) is not None)
    return {value[0] if isinstance(value, tuple) else "plain" for value in values}


def text_of(value):
    return value[1] if isinstance(value, tuple) else value


def same(text, own):
    """Whether a value's text and its column in SQL are the same; decimals of a column have zeros at their ends."""
    return text == own or (text is not None and own is not None and number_text(own) == number_text(text) is not None)


def csv_rows(text):
    """RFC 4180 with null and the empty text kept apart, which Python's reader does not."""
    rows, row, place = [], [], 0
    cell = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n)')
    while place < len(text):
        found = cell.match(text, place)
        if not found:
            raise ValueError(f"no CSV: {text[place:place + 80]!r}")
        raw, end = found.groups()
        row.append(raw[1:-1].replace('""', '"') if raw.startswith('"') else raw or None)
        if end != ",":
            rows.append(row)
            row = []
        place = found.end()
    return rows


# ---- Numbers and JSON as a second reader has them ----


def number_text(text):
    """The exact decimal text without exponent and without zeros at the end; None for what is no number or too large."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    if number == 0:
        return "0"
    digits = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    if number.adjusted() >= DIGITS_MAX or len(digits) - number.adjusted() - 1 > DIGITS_MAX:
        return None
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def number_value(text):
    """A number as a property: `wide` where no column holds it."""
    text = number_text(text)
    if text is None:
        raise ValueError("a number that is too large")
    whole, _, fraction = text.lstrip("-").partition(".")
    return ("wide", text) if len(fraction) > 18 or len(whole) > 18 else text


class Number(str):
    """The text of a JSON number."""


def members(pairs):
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        return Doubled(pairs)
    return dict(pairs)


class Doubled(dict):
    """An object with a name twice."""


def no_constant(text):
    raise ValueError(text)


def parse_json(data):
    """A JSON text as a strict reader has it, with numbers as texts; raises ValueError."""
    decoder = json.JSONDecoder(object_pairs_hook=members, parse_float=Number, parse_int=Number, parse_constant=no_constant)
    try:
        value = decoder.decode(data.decode("utf-8") if isinstance(data, bytes) else data)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("too deep") from error
    return value


def shape(value):
    """A JSON value with numbers as what they are and names in order; null members count as absent."""
    if isinstance(value, dict):
        return {name: shape(value[name]) for name in sorted(value) if value[name] is not None}
    if isinstance(value, (list, tuple)):
        return [shape(item) for item in value]
    if isinstance(value, Number):
        return f"#{number_text(value) or value}"
    return value


def shape_of_text(text):
    try:
        return None if text is None else json.dumps(shape(parse_json(text)))
    except ValueError:
        return text


def flattened(value, prefix="", depth=0):
    """The properties of an object; raises ValueError for what must be refused."""
    if isinstance(value, Doubled) or depth > DEPTH_MAX:
        raise ValueError("a name twice, or too deep")
    properties = {}
    for name, member in value.items():
        name = prefix + name
        if isinstance(member, dict):
            inner = flattened(member, f"{name}.", depth + 1)
        elif member is None:
            continue
        elif isinstance(member, Number):
            inner = {name: number_value(member)}
        elif isinstance(member, bool):
            inner = {name: "true" if member else "false"}
        elif isinstance(member, list):
            inner = {name: ("json", json.dumps(shape(member)))}
        else:
            inner = {name: member}
        if inner.keys() & properties.keys() or any(len(name.encode()) > 1024 for name in inner):
            raise ValueError("a name twice, or too long")
        properties.update(inner)
    return properties


def flattened_or_refused(value):
    try:
        return flattened(value) if isinstance(value, dict) else None
    except ValueError:
        return None


# ---- JSON ----


def json_test_suite(trial, folder):
    """Each text as a file, and as the value of a property."""
    for path in sorted(folder.glob("test_*/*")):
        trial.other_formats(path, "json")
        data, either = path.read_bytes(), not path.name.startswith(("y_", "n_"))
        account = json_file(trial, path, either)
        # Events that stand in front of the mistake are taken, but never silently.
        if path.name.startswith("n_") and account and account[1] and not account[4]:
            trial.tally.fail(path, f"is no JSON, but {account[1]} events were accepted and none refused")
        # In an array, as an event that spreads over lines is read only there.
        wrapped = b'[{"event_name":"e","idempotency_key":"k","customer_id":"c","properties":{"v":' + data + b"}}]\n"
        file = trial.work / f"wrapped-{path.name}"
        file.write_bytes(wrapped)
        try:
            want = Records([flattened_or_refused(parse_json(wrapped)[0]["properties"])], may_refuse=either)
        except ValueError:
            want = None
        done = trial.ingest(file, "--format", "json", want=want)
        account = account_of(done)
        if want is None and account and account[1] and not account[4] and not either:
            trial.tally.fail(path, f"as a value is no JSON, but {account[1]} events were accepted and none refused")


def json_file(trial, path, either=False):
    """Ingests a text, or a text on each line; whoever is `either` may as well be refused. Answers with the account."""
    data = path.read_bytes()
    try:
        try:
            value = parse_json(data)
        except ValueError:
            value = [parse_json(line) for line in data.splitlines() if line.strip()]
        items = value if isinstance(value, list) else [value]
        want = Records([flattened_or_refused(item) for item in items], may_refuse=either)
    except ValueError:
        want = None
    return account_of(trial.ingest(path, "--format", "json", *MAPPED, want=want))


# ---- CSV ----


def csv_records(text, field=None):
    """The records of well-formed CSV: an empty cell is absent."""
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    names = [name.strip().lstrip("\ufeff") for name in header]
    records = []
    for row in rows:
        record = {name: cell for name, cell in zip(names, row) if cell}
        if field:
            record[""] = rfc3339(micros(datetime.datetime.fromisoformat(record.pop(field))))
        records.append(record if len(row) == len(names) else None)
    return Records(records, names=[name for name in names if name != field], field="timestamp" if field else None)


def csv_files(trial, folder):
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        trial.other_formats(path, "csv")
        if path.name.endswith((".csv", ".csv.gz")):
            csv_file(trial, path)
        else:
            trial.ingest(path, "--format", "csv", *MAPPED)


def csv_file(trial, path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        text = file.read()
    trial.ingest(path, "--format", "csv", *MAPPED, want=csv_records(text))
    if path.name in INSTANTS:
        field = INSTANTS[path.name]
        trial.ingest(path, "--format", "csv", *mapped_instant(field), want=csv_records(text, field))


def mapped_instant(field):
    return (*MAPPED, "--map", f"timestamp={field}", "--timezone", "UTC")


# ---- Parquet and Arrow ----


def parquet_files(trial, folder, outcomes, pool):
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        trial.other_formats(path, "parquet")
        parquet_file(trial, path, outcomes.get(path), pool)
        if path.suffix == ".csv":
            csv_file(trial, path)
        elif path.suffix == ".json":
            json_file(trial, path)


def parquet_file(trial, path, outcome, pool):
    readers = [outcome[name] for name in ("pyarrow", "duckdb")] if outcome else []
    rows = {reader["rows"] for reader in readers if reader["ok"]}
    agreed = all(reader["ok"] for reader in readers)
    want = reference(pool, path, None, trial) if rows else None
    if want:
        want.may_refuse = path.name in REFUSED or not agreed
    done = trial.ingest(path, "--format", "parquet", *MAPPED, want=want, rows=rows)
    if done.code == 1 and rows and agreed and path.name not in REFUSED and not want:
        trial.tally.fail(path, f"others read {rows} rows: {done.err.strip()[:300]!r}")
    account = account_of(done)
    if account and account[1] and outcome and not rows:
        trial.tally.fail(path, f"others refuse it, but {account}")
    if want and path.name in INSTANTS:
        field = INSTANTS[path.name]
        want_dated = reference(pool, path, field, trial)
        trial.ingest(path, "--format", "parquet", *mapped_instant(field), want=want_dated, rows=rows)
    expected = path.with_name(f"{path.stem}_expect.csv")
    if path.suffix == ".parquet" and expected.is_file():
        # The names of one file end with a colon.
        end = ":" if "required" in path.name else ""
        records = csv_records(expected.read_text(encoding="utf-8")).records
        records = [{name + end: cell for name, cell in record.items()} for record in records]
        trial.ingest(path, "--format", "parquet", *MAPPED, want=Records(records), rows=rows)
    arrow = trial.work / f"{path.name}.arrow"
    if want and arrow.is_file():
        trial.ingest(arrow, "--format", "arrow", *MAPPED, want=want, rows={len(want.records)})


def reference(pool, path, field, trial):
    """The records as pyarrow has them, read by another process as odd files have crashed readers; None without it."""
    if pool is None:
        return None
    arrow = trial.work / f"{path.name}.arrow"
    try:
        return pool.submit(parquet_records, str(path), field, str(arrow)).result(timeout=60)
    except (concurrent.futures.TimeoutError, concurrent.futures.process.BrokenProcessPool) as error:
        sys.exit(f"{path}: pyarrow: {error!r}")


def parquet_records(path, field, arrow):
    """Runs in the other process. Also writes the table as an Arrow file."""
    import pyarrow
    import pyarrow.parquet
    try:
        file = pyarrow.parquet.ParquetFile(path, coerce_int96_timestamp_unit="us")
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > REFERENCE_MAX_BYTES:
            return None
        table = file.read()
    except (OSError, pyarrow.ArrowException):
        return None
    with pyarrow.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    texts, unsure = {}, []
    for name, column in zip(table.schema.names, table.columns):
        leaves(name, column, texts, unsure)
    instants = texts.pop(field) if field else None
    unsure += [name for name in FIELDS if name in texts and name != field]
    records = []
    for row in range(table.num_rows):
        record = {name: column[row] for name, column in texts.items() if column[row] is not None}
        if field:
            record[""] = instants[row]
        bad = REFUSE in record.values() or (field and not instants[row])
        if field and not bad:
            record[""] = record[""].rstrip("Z") + "Z"
        records.append(None if bad else record)
    return Records(records, names=list(texts), unsure=unsure, field="timestamp" if field else None)


# Stands for a value that makes its event refused.
REFUSE = ("refuse", "")


def leaves(name, column, texts, unsure):
    """Adds the texts of a column, members of structs under dotted names; other nested ones as JSON."""
    import pyarrow
    from pyarrow import types
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pyarrow.ChunkedArray):
            column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    kind = column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if types.is_struct(kind):
        for member, inner in zip(kind, column.flatten()):
            leaves(f"{name}.{member.name}", inner, texts, unsure)
        return
    if types.is_nested(kind):
        values = column.to_pylist(maps_as_pydicts=None)
        if jsonable(kind):
            plain = (value if value is None else json.dumps(shape(plain_json(value, kind))) for value in values)
            texts[name] = [None if text is None else ("json", text) for text in plain]
        else:
            unsure.append(name)
        return
    text = text_of_kind(kind)
    if text is None:
        unsure.append(name)
        return
    if types.is_timestamp(kind):
        column = column.cast(pyarrow.int64())
    texts[name] = [None if value is None else text(value) for value in column.to_pylist()]


def text_of_kind(kind):
    """How a value of a type is written as a property; None where this script has no say."""
    from pyarrow import types
    if types.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if types.is_integer(kind) or types.is_decimal(kind):
        return number_or_refuse
    if types.is_floating(kind):
        code = {16: "e", 32: "f", 64: "d"}[kind.bit_width]
        return lambda value: number_or_refuse(shortest(value, code))
    if types.is_string(kind) or types.is_large_string(kind):
        return str
    if types.is_binary(kind) or types.is_large_binary(kind):
        return bytes_text
    if types.is_fixed_size_binary(kind):
        return lambda value: "0x" + value.hex()
    if types.is_date(kind):
        return lambda value: value.isoformat()
    if types.is_timestamp(kind):
        each = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}[kind.unit]
        zone = "Z" if kind.tz else ""
        return lambda value: instant_or_refuse(value * each[0] // each[1], zone)
    if types.is_null(kind):
        return str
    return None


def number_or_refuse(value):
    try:
        return number_value(str(value))
    except ValueError:
        return REFUSE


def shortest(value, code):
    """The fewest digits that read back as the same float of 16, 32 or 64 bits."""
    import struct
    if value != value or value in (float("inf"), float("-inf")):
        return "nan"
    for digits in range(17):
        text = f"{value:.{digits}e}"
        try:
            if struct.pack(code, float(text)) == struct.pack(code, value):
                return text
        except OverflowError:
            continue
    return repr(value)


def bytes_text(value):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return "0x" + value.hex()


def micros(moment):
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def rfc3339(micros_since):
    return instant_or_refuse(micros_since, "Z")


def instant_or_refuse(micros_since, zone):
    try:
        moment = EPOCH + datetime.timedelta(microseconds=micros_since)
    except OverflowError:
        return REFUSE
    text = moment.isoformat()
    return (text.rstrip("0") if "." in text else text) + zone


def jsonable(kind):
    """Whether JSON has one way to write it."""
    from pyarrow import types
    if types.is_map(kind):
        return types.is_string(kind.key_type) and jsonable(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return jsonable(kind.value_type)
    if types.is_struct(kind):
        return all(jsonable(member.type) for member in kind)
    return types.is_integer(kind) or types.is_string(kind) or types.is_boolean(kind) or types.is_null(kind)


def plain_json(value, kind):
    """A nested value with numbers as their texts and maps as objects."""
    from pyarrow import types
    if value is None or isinstance(value, (bool, str)):
        return value
    if types.is_map(kind):
        return {name: plain_json(item, kind.item_type) for name, item in value}
    if types.is_struct(kind):
        return {member.name: plain_json(value[member.name], member.type) for member in kind}
    if isinstance(value, list):
        return [plain_json(item, kind.value_type) for item in value]
    return Number(value)


# ---- Naughty strings ----


def naughty_strings(trial, folder):
    """The files as they are, and each string in every place where a sender may write one."""
    for path in sorted(folder.iterdir()):
        trial.other_formats(path, None)
    strings = list(dict.fromkeys(json.loads((folder / "blns.json").read_text(encoding="utf-8"))))
    for role, most in (("event_name", 128), ("idempotency_key", 255), ("customer_id", 256)):
        events, wanted = [], []
        for number, string in enumerate(strings):
            event = {"event_name": "e", "idempotency_key": str(number), "customer_id": "c", role: string}
            events.append({**event, "properties": {"n": number}})
            kept = 1 <= len(string.encode()) <= most
            wanted.append({"n": str(number), "": string} if kept else None)
        naughty(trial, f"as-{role}", events, Records(wanted, names=["n"], field=role))
    for role, properties in (("value", lambda n, text: {"n": n, "v": text}), ("name", lambda n, text: {text: n})):
        events = [{"event_name": "e", "idempotency_key": str(number), "customer_id": "c",
                   "properties": properties(number, string)} for number, string in enumerate(strings)]
        wanted = [flattened(parse_json(json.dumps(event["properties"]))) for event in events]
        naughty(trial, f"as-{role}", events, Records(wanted))
    naughty_csv(trial, strings)
    for string in strings:
        # What an argument cannot hold, or would be taken for a flag that is not there.
        if "\0" in string or not string:
            continue
        path = trial.work / "one.csv"
        path.write_text("a\n1\n", encoding="utf-8")
        ran = trial.program.run("ingest", "--dry-run", f"--event-name={string}", *MAPPED[2:], path)
        for fault in trial.program.faults(ran, path):
            trial.tally.fail(path, f"--event-name={string!r}: {fault}")


def naughty(trial, name, events, want):
    path = trial.work / f"{name}.ndjson"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
    trial.tally.files.add(path)
    trial.ingest(path, "--format", "json", want=want)


def naughty_csv(trial, strings):
    """As cells, and as the names of columns, which are taken without the blanks around them."""
    cells = trial.work / "cells.csv"
    names = trial.work / "names.csv"
    heads = [string for string in strings if string and string == string.strip().lstrip("\ufeff").strip()]
    for path, rows in ((cells, [["n", "v"], *enumerate(strings)]), (names, [heads, range(len(heads))])):
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        trial.tally.files.add(path)
    wanted = [{"n": str(n), "v": string} if string else {"n": str(n)} for n, string in enumerate(strings)]
    trial.ingest(cells, "--format", "csv", *MAPPED, want=Records(wanted))
    wanted = [{head: str(n) for n, head in enumerate(heads)}]
    trial.ingest(names, "--format", "csv", *MAPPED, want=Records(wanted))


# ---- CloudEvents ----


def cloudevents(trial, folder):
    """The files as they are, and the events that they describe, as JSON."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        trial.other_formats(path, None)
        events = list(described_events(path.read_text(encoding="utf-8"), path.suffix))
        if not events:
            continue
        for number, event in enumerate(events):
            if event.get("id"):
                # The examples share their identities.
                event["id"] = f"{number} {event['id']}"
        want = Records([cloudevent_properties(event) for event in events], field="timestamp", unsure=["time"])
        if not all(record is None or "" in record for record in want.records):
            want.field = None
        for form, name in (("json", "lines"), ("cloudevents", "array")):
            file = trial.work / f"{path.stem}-{name}.ndjson"
            lines = "\n".join(json.dumps(event, ensure_ascii=False) for event in events)
            array = json.dumps(events, ensure_ascii=False, indent=1)
            file.write_text(lines if name == "lines" else array, encoding="utf-8")
            # What is recognised without a format is told by the first event.
            form = form if {"specversion", "id", "type"} <= events[0].keys() else "cloudevents"
            trial.ingest(file, "--format", form, "--allow-missing-customer", want=want)


def cloudevent_properties(event):
    """The properties of an event, under no name its instant; None if it must be refused."""
    taken = {"id", "type", "subject", "source", "time", "specversion", "datacontenttype", "dataschema"}
    if not all(isinstance(event.get(name), str) and event[name] for name in ("id", "type")):
        return None
    for name in ("subject", "source", "time"):
        if isinstance(event.get(name), (bool, dict, list)):
            return None
    record = flattened_or_refused(parse_json(json.dumps({name: event[name] for name in event if name not in taken})))
    if record is not None:
        record = {name.removeprefix("data."): value for name, value in record.items()}
        if "time" in event:
            record[""] = event["time"]
    return record


def described_events(text, suffix):
    """The events of a YAML file of examples or test cases, and the JSON ones of a feature file."""
    if suffix == ".feature":
        for found in re.findall(r'^\s*\{\s*"specversion.*?^ {8}\}', text, re.M | re.S):
            yield json.loads(found)
        return
    if suffix != ".yaml":
        return
    for document in re.split(r"^---\s*$", text, flags=re.M):
        example = yaml_mapping(document.split("\n"))
        attributes = example.get("ContextAttributes")
        if isinstance(attributes, dict):
            event = {**attributes, **attributes.pop("Extensions", {})}
            if "Data" in example:
                try:
                    event["data"] = json.loads(example["Data"])
                except ValueError:
                    event["data"] = example["Data"]
            yield event
    lines = text.split("\n")
    for place, line in enumerate(lines):
        found = re.fullmatch(r"( +)event(Overrides)?:\s*", line)
        if found:
            indent = len(found[1])
            block = []
            for inner in lines[place + 1:]:
                if inner.strip() and len(inner) - len(inner.lstrip()) <= indent:
                    break
                block.append(inner)
            usual = {"specversion": "1.0", "id": "id", "source": "localhost", "type": "tck"} if found[2] else {}
            yield {**usual, **yaml_mapping(block)}


def yaml_mapping(lines):
    """As much of YAML as the examples use: mappings, block texts, quotes, booleans. Numbers of attributes are texts, but
    for those of test cases that are whole."""
    mapping, place = {}, 0
    while place < len(lines):
        line = lines[place]
        place += 1
        found = re.fullmatch(r"( *)([\w$-]+) ?:(?: +(.*?))?\s*", line)
        if not found or line.lstrip().startswith(("#", "- ")):
            continue
        indent, name, value = len(found[1]), found[2], found[3] or ""
        block = []
        while value in ("", "|") and place < len(lines):
            if lines[place].strip() and len(lines[place]) - len(lines[place].lstrip()) <= indent:
                break
            block.append(lines[place])
            place += 1
        if value == "|":
            inner = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
            mapping[name] = "\n".join(line[inner:] for line in block).rstrip("\n") + "\n"
        elif value == "":
            mapping[name] = yaml_mapping(block)
        elif value[0] in "\"'" and value[-1] == value[0]:
            mapping[name] = value[1:-1]
        elif value in ("true", "false"):
            mapping[name] = value == "true"
        else:
            mapping[name] = int(value) if re.fullmatch(r"-?\d+", value) else value
    return mapping


# ---- The whole ----


def run_corpus(trial, name, folder, outcomes, pool):
    if name == "json-test-suite":
        json_test_suite(trial, folder)
    elif name == "naughty-strings":
        naughty_strings(trial, folder)
    elif name == "cloudevents":
        cloudevents(trial, folder)
    elif name == "arrow-testing":
        csv_files(trial, folder / "data/csv")
        parquet_files(trial, folder / "data/parquet", outcomes, pool)
    else:
        parquet_files(trial, folder, outcomes, pool)


CORPORA = ("parquet-testing", "arrow-testing", "json-test-suite", "naughty-strings", "cloudevents")


def print_table(tallies):
    heads = ("corpus", "files", "accepted", "in part", "refused", "events", "rejected", "compared", "failures")
    rows = [(t.name, len(t.files), t.taken, t.partly, t.refused, t.events, t.rejected, t.compared, len(t.failures))
            for t in tallies]
    rows.append(("all", *(sum(column) for column in list(zip(*rows))[1:])))
    for row in (heads, *rows):
        print(f"{row[0]:<16}" + "".join(f"{cell:>11}" for cell in row[1:]))
    print("accepted, in part, refused: ingests with exit code 0, 3 and 1; compared: values that were those of another reader")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="the meterhouse to run")
    parser.add_argument("--data", required=True, type=pathlib.Path, help="the folder of the corpora")
    parser.add_argument("--seconds", type=int, default=60, help="how long a run may take")
    parser.add_argument("--mebibytes", type=int, default=1536, help="how much memory a run may take")
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help=f"one of {', '.join(CORPORA)}")
    options = parser.parse_args()
    names = options.corpora or CORPORA
    missing = [name for name in names if name not in CORPORA or not (options.data / name).is_dir()]
    if missing:
        parser.error(f"{options.data} holds no {' and no '.join(missing)}")
    # The deepest of the JSON texts that a reader may take are 500 levels deep.
    sys.setrecursionlimit(5000)
    data = options.data.resolve()
    outcomes = json.loads((data / "parquet-outcomes.json").read_text(encoding="utf-8"))["files"]
    outcomes = {data / name: outcome for name, outcome in outcomes.items()}
    program = Program(str(options.binary.resolve()), options.seconds, options.mebibytes)
    try:
        import pyarrow
        print(f"values of Parquet and Arrow files compared with pyarrow {pyarrow.__version__}")
        pool = concurrent.futures.ProcessPoolExecutor(max_workers=1)
    except ImportError:
        print("no pyarrow: values of Parquet files are not compared")
        pool = None
    tallies = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="meterhouse-odd-") as work:
            tally = Tally(name)
            tallies.append(tally)
            run_corpus(Trial(program, tally, pathlib.Path(work)), name, data / name, outcomes, pool)
    if pool:
        pool.shutdown()
    print_table(tallies)
    print(f"{program.runs} runs, the longest {program.longest:.1f} s, the largest {program.largest:.0f} MiB")
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
