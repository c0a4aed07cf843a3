#!/usr/bin/env python3
"""Other readers of the lake: deltalake and Polars must count and add up what meterhouse does, at every version, before
and after corrections, compaction, vacuum and a shortened log.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install deltalake polars pyarrow
    venv/bin/python tests/scripts/readers.py --binary target/release/meterhouse
"""
import argparse, gzip, os, re, subprocess, sys, tempfile

import deltalake
import polars
import pyarrow.compute

QUESTION = "SELECT count(*) AS events, sum(bytes) AS bytes FROM events"
# A version that vacuum has to leave.
PINNED = 5


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--binary", required=True, help="the meterhouse to run")
    binary = os.path.abspath(arguments.parse_args().binary)
    data = os.path.join(os.path.dirname(__file__), "../../data/web-requests/requests.ndjson.gz")
    lines = gzip.open(data, "rt", encoding="utf-8").readlines()
    checked, wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        def run(*words):
            done = subprocess.run([binary, *words], cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(words)}: {done.stderr}")
            return done.stdout

        events = os.path.join(folder, "lake/default/events")

        def answers(version):
            """What the three say of a version."""
            ours = run("sql", "--quiet", "-o", "csv", "--at", str(version), QUESTION).split("\n")[1]
            table = deltalake.DeltaTable(events, version=version)
            column = table.to_pyarrow_table(columns=["i_bytes"], filters=[("kind", "=", "event")]).column(0)
            scan = polars.scan_delta(events, version=version).filter(polars.col("kind") == "event")
            rows = scan.select(polars.len(), polars.col("i_bytes").sum()).collect().rows()[0]
            return ours, f"{len(column)},{pyarrow.compute.sum(column).as_py()}", f"{rows[0]},{rows[1]}"

        def age(seconds):
            """Lets everything have happened so long ago."""
            for place, _, names in os.walk(events):
                for path in (os.path.join(place, name) for name in names):
                    then = os.stat(path).st_mtime - seconds
                    if re.fullmatch(r"\d{20}\.json", os.path.basename(path)):
                        with open(path, encoding="utf-8") as entry:
                            text = entry.read()
                        earlier = lambda found: f'"timestamp":{int(found[1]) - seconds * 1000}'
                        with open(path, "w", encoding="utf-8") as entry:
                            entry.write(re.sub(r'"timestamp":(\d{13})', earlier, text))
                    os.utime(path, (then, then))

        for part in range(10):
            with open(os.path.join(folder, "part.ndjson"), "w", encoding="utf-8") as out:
                out.writelines(lines[part * 1000:(part + 1) * 1000])
            run("ingest", "part.ndjson", "--quiet")
        run("events", "void", "--where", "status = 404", "--reason", "not there", "--quiet")
        run("events", "amend", "--where", "status = 301", "--set", "bytes=7", "--reason", "moved", "--quiet")
        before = deltalake.DeltaTable(events).version()
        run("compact", "--quiet")
        newest = deltalake.DeltaTable(events).version()
        compactions = newest - before
        then = {}
        for version in range(1, newest + 1):
            ours, delta, pola = then[version] = answers(version)
            checked += 1
            if not ours == delta == pola:
                wrong += 1
                print(f"version {version}: meterhouse {ours}, deltalake {delta}, Polars {pola}")
        run("pin", str(PINNED), "--quiet")
        age(7200)
        for what in (["vacuum", "--retention", "1h"], ["vacuum", "--retention", "1h", "--log", "1h"]):
            gone = run(*what, "--quiet")
            for version in (PINNED, newest):
                checked += 1
                if answers(version) != then[version]:
                    wrong += 1
                    print(f"version {version} after {' '.join(what)}: {answers(version)}, {then[version]} before")
            if "--log" not in what and not gone:
                sys.exit("vacuum deleted nothing: what is left was not tried")
        if os.path.exists(os.path.join(events, f"_delta_log/{PINNED - 1:020}.json")):
            sys.exit("the log was not shortened: what is left was not tried")
    print(f"{checked} answers ({compactions} versions are of compactions), {wrong} differ; "
          f"deltalake {deltalake.__version__}, Polars {polars.__version__}")
    return 1 if wrong or compactions < 1 else 0


if __name__ == "__main__":
    sys.exit(main())
