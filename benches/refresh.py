#!/usr/bin/env python3
"""Time of a refresh of rollups after 100,000 new events, by how many there were before: it must not grow with them.

    cargo build --release
    python3 benches/refresh.py --binary target/release/meterhouse --events 1000000,20000000
"""
import argparse, os, statistics, subprocess, sys, tempfile, time

METERS = {
    "bytes": "aggregation: sum\nproperty: bytes\ndimensions: [status]",
    "requests": "aggregation: count\ndimensions: [status]",
    "domains": "aggregation: count_unique\nproperty: domain",
}
NEW = 100_000


def lines(first, count):
    for n in range(first, first + count):
        yield (f'{{"event_name":"transfer","idempotency_key":"{n:x}","customer_id":"c{n * 7919 % 10007}",'
               f'"timestamp":"2025-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:{n * 31 % 60:02}Z",'
               f'"properties":{{"bytes":{n * 48271 % 2**31},"domain":"d{n % 97}.test","status":{200 + n % 5}}}}}\n')


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
    parser.add_argument("--events", default="1000000,20000000")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    print("| events before | first refresh s | peak MiB | refresh of 100,000 new s | peak MiB |\n|---|---|---|---|---|")
    for events in map(int, options.events.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "queries", "meters"))
            for name, meter in METERS.items():
                with open(os.path.join(folder, "queries", "meters", f"{name}.yaml"), "w", encoding="ascii") as out:
                    out.write(f"meter: {name}\n{meter}\n")

            def ingest(first, count):
                path = os.path.join(folder, "events.ndjson")
                with open(path, "w", encoding="ascii") as out:
                    out.writelines(lines(first, count))
                measured([binary, "ingest", "events.ndjson"], folder)
                os.remove(path)

            ingest(0, events)
            measured([binary, "compact"], folder)
            whole = measured([binary, "rollups", "refresh"], folder)
            new = []
            for run in range(options.runs):
                ingest(events + run * NEW, NEW)
                new.append(measured([binary, "rollups", "refresh"], folder))
            print(f"| {events:,} | {whole[0]:.1f} | {whole[1]:.0f} | {statistics.median(run[0] for run in new):.2f} "
                  f"| {max(run[1] for run in new):.0f} |", flush=True)


if __name__ == "__main__":
    main()
