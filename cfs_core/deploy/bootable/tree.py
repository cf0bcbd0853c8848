"""What early boot and switching to the root need of a tree, which is mounted read-only: nothing can be made then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.artifacts import OS_RELEASE
from cfs_core.model.plan import Finding
from cfs_core.model.tree import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.storage import TreeReader

MOUNT_POINTS = {
    "boot": "boot files",
    "dev": "devices",
    "etc": "the deployment's configuration",
    "proc": "processes",
    "run": "what services keep while the system runs",
    "sys": "the kernel's objects",
    "sysroot": "the root partition",
    "tmp": "temporary files",
    "usr": "the system itself",
    "var": "the deployment's state",
}
"""Directories of the root, and what is there in a running system. The root is read-only: nobody makes them later."""

_MACHINE_ID = re.compile(rb"[0-9a-f]{32}\n?\Z")


def check_mount_points(root: Directory) -> None:
    """Refuse a tree that nothing can be mounted on.

    Raises:
        ImageError: with the list of what is missing, or is no directory.
    """
    missing = [name for name in MOUNT_POINTS if name.encode() not in root.entries]
    wrong = [name for name in MOUNT_POINTS if not isinstance(root.entries.get(name.encode(), root), Directory)]
    if not missing and not wrong:
        return
    parts = [f"the image has no {_listed(missing)}"] if missing else []
    if wrong:
        kind = "are no directories" if len(wrong) > 1 else "is no directory"
        parts.append(f"{_listed(wrong)} of the image {kind}")
    msg = f"{' and '.join(parts)}: the root is read-only, and something is mounted there when the system starts"
    commands = [f"rm /{name}" for name in wrong] + [f"mkdir -p {' '.join(f'/{name}' for name in [*missing, *wrong])}"]
    raise ImageError(msg, hint=f"in the image: RUN {' && '.join(commands)}", facts={"missing": missing, "wrong": wrong})


def examine_tree(image: TreeReader) -> Iterator[Finding]:
    """Say what switching to the root refuses, and what one image must not give to every machine."""
    if not any(image.content(path) is not None for path in OS_RELEASE):
        message = (
            f"the image has neither {' nor '.join(OS_RELEASE)}, and `systemctl switch-root` enters no root without"
        )
        yield Finding.error(
            "image.no-os-release", message, "write at least ID= and PRETTY_NAME= into /usr/lib/os-release"
        )
    content = image.content("/etc/machine-id")
    if content is not None and content.size <= 64 and _MACHINE_ID.match(image.read("/etc/machine-id") or b""):  # noqa: PLR2004 - an id has 32 digits
        message = "/etc/machine-id of the image holds an id, which every machine that is installed from it will have"
        hint = "in the image: RUN : >/etc/machine-id (or write uninitialized into it)"
        yield Finding.warning("image.machine-id", message, hint)


def _listed(names: list[str]) -> str:
    return ", ".join(f"/{name}" for name in names)
