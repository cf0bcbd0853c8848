"""Worker processes of one pull: started together, given one layer at a time, gone when it ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

from cfs_core.errors import HostError
from cfs_core.image.pump import Pump
from cfs_core.image.workers.channel import DATA, END, OBJECT, Channel
from cfs_core.interfaces import block_hashing
from cfs_core.interfaces.storage import JobResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cfs_core.image.workers.channel import Answer, LayerTask
    from cfs_core.interfaces.stop import StopSignal
    from cfs_core.interfaces.storage import LayerJob
    from cfs_core.model.event import Event

LEAVE_SECONDS = 5.0
"""A worker that has not ended by then, when there is nothing more to do, is killed."""

MOST_WORKERS = 16
"""However many processors there are: each takes about 40 MB, and a connection to the registry."""

# Starting a worker takes a tenth of a second of processor time; docs/explain/performance.md has what it is worth.
_WORTH_BYTES = 8 << 20

_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from cfs_core.image.workers.process import main; main(*sys.argv[1:3])"
_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEPT = ("LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""Variables that a worker is given. Of the rest of the environment nothing: there may be secrets in it."""


def worker_count(sizes: Sequence[int], wanted: int | None) -> int:
    """Return how many workers import layers of *sizes* bytes (of their blobs); 0: this process does it alone.

    *wanted* is what somebody has asked for; None: as many as there are processors that have something to do.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return 0  # nothing that workers could be started with
    if wanted is not None:
        return min(wanted, len(sizes)) if wanted > 1 else 0
    processors = len(os.sched_getaffinity(0))
    count = min(processors, len(sizes), MOST_WORKERS, sum(sizes) // _WORTH_BYTES)
    return count if count > 1 else 0


class WorkerTracebackError(Exception):
    """The traceback of an error in a worker, as its cause: for logs."""


class LayerWorkers:
    """A context manager around *count* processes that do *job*.

    The kernel kills them with the thread that this is entered in: enter it where the pull is waited for.
    """

    def __init__(self, job: LayerJob, count: int, stop: StopSignal) -> None:
        self._job = job
        self._count = count
        self._stop = stop
        self._all: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        """Start the processes.

        Raises:
            HostError: they cannot be started.
        """
        self._forget = self._stop.on_stop(self._wake)
        try:
            hashers = block_hashing.portable()
            for _ in range(self._count):
                self._all.append(_Worker(self._job, hashers))
        except OSError as error:
            self.__exit__()
            msg = f"worker processes cannot be started: {error}"
            raise HostError(msg, hint="set pull.workers = 1, and layers are imported without them") from error
        except BaseException:
            self.__exit__()
            raise
        self._idle = list(self._all)
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        for worker in self._all:
            worker.channel.close()
        for worker in self._all:
            worker.wait()

    def run(self, task: LayerTask, chunks: Callable[[], Iterator[bytes]], emit: Callable[[Event], None]) -> JobResult:
        """Have a worker import the layer whose blob *chunks* yields; waits for one that has nothing to do.

        What *chunks* raises is the result's error, whatever the worker says: a damaged transfer explains the rest.

        Raises:
            StoppedError: the pull ends.
        """
        worker = self._take()
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop.on_stop(worker.channel.say_no_more))
            result = worker.run(task, chunks, self._stop, emit)
        if result.error is None:
            with self._changed:
                self._idle.append(worker)
                self._changed.notify()
        return result

    def _take(self) -> _Worker:
        with self._changed:
            while not self._idle:
                self._stop.check()
                self._changed.wait()
            return self._idle.pop()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Worker:
    """A process, and this side's end of its socket."""

    def __init__(self, job: LayerJob, hashers: Mapping[str, bytes]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = _start(theirs.fileno(), job.descriptors)
            except BaseException:
                ours.close()
                raise
        self.channel = Channel(ours)
        # A worker that has not come up does not read: the first layer tells.
        with contextlib.suppress(OSError):
            self.channel.send_object((job, hashers))

    def run(
        self, task: LayerTask, chunks: Callable[[], Iterator[bytes]], stop: StopSignal, emit: Callable[[Event], None]
    ) -> JobResult:
        failure: BaseException | None = None
        try:
            self._feed(task, chunks, stop)
        except BaseException as error:  # noqa: BLE001 - the result's error, whatever it is
            failure = error
            self.channel.say_no_more()
        try:
            answer: Answer = self.channel.receive_object()
        except (EOFError, OSError):
            return JobResult(value=None, error=failure or self._gone())
        for event in answer.events:
            emit(event)
        raised = answer.result.error
        if raised is not None:
            raised.__cause__ = WorkerTracebackError(f"in a worker:\n{answer.traceback}")
        return JobResult(value=answer.result.value, error=failure or raised)

    def _feed(self, task: LayerTask, chunks: Callable[[], Iterator[bytes]], stop: StopSignal) -> None:
        """Send the layer; a worker that reads no more has its reasons, and will say them."""
        if not self._sent(OBJECT, pickle.dumps(task, pickle.HIGHEST_PROTOCOL)):
            return
        with Pump(chunks, stop) as pump:
            for chunk in pump:
                if not self._sent(DATA, chunk):
                    stop.check()
                    return
        self._sent(END)

    def _sent(self, kind: bytes, data: bytes = b"") -> bool:
        try:
            self.channel.send(kind, data)
        except OSError:
            return False
        return True

    def _gone(self) -> HostError:
        status = self.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"exited with {status}"
        msg = f"a worker process that imported a layer {how}"
        hint = "is memory short? with pull.workers = 1 layers are imported without worker processes"
        return HostError(msg, hint=hint, facts={"status": status})

    def wait(self) -> int:
        """Return the exit status, negative for a signal."""
        try:
            return self.process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _start(descriptor: int, others: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a process that runs `cfs_core.image.workers.process`, with the modules that this one finds."""
    path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is the current directory
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"LC_ALL": "C.UTF-8"}
    # A terminal's signals go to all processes of a command: this one decides what they mean, and tells the workers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        return subprocess.Popen(  # noqa: S603 - argv is a list, no shell
            [sys.executable, "-I", "-c", _BOOT, str(descriptor), str(os.getpid()), *path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            pass_fds=(descriptor, *others),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
