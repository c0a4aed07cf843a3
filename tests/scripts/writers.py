#!/usr/bin/env python3
"""Several processes ingest the same events into one lake at once, each with a key index of its own: every event must count
once, and every writer's account must add up.

    cargo build --release
    python3 tests/scripts/writers.py --binary target/release/meterhouse --writers 10 --events 1000000
"""
import argparse, os, re, subprocess, sys, tempfile, time


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "events.ndjson"), "w", encoding="utf-8") as out:
            for n in range(options.events):
                out.write(f'{{"event_name":"hit","idempotency_key":"k{n}","customer_id":"c{n % 97}",'
                          f'"timestamp":"2026-06-{n % 5 + 1:02}T{n % 24:02}:00:00Z","properties":{{"n":{n}}}}}\n')
        start = time.monotonic()
        command = [binary, "ingest", "events.ndjson", "--memory", "256MiB", "--commit-events", str(options.events // 4)]
        running = [subprocess.Popen([*command, "--state", f"state-{writer}"], cwd=folder, stderr=subprocess.PIPE, text=True)
                   for writer in range(options.writers)]
        accepted = duplicate = 0
        for writer, process in enumerate(running):
            said = process.communicate()[1]
            account = re.search(r"([\d,]+) read, ([\d,]+) accepted, ([\d,]+) duplicate, 0 conflict, 0 rejected", said)
            if process.returncode != 0 or account is None:
                sys.exit(f"writer {writer}: {said}")
            numbers = [int(number.replace(",", "")) for number in account.groups()]
            if numbers[0] != options.events or numbers[1] + numbers[2] != numbers[0]:
                sys.exit(f"writer {writer}: {said}")
            accepted, duplicate = accepted + numbers[1], duplicate + numbers[2]
        seconds = time.monotonic() - start
        question = "SELECT count(*), count(DISTINCT idempotency_key), sum(n) FROM events"
        answer = subprocess.run([binary, "sql", "-q", "-o", "csv", question], cwd=folder, capture_output=True, text=True)
        rows = answer.stdout.strip().split("\n")[-1]
        want = f"{options.events},{options.events},{options.events * (options.events - 1) // 2}"
        print(f"{options.writers} writers, {seconds:.0f} s: {accepted} accepted, {duplicate} duplicate; in the lake {rows}, "
              f"wanted {want}")
        return 0 if rows == want and accepted == options.events else 1


if __name__ == "__main__":
    sys.exit(main())
