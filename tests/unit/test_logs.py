"""Logs and progress: secrets go in and do not come out; machines get one JSON object per line."""

import json
import os

import pytest

from cfs_core.model.event import Event
from cfs_core.report.logs import LEVELS, REDACTED, Logs, drop_secrets
from cfs_core.report.progress import JsonProgress, SilentProgress, human_bytes

SECRET = "hunter2-s3cr3t"


@pytest.mark.parametrize(
    "facts",
    [
        {"password": SECRET},
        {"registry_token": SECRET},
        {"Authorization": SECRET},
        {"auth": SECRET},
        {"client_secret": SECRET},
        {"private_key": SECRET},
        {"cookie": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}", "Accept": "x"}},
        {"headers": {"X": f"Bearer {SECRET}"}},
        {"url": f"https://user:{SECRET}@registry.test/v2/"},
        {"error": f"401 for https://user:{SECRET}@registry.test/v2/ with Basic {SECRET}"},
        {"argv": ["curl", "-H", f"Authorization: Basic {SECRET}"]},
        {"nested": [{"deep": {"password": SECRET}}]},
        {"nested": {"list": [f"bearer {SECRET}"]}},
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_secrets_do_not_reach_the_log(capfd, facts, as_json):
    Logs(level="debug", as_json=as_json).info("blob.fetched", **facts)
    printed = capfd.readouterr()
    assert "blob.fetched" in printed.err
    assert SECRET not in printed.err
    assert REDACTED.strip("[]") in printed.err
    assert printed.out == ""


def test_secrets_in_bound_facts_and_in_exceptions_are_dropped(capfd):
    log = Logs(level="debug", as_json=True).bind(token=SECRET)
    error = ValueError(f"cannot reach https://user:{SECRET}@registry.test")
    log.error("run.failed", exc_info=error, cause=error)
    text = capfd.readouterr().err
    assert "run.failed" in text
    assert "ValueError" in text
    assert SECRET not in text


def test_ordinary_facts_stay_as_they_are():
    facts = {"event": "token.fetched", "size_bytes": 7, "digest": "sha256:ab", "author": "x", "path": "/a/b@c"}
    assert drop_secrets(None, "", dict(facts)) == facts


def test_json_lines_have_time_level_and_event(capfd):
    Logs(level="info", as_json=True).warning("layer.stored", size_bytes=3)
    record = json.loads(capfd.readouterr().err)
    assert record["event"] == "layer.stored"
    assert record["level"] == "warning"
    assert record["size_bytes"] == 3
    assert record["timestamp"].endswith("Z")


@pytest.mark.parametrize("level", LEVELS)
def test_levels_below_are_silent(capfd, level):
    log = Logs(level=level)
    for name in LEVELS:
        getattr(log, name)(f"{name}.logged")
    printed = capfd.readouterr().err
    assert [name for name in LEVELS if f"{name}.logged" in printed] == list(LEVELS)[list(LEVELS).index(level) :]


def test_progress_is_one_json_object_per_line():
    reading, writing = os.pipe()
    progress = JsonProgress(writing)
    progress.start("layers", total=10)
    progress.advance("layers", 4)
    progress.advance("unknown", 4)
    progress.event(Event(name="layer.stored", facts={"size_bytes": 4}))
    progress.advance("layers", 6)
    progress.finish("layers")
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    assert records[0] == {"type": "progress", "task": "layers", "done": 0, "total": 10, "unit": "bytes"}
    assert records[-1] == {
        "type": "progress",
        "task": "layers",
        "done": 10,
        "total": 10,
        "unit": "bytes",
        "finished": True,
    }
    assert {"type": "event", "event": "layer.stored", "facts": {"size_bytes": 4}} in records


def test_a_reader_that_goes_away_does_not_end_the_run():
    reading, writing = os.pipe()
    progress = JsonProgress(writing)
    os.close(reading)
    progress.start("layers", total=None)
    progress.finish("layers")
    os.close(writing)


def test_silence_takes_everything():
    progress = SilentProgress()
    progress.start("x", total=None)
    progress.advance("x", 1)
    progress.finish("x")
    progress.close()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1 << 30, "1 GiB"), (5 << 40, "5 TiB")]
)
def test_bytes_for_people(count, text):
    assert human_bytes(count) == text
