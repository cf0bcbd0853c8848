"""A worker: imports layers whose blobs its parent sends, one after the other, until the parent closes the socket."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import traceback
from typing import TYPE_CHECKING

from cfs_core.image.layers import VerifiedLayer, uncompressed, verified
from cfs_core.image.pump import Pump
from cfs_core.image.workers.channel import Answer, Channel, LayerTask
from cfs_core.interfaces import block_hashing
from cfs_core.interfaces.stop import StopSignal
from cfs_core.interfaces.storage import JobResult, LayerJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.model.event import Event

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(descriptor: str, parent: str) -> None:
    """Work for the process *parent*, which has the other end of the socket *descriptor*: numbers, from argv."""
    if not _ends_with(int(parent)):
        return
    with socket.socket(fileno=int(descriptor)) as end:
        channel = Channel(end)
        with contextlib.suppress(EOFError, OSError):  # the parent has nothing more to do, or is gone
            job, hashers = channel.receive_object()
            block_hashing.adopt(hashers)
            while _serve(channel, job, channel.receive_object()):
                pass


def _ends_with(parent: int) -> bool:
    """Have the kernel kill this process when *parent* ends, however it does; returns whether it is still there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _serve(channel: Channel, job: LayerJob, task: LayerTask) -> bool:
    """Import one layer and answer; returns whether another one may follow."""
    events: list[Event] = []
    failure = where = None
    try:
        value = _import(channel, job, task, events)
    except BaseException as error:  # noqa: BLE001 - raised again in the parent, whatever it is
        where = traceback.format_exc()
        failure = _portable(error)
        value = job.remains()
        with contextlib.suppress(OSError):
            channel.read_no_more()
    result = JobResult(value=value, error=failure)
    channel.send_object(Answer(result=result, events=tuple(events), traceback=where))
    return failure is None


def _import(channel: Channel, job: LayerJob, task: LayerTask, events: list[Event]) -> object:
    def chunks() -> Iterator[bytes]:
        packed = channel.chunks()
        return verified(
            uncompressed(packed, task.descriptor, task.limits, events.append), task.descriptor, task.diff_id
        )

    with Pump(chunks, StopSignal()) as pump:
        return job.run(VerifiedLayer(pump, task.diff_id, task.limits, name=task.name))


def _portable(error: BaseException) -> BaseException:
    """Return *error*, or what says the same and can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made a moment ago
    except Exception:  # noqa: BLE001 - what a plugin's error does when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
