"""Users in the account files of a deployment's /etc (passwd(5), shadow(5), group(5), gshadow(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.deploy.first_boot.request import UserAccount
    from cfs_core.interfaces.storage import TreeReader

FILES = ("passwd", "shadow", "group", "gshadow")
FIRST_ID, LAST_ID = 1000, 59_999
"""Numbers of people (UID_MIN and UID_MAX of login.defs(5))."""

_ELSEWHERE = {"passwd": "/usr/lib/passwd", "group": "/usr/lib/group"}
"""What nss-altfiles reads besides /etc."""

_SYSUSERS = ("/usr/lib/sysusers.d", "/etc/sysusers.d", "/run/sysusers.d")
_SHELL_FIELD, _PASSWD_FIELDS = 6, 7
_MEMBERS = 3


@dataclass(slots=True)
class Accounts:
    """The account files, as lines of fields. What is changed is written again, all else stays as it was."""

    lines: dict[str, list[list[str]]]
    others: dict[str, list[list[str]]]
    """Accounts that are there and kept elsewhere."""

    announced: frozenset[str] = frozenset()
    """Names that systemd-sysusers makes at first boot."""

    changed: set[str] = field(default_factory=set)

    def text(self, name: str) -> bytes:
        """Return a file's content."""
        return "".join(":".join(line) + "\n" for line in self.lines[name]).encode("utf-8", "surrogateescape")

    def find(self, name: str, who: str) -> list[str] | None:
        """Return the line of *who* in file *name*, with those that are kept elsewhere."""
        every = (*self.lines.get(name, ()), *self.others.get(name, ()))
        return next((line for line in every if line[0] == who), None)

    def set_root_password(self, password_hash: str) -> Iterator[Finding]:
        """Give root a password."""
        if self.find("passwd", "root") is None or "shadow" not in self.lines:
            yield _no_accounts("--root-password-hash")
            return
        line = next((line for line in self.lines["shadow"] if line[0] == "root"), None)
        if line is None:
            self.lines["shadow"].insert(0, _shadow("root", password_hash))
        else:
            line[1:2] = [password_hash]
        self.changed.add("shadow")

    def add_user(self, user: UserAccount, home: str, shell: str) -> Iterator[Finding]:
        """Add a user with a group of its own; nothing is changed where that cannot be.

        The number is the first from 1000 on that neither a user nor a group has.
        """
        problem = self._problem(user)
        number = self._free()
        if problem is not None or number is None:
            yield problem or Finding.error(
                "first-boot.user", "no number of a user is free", "remove users from the image"
            )
            return
        self.lines["passwd"].append([user.name, "x", str(number), str(number), "", home, shell])
        self.lines["shadow"].append(_shadow(user.name, user.password_hash))
        self.lines["group"].append([user.name, "x", str(number), ""])
        if "gshadow" in self.lines:
            self.lines["gshadow"].append([user.name, "!", "", ""])
        for name in ("group", "gshadow"):
            for line in self.lines.get(name, ()):
                if line[0] in user.groups and len(line) > _MEMBERS:
                    line[_MEMBERS] = ",".join([*filter(None, line[_MEMBERS].split(",")), user.name])
        self.changed |= self.lines.keys()

    def _problem(self, user: UserAccount) -> Finding | None:
        option = f"--user {user.name}"
        if not {"passwd", "shadow", "group"} <= self.lines.keys():
            return _no_accounts(option)
        for kind, file in (("user", "passwd"), ("group", "group")):
            if self.find(file, user.name) is not None or user.name in self.announced:
                message = f"{option}: the image has a {kind} {user.name}"
                return Finding.error(
                    "first-boot.user", message, "choose another name, or change that account in the image"
                )
        there = {line[0] for line in self.lines["group"]}
        missing = [group for group in user.groups if group not in there]
        if missing:
            message = f"{option}: the image has no group {' and no group '.join(missing)} in /etc/group"
            return Finding.error("first-boot.group", message, "leave it out, or add it in the image with groupadd")
        return None

    def number(self, user: str) -> int:
        """Return the number of a user who is there."""
        line = self.find("passwd", user)
        return int(line[2]) if line is not None else 0

    def _free(self) -> int | None:
        taken = {
            line[2]
            for name in ("passwd", "group")
            for line in (*self.lines.get(name, ()), *self.others.get(name, ()))
            if len(line) > 2  # noqa: PLR2004 - name, password, number
        }
        return next((number for number in range(FIRST_ID, LAST_ID + 1) if str(number) not in taken), None)


def read_accounts(image: TreeReader) -> Accounts:
    """Read the account files of an image that are there."""
    lines = {name: _lines(data) for name in FILES if (data := image.read(f"/etc/{name}")) is not None}
    others = {name: _lines(image.read(path) or b"") for name, path in _ELSEWHERE.items()}
    return Accounts(lines, others, frozenset(_announced(image)))


def _lines(data: bytes) -> list[list[str]]:
    return [line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n") if line]


def _announced(image: TreeReader) -> Iterator[str]:
    """Yield names of users and groups in sysusers.d(5)."""
    for folder in _SYSUSERS:
        for name in image.names(folder):
            text = (image.read(f"{folder}/{name}") or b"").decode("utf-8", "replace")
            for match in re.finditer(r"(?m)^[ \t]*[ug][!+-]*[ \t]+(\S+)", text):
                yield match[1]


def _shadow(name: str, password_hash: str) -> list[str]:
    """Return a line of shadow(5) without a date of the last change: with it, no two disks were the same."""
    return [name, password_hash, "", "0", "99999", "7", "", "", ""]


def _no_accounts(option: str) -> Finding:
    message = f"{option}: the image does not keep accounts in /etc/passwd, /etc/shadow and /etc/group"
    return Finding.error(
        "first-boot.accounts", message, "install the package with these files in the image (base-passwd, passwd)"
    )
