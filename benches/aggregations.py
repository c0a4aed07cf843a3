#!/usr/bin/env python3
"""Time and peak memory of every aggregation over the same events, beside a plain sum.

    cargo build --release
    python3 benches/aggregations.py --binary target/release/meterhouse --events 2000000
"""
import argparse, os, statistics, subprocess, sys, tempfile, time

METERS = {
    "sum": "aggregation: sum\nproperty: bytes",
    "expression": "aggregation: sum\nexpression: bytes * factor",
    "weight": "aggregation: sum\nproperty: bytes\nweight: factor",
    "percentile": "aggregation: percentile\npercentile: 95\nproperty: bytes",
    "sum of max per hour": "aggregation: sum\nof: { aggregation: max, property: bytes, per: hour }",
    "time_weighted change": "aggregation: time_weighted\nproperty: bytes\nof: change",
    "time_weighted level": "aggregation: time_weighted\nproperty: bytes\nof: level",
    "reported": "aggregation: reported\nproperty: bytes\noperation: behaviour",
    "count_unique with operation": "aggregation: count_unique\nproperty: seat\noperation: action",
    "the same prorated by days": "aggregation: count_unique\nproperty: seat\noperation: action\nprorate: days",
    "period prorated": "aggregation: sum\nproperty: bytes\nperiod: { start: start, end: end }",
}
QUESTIONS = {
    "month": ["--by", "customer_id", "--period", "2025-10"],
    "days": ["--by", "customer_id", "--period", "2025-10", "--window", "day"],
    "hours": ["--by", "customer_id", "--period", "2025-10", "--window", "hour"],
}


def lines(count, customers):
    for n in range(count):
        day, hour = n * 31 // count + 1, n * 7 % 24
        at = f"2025-10-{day:02}T{hour:02}:{n % 60:02}:{n * 31 % 60:02}Z"
        action, behaviour = ("remove" if n % 3 == 2 else "add"), ("SET" if n % 50 == 0 else "DELTA")
        yield (f'{{"event_name":"e","idempotency_key":"{n:x}","customer_id":"c{n * 7919 % customers}","timestamp":"{at}",'
               f'"properties":{{"bytes":{n * 48271 % 2**31},"factor":{n % 7}.5,"seat":"s{n // 3 % 300}","action":"{action}",'
               f'"behaviour":"{behaviour}","start":"2025-10-{day:02}T{hour:02}:00:00Z","end":"2025-10-{day:02}T{hour:02}:59:59Z"}}}}\n')


def measured(command, folder):
    start = time.monotonic()
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, cwd=folder, stdout=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: exit status {status}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--customers", type=int, default=10_007)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--questions", default="month,days,hours")
    parser.add_argument("--only", default="", help="names of aggregations, beside the sum")
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "events.ndjson"), "w", encoding="ascii") as out:
            out.writelines(lines(options.events, options.customers))
        measured([binary, "ingest", "events.ndjson", "--quiet"], folder)
        os.mkdir(os.path.join(folder, "meters"))
        print("| aggregation | " + " | ".join(f"{name} s | x sum | peak MiB" for name in options.questions.split(",")) + " |")
        print("|---" * (1 + 3 * len(options.questions.split(","))) + "|")
        base = {}
        wanted = options.only.split(",") if options.only else METERS
        for name, meter in METERS.items():
            if name != "sum" and name not in wanted:
                continue
            with open(os.path.join(folder, "meters", "m.yaml"), "w", encoding="ascii") as out:
                out.write(f"meter: m\n{meter}\n")
            cells = []
            for question in options.questions.split(","):
                if question == "hours" and "prorate: days" in meter:
                    cells.append("– | – | –")  # days do not fit into hours
                    continue
                command = [binary, "usage", "m", "--meters", "meters", "-o", "csv", "--quiet", *QUESTIONS[question]]
                runs = [measured(command, folder) for _ in range(options.runs)]
                seconds = statistics.median(run[0] for run in runs)
                base.setdefault(question, seconds)
                cells.append(f"{seconds:.2f} | {seconds / base[question]:.1f} | {max(run[1] for run in runs):.0f}")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
