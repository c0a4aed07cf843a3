#!/usr/bin/env python3
"""Time of a refresh of rollups after 100,000 new events, by how many there were before: it must not grow with them.

    cargo build --release
    python3 benches/refresh.py --binary target/release/meterhouse --events 1000000,20000000
"""
import argparse, contextlib, os, statistics, subprocess, sys, tempfile, time

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
    with contextlib.ExitStack() as folders:
        lakes = []
        for events in map(int, options.events.split(",")):
            lake = Lake(binary, folders.enter_context(tempfile.TemporaryDirectory()), events)
            lakes.append((lake, lake.begin()))
        print("prepared; from here on nothing else should run", file=sys.stderr, flush=True)
        # In turns, so that a slow minute of the machine is one of all.
        new = [[lake.more() for lake, _ in lakes] for _ in range(options.runs)]
        print("| events before | first refresh s | peak MiB | refresh of 100,000 new s | peak MiB |\n|---|---|---|---|---|")
        for (lake, whole), runs in zip(lakes, zip(*new)):
            print(f"| {lake.events:,} | {whole[0]:.1f} | {whole[1]:.0f} | {statistics.median(run[0] for run in runs):.2f} "
                  f"| {max(run[1] for run in runs):.0f} |")


class Lake:
    def __init__(self, binary, folder, events):
        self.binary, self.folder, self.events, self.next = binary, folder, events, 0
        os.makedirs(os.path.join(folder, "queries", "meters"))
        for name, meter in METERS.items():
            with open(os.path.join(folder, "queries", "meters", f"{name}.yaml"), "w", encoding="ascii") as out:
                out.write(f"meter: {name}\n{meter}\n")

    def run(self, *arguments):
        return measured([self.binary, *arguments], self.folder)

    def ingest(self, count):
        path = os.path.join(self.folder, "events.ndjson")
        with open(path, "w", encoding="ascii") as out:
            out.writelines(lines(self.next, count))
        self.run("ingest", "events.ndjson")
        os.remove(path)
        self.next += count

    def begin(self):
        self.ingest(self.events)
        self.run("compact")
        return self.run("rollups", "refresh")

    def more(self):
        self.ingest(NEW)
        return self.run("rollups", "refresh")


if __name__ == "__main__":
    main()
