"""The image of the container that cfs itself runs in, in the store that it was started from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import ConfigError, NotFoundError, RunningImage, UsageError
from cfs_transport_containers_storage.places import DRIVERS, Places
from cfs_transport_containers_storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = re.compile(r'([a-z]+)="?([^"\n]*)"?')
_ID = re.compile(r"[0-9a-f]{64}")
_STORE = Path("var/lib/containers/storage")
_LIMIT = 64 * 1024


def running_image(root: Path = Path("/")) -> RunningImage | None:
    """Return the image this container was made from; None outside of containers.

    podman and buildah write ``/run/.containerenv``. The host's store is looked for where storage.conf has it, or in
    ``/var/lib/containers``, as mounted here and, with the host's process namespace, below ``/proc/1/root``.

    Raises:
        UsageError: in a container that does not tell its image.
        NotFoundError: the store that has the image is not mounted.
    """
    try:
        with (root / "run/.containerenv").open(encoding="utf-8", errors="replace") as file:
            facts = dict(_LINE.findall(file.read(_LIMIT)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    image_id = facts.get("imageid", "")
    if not _ID.fullmatch(image_id):
        msg = "this container does not know its image"
        raise UsageError(msg, hint="start it with podman run --privileged, or name the image with --source-imgref")
    for store in _stores(root):
        if any(image.id == image_id for image in store.images()):
            source = f"containers-storage:[{store.driver}@{store.root}]@{image_id}"
            return RunningImage(source=source, name=_name(facts.get("image", "")))
    msg = f"the store that holds this container's image {image_id[:12]} is not here"
    hint = "add -v /var/lib/containers:/var/lib/containers to podman run (or the graphRoot that `podman info` shows, "
    hint += "and --pid=host), or name the image with --source-imgref"
    raise NotFoundError(msg, hint=hint)


def _stores(root: Path) -> Iterator[Store]:
    """Yield the stores that are there: the default one, and those of storage.conf, both ours and the host's."""
    host = root / "proc/1/root"
    graphs = [_STORE, *_configured(root), *_configured(host)]
    for graph in dict.fromkeys(prefix / graph for graph in graphs for prefix in (root, host)):
        for driver in DRIVERS:
            try:
                if (graph / f"{driver}-images/images.json").is_file():
                    yield Store(graph, driver)
            except OSError:  # /proc/1/root of another user, or of nobody
                continue


def _configured(root: Path) -> Iterator[Path]:
    """Yield graph roots of the storage.conf below *root*, without the ``/`` they begin with."""
    try:
        places = Places.of({}, {}, 0, root)
    except (ConfigError, OSError):  # it is not ours to complain about: the store may be found all the same
        return
    for each in places.roots:
        if not each.is_relative_to(root / _STORE):
            yield each.relative_to("/")


def _name(image: str) -> str | None:
    """Return what ``podman run`` was given, if it is a name that a registry can be asked for."""
    host = image.partition("/")[0]
    remote = "/" in image and ("." in host or ":" in host) and host != "localhost"
    return f"docker://{image}" if remote else None
