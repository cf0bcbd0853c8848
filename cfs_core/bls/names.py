"""Names of boot entries and boot files that cfs and bootc share (formats F.3, F.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

FILES_PREFIX = "bootc_composefs-"
"""Starts the name of every directory of kernel and initrd, and of every UKI, that belongs to a deployment."""

ENTRY_PREFIX = "bootc_"
"""Starts the name of every entry file that is ours to change."""

SUFFIX = ".conf"
_COUNTER = re.compile(r"\+([0-9]{1,9})(?:-([0-9]{1,9}))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryName:
    """The name of an entry file taken apart: ``STEM[+LEFT[-DONE]].conf`` (Boot Loader Specification, boot counting)."""

    stem: str
    tries_left: int | None = None
    tries_done: int = 0

    @classmethod
    def parse(cls, name: str) -> EntryName | None:
        """Take *name* apart; None if it is no entry file."""
        if not name.lower().endswith(SUFFIX) or len(name) == len(SUFFIX):
            return None
        stem = name[: -len(SUFFIX)]
        counter = _COUNTER.search(stem)
        if counter is None:
            return cls(stem=stem)
        return cls(stem=stem[: counter.start()], tries_left=int(counter[1]), tries_done=int(counter[2] or 0))

    def __str__(self) -> str:
        done = f"-{self.tries_done}" if self.tries_done else ""
        counter = "" if self.tries_left is None else f"+{self.tries_left}{done}"
        return f"{self.stem}{counter}{SUFFIX}"


def name_part(text: str) -> str:
    """Return *text* as part of an entry name: no ``-`` (it separates), no ``+`` (it counts), nothing FAT refuses."""
    return re.sub(r"[^A-Za-z0-9._~^]", "_", text) or "_"


def entry_stem(os_id: str, version: str, priority: int) -> str:
    """Return the name of an entry without suffix. Loaders that sort by name show the highest *priority* first."""
    # File names end at 255 bytes; what is left is for the OS id, a boot counter and ".conf".
    return f"{ENTRY_PREFIX}{name_part(os_id)}-{name_part(version)[:150]}-{priority}"


def guard_stem(deployment_id: str) -> str:
    """Return the name of an entry that stays a deployment's while those of `entry_stem` move to others."""
    # 128 bits of a digest, which no two deployments share, in a name that people can still compare.
    return f"{ENTRY_PREFIX}{deployment_id[:32]}"


def sort_key(os_id: str, rank: int) -> str:
    """Return the sort key of the entry at place *rank* (0 is the best). Keys are compared as text, ascending."""
    # bootc has one digit, and as text 10 sorts before 2: behind 8 all ranks begin with 9 and have four digits.
    last = 9
    return f"bootc-{os_id}-{rank}" if rank < last else f"bootc-{os_id}-{last}{rank - last:03d}"


def entry_priorities(count: int) -> tuple[int, ...]:
    """Return priorities of *count* entries, best first: bootc's 1 and 0, more where there are more."""
    return tuple(max(1, count - 1) - rank for rank in range(count))


def os_id_of(key: str | None) -> str | None:
    """Return the id in a sort key that `sort_key` made."""
    match = re.fullmatch(r"bootc-(.+)-[0-9]+", key or "")
    return match[1] if match else None


def files_name(deployment_id: str) -> str:
    """Return the name of a deployment's directory of boot files."""
    return FILES_PREFIX + deployment_id


def uki_name(deployment_id: str) -> str:
    """Return the file name of a deployment's UKI; its addons are in a directory beside it, ``.extra.d`` appended."""
    return f"{FILES_PREFIX}{deployment_id}.efi"


def uki_deployment(path: str) -> str | None:
    """Return whose UKI is at *path*, None if it does not look like one of ours."""
    match = re.fullmatch(re.escape(FILES_PREFIX) + r"(.+)\.efi", path.rpartition("/")[2], re.IGNORECASE)
    return match[1].lower() if match else None  # in any letter case, it is the same file on FAT


def argument_deployment(arguments: tuple[str, ...]) -> str | None:
    """Return the deployment that ``composefs.digest=`` or ``composefs=`` names (formats E.6)."""
    for pattern in (r"composefs\.digest=\??[^:]+:([0-9a-f]+)", r"composefs=\??([0-9a-f]+)"):
        for argument in arguments:
            match = re.fullmatch(pattern, argument)
            if match:
                return match[1]
    return None
