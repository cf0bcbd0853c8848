"""What a sealed image has on top."""

from __future__ import annotations

import io
import json
import tarfile


def manifest_of(layout, tag):
    """Return the manifest that a layout has under a tag."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [
        each for each in index["manifests"]
        if each.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]  # fmt: skip
    return json.loads((layout / "blobs/sha256" / entry["digest"].partition(":")[2]).read_text())


def top_layer(layout, tag):
    """Return the bytes of the uppermost layer, which `cfs seal` does not compress."""
    blob = manifest_of(layout, tag)["layers"][-1]["digest"].partition(":")[2]
    return (layout / "blobs/sha256" / blob).read_bytes()


def files_of(layout, tag):
    """Return the members of the uppermost layer: bytes of files, the header of others."""
    with tarfile.open(fileobj=io.BytesIO(top_layer(layout, tag))) as tar:
        return {info.name: tar.extractfile(info).read() if info.isfile() else info for info in tar}
