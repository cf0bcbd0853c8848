"""Reading the layers of an image: fetched, decompressed and verified in a thread of its own, or all in one thread.

    python benchmarks/bench_layers.py oci:DIRECTORY:TAG

The consumer hashes every file with SHA-512, as a repository would. Best wall-clock time of three runs; run it on a
machine that does nothing else.
"""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING

from cfs_core.image.layers import LayerLimits, LayerSource, VerifiedLayer, layer_chunks, open_layer
from cfs_core.image.resolve import resolve
from cfs_transport_oci_dir.layout import LayoutTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.model.manifest import ResolvedImage

RUNS = 3


def consume(layer: VerifiedLayer) -> int:
    """Read a layer as a repository does; return its bytes of content."""
    total = 0
    for member in layer.members():
        total += member.size
        hasher = hashlib.sha512()
        for chunk in layer.content():
            hasher.update(chunk)
    for _ in layer.trailer():
        pass
    return total


def threaded(transport: LayoutTransport, image: ResolvedImage, index: int) -> int:
    """Read one layer with its own thread."""
    with open_layer(transport, image, index) as layer:
        return consume(layer)


def single(transport: LayoutTransport, image: ResolvedImage, index: int) -> int:
    """Read one layer in this thread."""
    descriptor, diff_id = image.manifest.layers[index], image.config.diff_ids[index]
    chunks = layer_chunks(LayerSource(transport, image.reference, descriptor, diff_id), LayerLimits(), None)
    return consume(VerifiedLayer(chunks, diff_id))


def main() -> None:
    """Run it."""
    transport = LayoutTransport()
    image = resolve(transport, transport.parse(sys.argv[1]))
    ways: dict[str, Callable[[LayoutTransport, ResolvedImage, int], int]] = {"threaded": threaded, "one thread": single}
    for name, read in ways.items():
        best, total = float("inf"), 0
        for _ in range(RUNS):
            begun = time.perf_counter()
            total = sum(read(transport, image, index) for index in range(len(image.manifest.layers)))
            best = min(best, time.perf_counter() - begun)
        print(f"{name:12} {best:7.3f} s  {total / best / 1e6:7.0f} MB/s")


if __name__ == "__main__":
    main()
