"""What one machine made for itself, or a build left behind, and every machine would have: keys, seeds, logs, caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.plan import Finding
from cfs_core.model.tree import Directory, RegularFile, walk
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.image.reader import ImageReader

_SSH = "/etc/ssh"
_SEEDS = ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/random-seed", "/var/lib/seedrng")
_LOGS = ("/var/log",)
_CACHES = {
    "/var/cache/apt": "apt-get clean",
    "/var/lib/apt/lists": "rm -rf /var/lib/apt/lists/*",
    "/var/cache/dnf": "dnf clean all",
    "/var/cache/libdnf5": "dnf clean all",
    "/var/cache/yum": "yum clean all",
    "/var/cache/zypp": "zypper clean --all",
    "/var/cache/pacman/pkg": "pacman -Scc --noconfirm",
    "/var/cache/apk": "rm -rf /var/cache/apk/*",
}
"""Directories of package managers, and what empties them."""

_SMALL_CACHE = 1 << 20


def examine_leftovers(image: ImageReader) -> Iterator[Finding]:
    """Warn of files that do not belong into an image."""
    keys = [name for name in image.names(_SSH) if name.startswith("ssh_host_") and name.endswith("_key")]
    if keys:
        message = f"{_SSH} of the image has private keys of a host ({', '.join(keys)}), which every machine will have"
        hint = f"in the image: RUN rm {_SSH}/ssh_host_*; a service that calls `ssh-keygen -A` makes them at boot"
        yield Finding.warning("image.host-keys", message, hint)
    seeds = [path for path in _SEEDS if _bytes_below(image, path)]
    if seeds:
        message = f"{seeds[0]} of the image is a seed of random numbers, which every machine would start from"
        yield Finding.warning("image.random-seed", message, f"in the image: RUN rm -r {seeds[0]}")
    logs = sum(_bytes_below(image, path) for path in _LOGS)
    if logs:
        message = (
            f"/var/log of the image has {human_bytes(logs)} of logs, which are of the build and not of the machine"
        )
        yield Finding.warning("image.logs", message, "in the image, last: RUN find /var/log -type f -delete")
    sizes = {path: _bytes_below(image, path) for path in _CACHES}
    large = {path: size for path, size in sizes.items() if size >= _SMALL_CACHE}
    if large:
        listed = ", ".join(f"{path} {human_bytes(size)}" for path, size in large.items())
        message = f"the image has caches of a package manager: {listed}"
        commands = " && ".join(dict.fromkeys(_CACHES[path] for path in large))
        hint = f"in the image, in the same RUN that installs: {commands}"
        yield Finding.warning("image.package-cache", message, hint)


def _bytes_below(image: ImageReader, path: str) -> int:
    """Return the bytes of all regular files at or below *path*."""
    top = image.find(path)
    if isinstance(top, RegularFile):
        return top.size
    if not isinstance(top, Directory):
        return 0
    return sum(node.size for _, node in walk(top) if isinstance(node, RegularFile))
