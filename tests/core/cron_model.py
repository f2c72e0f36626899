"""When a cron expression ticks, the slow way: every minute of real time is looked at.

It shares nothing with `worchflow_core.cron`, not even the reading of fields, so that the two can
be held against each other. It knows `*`, numbers, ranges, lists and steps.

Run as a script it writes `golden/cron.json`; what that says of a few transitions was checked by
hand, and `test_cron.py` repeats those.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

GOLDEN = Path(__file__).parent / "golden" / "cron.json"
MINUTE = timedelta(minutes=1)
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))

# Days around both shifts of each zone, as UTC; years that are over, so that no law changes them.
SPANS = {
    "America/New_York": [
        ("2024-03-09T12:00", "2024-03-11T12:00"),
        ("2024-11-02T12:00", "2024-11-04T12:00"),
    ],
    "Europe/Paris": [
        ("2024-03-30T12:00", "2024-04-01T12:00"),
        ("2024-10-26T12:00", "2024-10-28T12:00"),
    ],
    "Australia/Lord_Howe": [
        ("2024-04-05T20:00", "2024-04-07T20:00"),
        ("2024-10-04T20:00", "2024-10-06T20:00"),
    ],
    "Pacific/Apia": [
        ("2011-12-29T00:00", "2012-01-01T00:00"),  # the day that was skipped
        ("2020-09-25T20:00", "2020-09-27T20:00"),
        ("2021-04-02T20:00", "2021-04-04T20:00"),
    ],
    "UTC": [("2024-02-28T12:00", "2024-03-01T12:00")],
}
TEXTS = (
    "30 2 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "15,45 1-3 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "0 */6 * * *",
    "*/20 5 * * *",
    "0 9 * * 1-5",
    "0 12 1 * 0",
    "0,20,40 30 2 * * *",
    "*/30 59 * * * *",
)


def values(field: str, low: int, high: int) -> set[int]:
    """Return the numbers that a field names."""
    chosen: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        ends = [low, high] if span == "*" else [int(end) for end in span.split("-")]
        first, last = ends[0], ends[-1]
        if step and span.isdecimal():
            last = high
        chosen |= set(range(first, last + 1, int(step or 1)))
    return chosen


class Fields:
    """Five fields, read."""

    def __init__(self, fields: list[str]) -> None:
        named = [values(field, *span) for field, span in zip(fields, RANGES, strict=True)]
        self.minute, self.hour, self.day, self.month, weekday = named
        self.weekday = {number % 7 for number in weekday}
        # Debian: both must hold where one of the two begins with a star, else one is enough.
        self.needs_both = fields[2].startswith("*") or fields[4].startswith("*")
        self.is_interval = fields[0].startswith("*") or fields[1].startswith("*")

    def match(self, wall: datetime) -> bool:
        """Return whether they name a wall-clock minute."""
        if wall.minute not in self.minute or wall.hour not in self.hour:
            return False
        on_day, on_weekday = wall.day in self.day, wall.isoweekday() % 7 in self.weekday
        on_date = on_day and on_weekday if self.needs_both else on_day or on_weekday
        return wall.month in self.month and on_date


@lru_cache(maxsize=64)
def minutes_of(zone: str, begin: datetime, end: datetime) -> tuple[list[datetime], list[datetime]]:
    """Return each minute of real time, and what the clock on the wall shows then."""
    place = ZoneInfo(zone)
    # Two days more on both sides: walls are shown a second time, or skipped, across the edges.
    real = [begin - timedelta(days=2)]
    while real[-1] < end + timedelta(days=2):
        real.append(real[-1] + MINUTE)
    return real, [moment.astimezone(place).replace(tzinfo=None) for moment in real]


def ticks(text: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """Return the ticks from `begin` until before `end`, both whole minutes in UTC."""
    parts = text.split()
    seconds = sorted(values(parts[0], 0, 59)) if len(parts) == 6 else [0]
    fields = Fields(parts[-5:])
    real, walls = minutes_of(zone, begin, end)
    if fields.is_interval:
        pairs = zip(real, walls, strict=True)
        minutes = [moment for moment, wall in pairs if fields.match(wall)]
    else:
        minutes = fixed(fields, real, walls)
    found = [minute + timedelta(seconds=second) for minute in minutes for second in seconds]
    return [tick for tick in found if begin <= tick < end]


def fixed(fields: Fields, real: list[datetime], walls: list[datetime]) -> list[datetime]:
    """Return when fixed times tick: the first time shown; right after the gap if never shown."""
    chosen: list[datetime] = []
    highest = walls[0]
    for moment, wall in zip(real, walls, strict=True):
        skipped = []
        while highest < wall:
            highest += MINUTE
            skipped.append(highest)
        # What the clock newly passed: this wall alone, or a whole gap that ends here.
        if any(fields.match(passed) for passed in skipped):
            chosen.append(moment)
    return chosen


def aware(text: str) -> datetime:
    """Return a moment of the golden file."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def golden() -> list[dict[str, object]]:
    """Return all cases of the golden file."""
    return [
        {
            "cron": text,
            "zone": zone,
            "from": begin,
            "until": end,
            "ticks": [
                tick.astimezone(ZoneInfo(zone)).isoformat()
                for tick in ticks(text, zone, aware(begin), aware(end))
            ],
        }
        for zone, spans in SPANS.items()
        for begin, end in spans
        for text in TEXTS
    ]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(case) for case in golden())
    GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
