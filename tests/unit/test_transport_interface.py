"""What core guarantees over any transport: verified bytes, resuming, and an end to trying again."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from cfs_core.plugin import (
    CannotResumeError,
    Descriptor,
    Digest,
    Fetcher,
    ImageReference,
    LimitError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    Retrier,
    RetryPolicy,
    Transport,
    TransportError,
    TruncatedError,
    UnreachableError,
    VerificationError,
)

DATA = bytes(range(256)) * 40
REFERENCE = ImageReference(scheme="test", name="x", text="test:x")
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))


class Script(Transport):
    """Serves DATA; each opening follows the next line of a script: (bytes before the fault, the fault)."""

    def __init__(self, *script, resumes=True, content=DATA):
        self.script = list(script)
        self.resumes = resumes
        self.content = content
        self.opened = []
        self.waits = []

    def read_manifest(self, reference, accept):
        self.opened.append("manifest")
        if self.script:
            fault = self.script.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return "", fault
        return "", self.content

    @contextmanager
    def open_blob(self, reference, descriptor, offset):
        self.opened.append(offset)
        if offset and not self.resumes:
            msg = "only from the start"
            raise CannotResumeError(msg)
        yield self._read(offset)

    def _read(self, offset):
        stop, fault = self.script.pop(0) if self.script else (None, None)
        data = self.content[offset:] if stop is None else self.content[offset : offset + stop]
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]
        if fault is not None:
            raise fault


class Scripted(Fetcher):
    """What core makes of a script."""

    def __init__(self, *script, **facts):
        source = Script(*script, **facts)
        super().__init__(source, Retrier(pause=source.waits.append))
        self.opened, self.waits = source.opened, source.waits


def reset(retry_after=None):
    return UnreachableError("connection reset", transient=True, retry_after=retry_after)


def test_a_blob_is_resumed_where_it_broke_off():
    transport = Scripted((3000, reset()), (2500, reset()))
    assert b"".join(transport.iter_blob(REFERENCE, BLOB)) == DATA
    assert transport.opened == [0, 3000, 5500]


def test_a_source_without_ranges_is_read_from_its_start_again():
    transport = Scripted((3001, reset()), resumes=False)
    assert b"".join(transport.iter_blob(REFERENCE, BLOB)) == DATA
    assert transport.opened == [0, 3001, 0]


def test_an_early_end_is_resumed_and_at_last_an_error():
    transport = Scripted((3000, None))
    assert b"".join(transport.iter_blob(REFERENCE, BLOB)) == DATA
    stuck = Scripted(*[(0, None)] * 9)
    with pytest.raises(TruncatedError) as caught:
        list(stuck.iter_blob(REFERENCE, BLOB))
    assert stuck.opened == [0] * 4
    assert stuck.waits == [0.5, 1.0, 2.0]
    assert caught.value.exit_status == 6


def test_progress_makes_the_count_begin_anew_until_the_budget_is_spent():
    transport = Scripted(*[(100, reset())] * 30)
    transport.retrier.policy = RetryPolicy(progress_bytes=100)
    assert b"".join(transport.iter_blob(REFERENCE, BLOB)) == DATA
    spent = Scripted(*[(100, reset())] * 100)
    spent.retrier.policy = RetryPolicy(total=5, progress_bytes=100)
    with pytest.raises(UnreachableError):
        list(spent.iter_blob(REFERENCE, BLOB))
    assert len(spent.opened) == 6


def test_a_few_bytes_each_time_are_no_progress():
    transport = Scripted(*[(100, reset())] * 30)
    with pytest.raises(UnreachableError):
        list(transport.iter_blob(REFERENCE, BLOB))
    assert transport.opened == [0, 100, 200, 300]


def test_the_source_says_how_long_to_wait():
    transport = Scripted((0, RateLimitedError("slow down", transient=True, retry_after=7)))
    assert b"".join(transport.iter_blob(REFERENCE, BLOB)) == DATA
    assert transport.waits == [7.0]


def test_asking_for_an_hour_is_an_error_at_once():
    transport = Scripted((0, RateLimitedError("slow down", transient=True, retry_after=3600)))
    with pytest.raises(RateLimitedError):
        list(transport.iter_blob(REFERENCE, BLOB))
    assert transport.waits == []


def test_all_threads_wait_no_longer_than_the_total():
    transport = Scripted(*[(10, RateLimitedError("slow", transient=True, retry_after=100))] * 9)
    transport.retrier.policy = RetryPolicy(progress_bytes=10)
    with pytest.raises(RateLimitedError):
        list(transport.iter_blob(REFERENCE, BLOB))
    assert sum(transport.waits) == 600


def test_what_is_not_transient_is_tried_once():
    transport = Scripted((0, NotFoundError("no such blob")))
    with pytest.raises(NotFoundError):
        list(transport.iter_blob(REFERENCE, BLOB))
    assert transport.opened == [0]


@pytest.mark.parametrize("content", [DATA + b"x", b"x" + DATA[1:]], ids=["one too many", "other bytes"])
def test_wrong_bytes_are_never_retried(content):
    transport = Scripted(content=content)
    with pytest.raises(VerificationError):
        list(transport.iter_blob(REFERENCE, BLOB))
    assert transport.opened == [0]


def test_an_operating_system_error_becomes_a_transport_error():
    transport = Scripted((10, PermissionError("no")))
    with pytest.raises(TransportError):
        list(transport.iter_blob(REFERENCE, BLOB))


def test_a_manifest_is_retried_bounded_and_checked():
    transport = Scripted(reset(), reset())
    assert transport.fetch_manifest(REFERENCE, expected=BLOB.digest) == ("", DATA)
    assert transport.opened == ["manifest"] * 3
    with pytest.raises(VerificationError):
        Scripted(b"{}").fetch_manifest(REFERENCE, expected=BLOB.digest)
    with pytest.raises(LimitError):
        Scripted(bytes(4 * 1024 * 1024 + 1)).fetch_manifest(REFERENCE)


def test_a_config_has_a_limit():
    with pytest.raises(LimitError):
        Scripted().fetch_bytes(REFERENCE, BLOB, limit=100)
    assert Scripted().fetch_bytes(REFERENCE, BLOB) == DATA


def test_writing_is_refused_unless_implemented():
    with pytest.raises(RefusedError):
        Scripted().open_writer(REFERENCE)
