"""Lines of /etc/fstab that wait for devices which a disk made by us does not have (fstab(5), systemd.mount(5))."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.errors import LimitError
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.disk import Partition

FSTAB = "/etc/fstab"
_LIMIT = 1 << 20
_DEVICES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
_PATIENT = frozenset({"noauto", "nofail", "x-systemd.automount"})
"""Options with which nothing that is needed waits for the mount."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


def examine_fstab(
    image: TreeReader, partitions: Sequence[Partition], is_partition: Callable[[str, Partition], bool | None]
) -> Iterator[Finding]:
    """Warn of mounts that the system waits for in vain; *is_partition* compares a device's name with a partition."""
    try:
        raw = image.read(FSTAB, limit=_LIMIT)
    except LimitError as cause:
        yield Finding.warning(
            "image.fstab", f"{FSTAB} of the image was not looked at: {cause.message}", "make it shorter"
        )
        return
    missing = []
    for number, line in enumerate((raw or b"").decode("utf-8", "surrogateescape").splitlines(), 1):
        fields = [_ESCAPE.sub(lambda code: chr(int(code[1], 8)), field) for field in line.split()]
        if len(fields) < 2 or fields[0].startswith("#"):  # noqa: PLR2004 - a device and where it goes
            continue
        device, place = fields[0].replace('"', ""), fields[1]
        options = set(fields[3].split(",")) if len(fields) > 3 else set()  # noqa: PLR2004 - they are the fourth
        if not device.startswith(_DEVICES) or options & _PATIENT:
            continue
        # Where the machine decides, it may be there; cfs makes no volumes that have names in /dev/mapper.
        if device.startswith("/dev/mapper/") or all(is_partition(device, each) is False for each in partitions):
            missing.append(f"line {number}: {device} on {place}")
    if missing:
        message = f"{FSTAB} of the image names devices that this disk does not have: {'; '.join(missing)}"
        hint = "remove these lines from the image: cfs and systemd find root and boot volumes, or add the option nofail"
        yield Finding.warning("image.fstab", message, hint)
