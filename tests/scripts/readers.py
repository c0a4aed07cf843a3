#!/usr/bin/env python3
"""Other readers of the lake: deltalake and Polars must count and add up what meterhouse does, at every version, before
and after compaction.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install deltalake polars pyarrow
    venv/bin/python tests/scripts/readers.py --binary target/release/meterhouse
"""
import argparse, gzip, os, subprocess, sys, tempfile

import deltalake
import polars
import pyarrow.compute

QUESTION = "SELECT count(*) AS events, sum(bytes) AS bytes FROM events"


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

        for part in range(10):
            with open(os.path.join(folder, "part.ndjson"), "w", encoding="utf-8") as out:
                out.writelines(lines[part * 1000:(part + 1) * 1000])
            run("ingest", "part.ndjson", "--quiet")
        before = deltalake.DeltaTable(os.path.join(folder, "lake/default/events")).version()
        run("compact", "--quiet")
        table = deltalake.DeltaTable(os.path.join(folder, "lake/default/events"))
        for version in range(1, table.version() + 1):
            ours = run("sql", "--quiet", "-o", "csv", "--at", str(version), QUESTION).split("\n")[1]
            table.load_as_version(version)
            column = table.to_pyarrow_table(columns=["i_bytes"]).column(0)
            delta = f"{len(column)},{pyarrow.compute.sum(column).as_py()}"
            scan = polars.scan_delta(os.path.join(folder, "lake/default/events"), version=version)
            rows = scan.select(polars.len(), polars.col("i_bytes").sum()).collect().rows()[0]
            pola = f"{rows[0]},{rows[1]}"
            checked += 1
            if not ours == delta == pola:
                wrong += 1
                print(f"version {version}: meterhouse {ours}, deltalake {delta}, Polars {pola}")
        compactions = table.version() - before
    print(f"{checked} versions ({compactions} of compactions), {wrong} differ; "
          f"deltalake {deltalake.__version__}, Polars {polars.__version__}")
    return 1 if wrong or compactions < 1 else 0


if __name__ == "__main__":
    sys.exit(main())
