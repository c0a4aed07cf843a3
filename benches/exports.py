#!/usr/bin/env python3
"""Time and peak memory of closing a period and of exporting it, by number of customers: a line for each.

    cargo build --release
    python3 benches/exports.py --binary target/release/meterhouse --lines 1000000,5000000
"""
import argparse, os, subprocess, sys, tempfile, time

METER = "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\nunit: { name: GB, divide_by: 1000000000 }\n"


def events(count):
    for n in range(count):
        yield (f'{{"event_name":"e","idempotency_key":"{n:x}","customer_id":"customer-{n * 2654435761 % 2**32:010}",'
               f'"timestamp":"2025-10-{n % 31 + 1:02}T{n % 24:02}:00:00Z","properties":{{"bytes":{n * 48271 % 2**31}}}}}\n')


def measured(command, folder):
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: exit status {status}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--lines", default="1000000,5000000")
    parser.add_argument("--memory", default="", help="what --memory is set to")
    options = parser.parse_args()
    binary = [os.path.abspath(options.binary)] + (["--memory", options.memory] if options.memory else [])
    print("| lines | command | s | peak MiB | MB |\n|---|---|---|---|---|")
    for lines in map(int, options.lines.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "queries", "meters"))
            with open(os.path.join(folder, "queries", "meters", "bytes.yaml"), "w", encoding="ascii") as out:
                out.write(METER)
            with open(os.path.join(folder, "events.ndjson"), "w", encoding="ascii") as out:
                out.writelines(events(lines))
            measured([*binary, "ingest", "events.ndjson"], folder)
            measured([*binary, "compact"], folder)
            os.remove(os.path.join(folder, "events.ndjson"))

            def told(what, command, name=None):
                seconds, peak = measured([*binary, *command], folder)
                size = f"{os.path.getsize(os.path.join(folder, name)) / 1e6:,.0f}" if name else ""
                print(f"| {lines:,} | {what} | {seconds:.1f} | {peak:.0f} | {size} |", flush=True)

            told("close", ["periods", "close", "2025-10"])
            for name in ["s.csv", "s.ndjson", "s.parquet", "s.xlsx"]:
                told(f"export statements {name[2:]}", ["export", "statements", "--out", name], name)
            told("export usage csv", ["export", "usage", "bytes", "--period", "2025-10", "--out", "u.csv"], "u.csv")


if __name__ == "__main__":
    main()
