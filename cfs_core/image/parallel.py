"""Several transfers at the same time, of which the first error ends all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfs_core.interfaces.stop import StopSignal

T = TypeVar("T")


def run_parallel(
    jobs: Sequence[Callable[[], T]], threads: int, stops: Sequence[StopSignal], *, done: Callable[[T], None]
) -> None:
    """Run *jobs* in their order, *threads* at the same time, and hand each result to *done* in this thread.

    The first error ends the other jobs, as a signal or an error of *done* does, by *stops*. No job runs afterwards.

    Raises:
        Exception: that first error.
    """
    with ThreadPoolExecutor(max(1, min(threads, len(jobs))), thread_name_prefix="cfs-parallel") as pool:
        try:
            for each in as_completed([pool.submit(job) for job in jobs]):
                done(each.result())
        except BaseException:
            for stop in stops:
                stop.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            for stop in stops:
                stop.clear()
            raise
