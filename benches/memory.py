#!/usr/bin/env python3
"""Peak memory of an ingest, by number of events: it must not grow with the input.

    cargo build --release
    python3 benches/memory.py --binary target/release/meterhouse --events 1000000,5000000,20000000
"""
import argparse, os, subprocess, sys, tempfile, time


def lines(first, count):
    for n in range(first, first + count):
        yield (f'{{"event_name":"transfer","idempotency_key":"{n * 2654435761 % 2**64:016x}","customer_id":"c{n * 7919 % 10007}",'
               f'"timestamp":"2025-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:{n * 31 % 60:02}Z",'
               f'"properties":{{"bytes":{n * 48271 % 2**31},"domain":"d{n % 97}.test","status":{200 + n % 5}}}}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--events", default="1000000,5000000,20000000")
    parser.add_argument("--memory", default="512MiB")
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    print("| events | input MB | s | peak MiB |\n|---|---|---|---|")
    for events in map(int, options.events.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "events.ndjson")
            with open(path, "w", encoding="ascii") as out:
                out.writelines(lines(0, events))
            start = time.monotonic()
            process = subprocess.Popen([binary, "ingest", path, "--quiet", "--memory", options.memory], cwd=folder)
            _, status, usage = os.wait4(process.pid, 0)
            if status != 0:
                sys.exit(f"{events} events: exit status {status}")
            print(f"| {events:,} | {os.path.getsize(path) / 1e6:,.0f} | {time.monotonic() - start:.1f} "
                  f"| {usage.ru_maxrss / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    main()
