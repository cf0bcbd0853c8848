"""Settings of first boot as somebody gave them, looked at before anything is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.deploy.first_boot.hashes import check_hash
from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.config.settings import Setting, Settings

HOSTNAME_LIMIT = 64  # hostname(7)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_FORMS = {
    "locale": (
        re.compile(r"[A-Za-z]{1,8}(_[A-Z]{2})?(\.[A-Za-z0-9-]+)?(@[a-z]+)?"),
        "locale's name",
        "a locale is named like de_DE.UTF-8 or C.UTF-8",
    ),
    "timezone": (
        re.compile(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+){0,2}"),
        "time zone's name",
        "a time zone is named like Europe/Berlin or UTC",
    ),
    "keymap": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
        "keymap's name",
        "a keymap is named like de-latin1 or us",
    ),
}
"""What a name may be made of, what it is called, and what it is like, by setting."""

# useradd(8) of Debian and Fedora, and systemd's strict names, have these in common.
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_SECRET_LIMIT = 4096
TEXTS = ("hostname", "locale", "timezone", "keymap")
"""Those that settings files may say: ``install.hostname`` and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAccount:
    """A user to be made: with a group of the same name, and in other groups that the image has."""

    name: str
    password_hash: str = field(repr=False)
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBootRequest:
    """What options say that settings cannot: secrets, and what is one machine's own."""

    root_password_hash: str | None = field(default=None, repr=False)
    users: tuple[UserAccount, ...] = ()
    machine_id: str | None = None


def parse_user(text: str) -> UserAccount:
    """Read ``NAME:HASH[:GROUP,…]``; no message has more of it than the name.

    Raises:
        UsageError: another form, a name that no user can have, or no password hash.
    """
    name, *rest = text.split(":")
    hint = "say --user NAME:HASH or --user NAME:HASH:GROUP,GROUP; HASH may be @FILE"
    if not _NAME.fullmatch(name):
        msg = "--user: what stands before the first colon can be no user's name"
        raise UsageError(msg, hint=f"{hint}; a name has lower case letters, digits, - and _, 31 at most")
    if not 1 <= len(rest) <= 2:  # noqa: PLR2004 - hash and groups
        msg = f"--user {name}: there is {'no password hash' if not rest else 'a colon too many'}"
        raise UsageError(msg, hint=hint)
    groups = tuple(filter(None, rest[1].split(","))) if len(rest) > 1 else ()
    for group in groups:
        if not _NAME.fullmatch(group):
            msg = f"--user {name}: {group!r} can be no group's name"
            raise UsageError(msg, hint=hint)
    return UserAccount(
        name=name, password_hash=secret(rest[0], f"--user {name}", locked=True), groups=tuple(dict.fromkeys(groups))
    )


def secret(text: str, option: str, *, locked: bool = False) -> str:
    """Return a password hash that was given as it is or as ``@FILE``, whose first line it is.

    A hash in a file is in no list of processes. *locked* allows ``!`` and ``*``, with which no password fits.

    Raises:
        UsageError: it is none, or the file cannot be read.
    """
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            with path.open("rb") as file:
                text = file.read(_SECRET_LIMIT).partition(b"\n")[0].decode("utf-8", "replace").strip()
        except OSError as cause:
            msg = f"{option}: {path} cannot be read: {cause.strerror}"
            raise UsageError(msg, hint="name a file whose first line is the password hash") from cause
    if not (locked and text in {"!", "*"}):
        check_hash(text, option)
    return text


def check_first_boot(settings: Settings, request: FirstBootRequest) -> None:
    """Refuse what can be refused without the image.

    Raises:
        UsageError: no host's name, locale, time zone, keymap or machine id, or one user twice.
    """
    hostname = given(settings, "hostname")
    if hostname is not None:
        _hostname(str(hostname.value), origin(hostname, "hostname"))
    for name, (form, what, hint) in _FORMS.items():
        setting = given(settings, name)
        if setting is not None and not form.fullmatch(str(setting.value)):
            msg = f"{origin(setting, name)}: {str(setting.value)!r} is no {what}"
            raise UsageError(msg, hint=hint)
    if request.machine_id is not None:
        _machine_id(request.machine_id)
    _once([user.name for user in request.users])


def given(settings: Settings, name: str) -> Setting | None:
    """Return the setting ``install.NAME``, None where nobody gave it."""
    setting = settings.get(f"install.{name}")
    return setting if setting.value is not None else None


def origin(setting: Setting, name: str) -> str:
    """Return who said it, as people know it: the option, or the file."""
    return f"--{name}" if setting.origin == "command line" else f"install.{name} of {setting.origin}"


def _hostname(text: str, where: str) -> None:
    if len(text) > HOSTNAME_LIMIT or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        msg = f"{where}: {text!r} is no host's name"
        raise UsageError(
            msg, hint="letters, digits and hyphens, in parts with dots between them, 64 characters at most"
        )
    if text.partition(".")[0].lower() == "localhost":
        msg = f"{where}: {text!r} is every machine's name for itself"
        raise UsageError(msg, hint="give the machine a name of its own")


def _machine_id(text: str) -> None:
    if not _MACHINE_ID.fullmatch(text) or not text.strip("0"):
        msg = f"--machine-id: {text!r} is no machine id"
        raise UsageError(msg, hint="32 hex digits in lower case, not all of them 0; systemd-id128 new prints one")


def _once(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"--user {twice[0]} is there twice"
        raise UsageError(msg, hint="name all groups of a user in one --user")
