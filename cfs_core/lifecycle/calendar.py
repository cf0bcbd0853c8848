"""Calendar expressions of systemd (systemd.time(7)) as windows: the minutes that an expression names."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cfs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
_PART = re.compile(r"(\d+)(?:\.\.(\d+))?(?:/(\d+))?")
_BOUNDS = {
    "year": (1970, 2199),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """``start``, ``start..stop``, ``start/step``, ``start..stop/step``. Without a stop, a step goes on to the end."""

    start: int
    stop: int | None = None
    step: int | None = None

    def has(self, value: int) -> bool:
        """Return whether *value* is one of them."""
        if self.stop is None and self.step is None:
            return value == self.start
        inside = value >= self.start and (self.stop is None or value <= self.stop)
        return inside and (value - self.start) % (self.step or 1) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarExpression:
    """One expression; a component that is None is ``*``. ``days_from_end``: days are counted from the month's last."""

    weekdays: frozenset[int] | None
    years: tuple[Span, ...] | None
    months: tuple[Span, ...] | None
    days: tuple[Span, ...] | None
    days_from_end: bool
    hours: tuple[Span, ...] | None
    minutes: tuple[Span, ...] | None
    zone: tzinfo | None
    """None: the machine's own."""

    def matches(self, moment: datetime) -> bool:
        """Return whether the expression names the minute of *moment*; its seconds do not count."""
        local = moment.astimezone(self.zone)
        if self.weekdays is not None and local.weekday() not in self.weekdays:
            return False
        days = self.days
        if days is not None and self.days_from_end:
            last = calendar.monthrange(local.year, local.month)[1]
            days = tuple(_from_end(span, last) for span in days)
        return all(
            spans is None or any(span.has(value) for span in spans)
            for spans, value in (
                (self.years, local.year),
                (self.months, local.month),
                (days, local.day),
                (self.hours, local.hour),
                (self.minutes, local.minute),
            )
        )


def parse_calendar(text: str) -> CalendarExpression:
    """Read an expression: ``[WEEKDAYS] [DATE] [TIME] [ZONE]``, or a word such as ``daily``.

    Raises:
        ConfigError: it is none, in a way that systemd would say so, too, or it has fractions of seconds.
    """
    words = text.split()
    zone = _zone(words)
    if len(words) == 1 and words[0].lower() in _WORDS:
        words = _WORDS[words[0].lower()].split()
    try:
        weekday, date, time = _parts(words)
        weekdays = _weekdays(weekday) if weekday else None
        years, months, days, from_end = _date(date)
        hours, minutes = _time(time)
    except ValueError as error:
        msg = f"{text!r:.80} is no calendar expression"
        hint = "`systemd-analyze calendar` explains them; a window from two to five at night is 02..04:*"
        raise ConfigError(msg, hint=hint) from error
    return CalendarExpression(
        weekdays=weekdays,
        years=years,
        months=months,
        days=days,
        days_from_end=from_end,
        hours=hours,
        minutes=minutes,
        zone=zone,
    )


def is_open(window: Sequence[CalendarExpression], moment: datetime) -> bool:
    """Return whether one of *window*'s expressions names the minute of *moment*; no expression names all."""
    return not window or any(each.matches(moment) for each in window)


def opened_since(window: Sequence[CalendarExpression], moment: datetime, most: int) -> tuple[int, int | None]:
    """Return for how many minutes, at most *most*, the window has been open, and how many it is open in all.

    The second is None where it opened, or closes, further away than *most* minutes from the other end.
    """
    minute = timedelta(minutes=1)
    since = 0
    while since < most and is_open(window, moment - (since + 1) * minute):
        since += 1
    if since == most:
        return since, None
    length = since + 1
    while length < most and is_open(window, moment + (length - since) * minute):
        length += 1
    return since, length if length < most else None


def _from_end(span: Span, last: int) -> Span:
    start, stop = last + 1 - span.start, None if span.stop is None else last + 1 - span.stop
    return Span(start=start, step=span.step) if stop is None else Span(start=stop, stop=start, step=span.step)


def _zone(words: list[str]) -> tzinfo | None:
    """Take a time zone off the end of *words*."""
    if len(words) < 2 or not words[-1][0].isalpha():  # noqa: PLR2004 - a zone alone says no time
        return None
    name = words.pop()
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        msg = f"{name!r:.80} is no time zone of this machine"
        raise ConfigError(msg, hint="name it as timedatectl list-timezones does, or leave it out") from error


def _parts(words: list[str]) -> tuple[str, str, str]:
    """Return weekdays (empty for any), date and time."""
    left = list(words)
    weekday = left.pop(0) if left and left[0][0].isalpha() else ""
    date = left.pop(0) if left and ":" not in left[0] else "*-*-*"
    time = left.pop(0) if left else "00:00:00"
    if left or not words:
        raise ValueError(words)
    return weekday, date, time


def _weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.rstrip(",").replace("-", "..").split(","):
        first, dots, last = part.partition("..")
        start, stop = _weekday(first), _weekday(last if dots else first)
        if stop < start:
            raise ValueError(text)
        found |= set(range(start, stop + 1))
    return frozenset(found)


def _weekday(name: str) -> int:
    for number, day in enumerate(_DAYS):
        if name.lower() in {day, day[:3]}:
            return number
    raise ValueError(name)


def _date(text: str) -> tuple[tuple[Span, ...] | None, tuple[Span, ...] | None, tuple[Span, ...] | None, bool]:
    head, tilde, day = text.partition("~")
    parts = head.split("-")
    if not tilde:
        day = parts.pop()
    year, month = parts if len(parts) == 2 else ("*", *parts)  # noqa: PLR2004 - year and month
    return _spans("year", year), _spans("month", month), _spans("day", day), bool(tilde)


def _time(text: str) -> tuple[tuple[Span, ...] | None, tuple[Span, ...] | None]:
    hour, minute, *second = text.split(":")
    if len(second) > 1:
        raise ValueError(text)
    for each in second:
        _spans("second", each)
    return _spans("hour", hour), _spans("minute", minute)


def _spans(what: str, text: str) -> tuple[Span, ...] | None:
    if text == "*":
        return None
    least, most = _BOUNDS[what]
    found = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(text)
        start, stop, step = (None if number is None else int(number) for number in match.groups())
        if start is None or not least <= start <= most or (stop is not None and not start <= stop <= most) or step == 0:
            raise ValueError(text)
        found.append(Span(start=start, stop=stop, step=step))
    return tuple(found)
