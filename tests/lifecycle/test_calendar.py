"""Windows as calendar expressions: what they name, what is refused, and that systemd reads them the same."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from cfs_core.errors import ConfigError
from cfs_core.lifecycle.calendar import is_open, opened_since, parse_calendar

GOOD = [
    "Mon..Fri 02:00", "Sat,Sun 02..04:*", "*:0/10", "*-*~1 3:*", "Mon, 02..03:*", "Mon-Fri 2:*",
    "Sat *-*~07/1 02..04:*", "2026-*-01,15 1..3,20:*", "*-*~02..05 *:*", "*-01..03-1/7 12:30/7", "05~07/1 *:*",
    "*-4~01 *:*", "03-01", "daily",
    "daily UTC", "hourly", "quarterly", "Sat", "0:5..20/5", "02:00 Europe/Berlin", "WEDNESDAY..sun 7:07:30", "*-02-29",
]  # fmt: skip
BAD = [
    "", "12", "Fri..Mon 2:00", "*/5:00", "2:60", "24:00", "Mon Tue 2:00", "10..5:00", "*-*-* 2:0/0", "1:2:3:4",
    "1-2-3-4", "2:00 Nowhere/Else", "Moon 2:00", "*-13-01", "*-*-32", "2:00 3:00", "a:b", "2026-1", "::",
]  # fmt: skip


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """The zone that expressions without one mean."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("Sat,Sun 02..04:*", "2026-01-03 02:00:59", "2026-01-02 02:00:00"),
        ("Sat,Sun 02..04:*", "2026-01-04 04:59:59", "2026-01-04 05:00:00"),
        ("*-*~01 *:*", "2028-02-29 12:00", "2028-02-28 12:00"),
        ("*-*~02..05 *:*", "2026-04-26 00:00", "2026-04-30 00:00"),
        ("Sat *-*~07/1 3:*", "2026-01-31 03:30", "2026-01-24 03:30"),
        ("*:0/10", "2026-01-01 05:20:09", "2026-01-01 05:21"),
        ("02:00 Europe/Berlin", "2026-07-01 00:00", "2026-07-01 02:00"),
        ("daily", "2026-07-01 00:00", "2026-07-01 00:01"),
    ],
)
def test_what_an_expression_names(text, inside, outside):
    expression = parse_calendar(text)
    assert expression.matches(at(inside))
    assert not expression.matches(at(outside))


@pytest.mark.parametrize("text", BAD)
def test_what_is_none_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_calendar(text)
    assert caught.value.hint


def test_how_long_a_window_is_open():
    window = [parse_calendar("02..04:*"), parse_calendar("5:0..9")]
    assert opened_since(window, at("2026-01-01 02:00"), 300) == (0, 190)
    assert opened_since(window, at("2026-01-01 05:09"), 300) == (189, 190)
    assert opened_since(window, at("2026-01-01 05:09"), 60) == (60, None)
    assert opened_since(window, at("2026-01-01 02:30"), 60) == (30, None)
    assert opened_since([], at("2026-01-01 02:30"), 60) == (60, None)
    assert is_open([], at("2026-01-01 02:30"))
    assert not is_open(window, at("2026-01-01 05:10"))


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", [*GOOD, *BAD])
def test_systemd_reads_it_the_same(text):
    """The minutes in which systemd's timer would elapse next are those that match, and no others between them."""
    start = at("2026-02-25 23:51")
    words = ["systemd-analyze", "calendar", "--iterations=30", f"--base-time={start:%Y-%m-%d %H:%M:%S} UTC", "--", text]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"}, check=False
    )
    try:
        expression = parse_calendar(text)
    except ConfigError:
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(?:Next elapse|Iter\. #\d+|\(in UTC\)): \w+ (\S+ \S+) (\w+)", done.stdout)
    minutes = sorted({at(time).replace(second=0) for time, zone in found if zone == "UTC"})
    assert minutes
    assert all(expression.matches(each) for each in minutes)
    minute = timedelta(minutes=1)
    last, moment, between = minutes[-1], start + minute, []
    if last - start < timedelta(days=8):
        while moment <= last:
            between += [moment] if expression.matches(moment) else []
            moment += minute
        assert between == minutes
    else:
        chosen = random.Random(text)
        tried = [start + minute * (1 + chosen.randrange((last - start) // minute)) for _ in range(5000)]
        assert [each for each in tried if expression.matches(each) and each not in minutes] == []
