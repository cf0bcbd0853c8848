"""Where an installed system looks for updates: a reference as bootc's origin files have it (formats F.1)."""

from __future__ import annotations

import re

from cfs_core.errors import UsageError

PATHS = frozenset({"containers-storage", "dir", "docker-archive", "docker-daemon", "oci", "oci-archive"})
"""Transports of containers-transports(5) whose references are paths or names of a local store."""

_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?"
)
"""HOST/NAME[:TAG][@DIGEST] (distribution specification; the host is a DNS name or an address)."""


def target_reference(text: str, what: str = "--target-imgref") -> str:
    """Return *text* with its transport: to bootc, ``HOST/NAME:TAG`` and ``registry:HOST/NAME:TAG`` mean ``docker://``.

    Raises:
        UsageError: a line of an origin file cannot hold it, or it is no image reference; *what* names it.
    """
    refuse_line_breaks(text, what)
    scheme, _, rest = text.partition(":")
    if scheme in PATHS and rest:
        return text
    name = text.removeprefix("docker://") if scheme == "docker" else text.removeprefix("registry:")
    short = scheme == "docker" and "/" not in name
    if not _NAME.fullmatch(f"docker.io/{name}" if short else name):
        msg = f"{text!r} of {what} is no image that an installed system could look for"
        transports = ", ".join(sorted({"docker", "registry", *PATHS}))
        raise UsageError(msg, hint=f"write it as docker://HOST/NAME:TAG; transports: {transports}")
    return f"docker://{name}"


def refuse_line_breaks(text: str, what: str) -> str:
    """Return *text* if a line of an origin file can hold it.

    Raises:
        UsageError: control characters, undecodable bytes, or blanks around it; *what* names it in the message.
    """
    if not text.isprintable() or text != text.strip():
        msg = f"{text!r} of {what} has control characters or blanks around it"
        raise UsageError(msg, hint="name with --target-imgref docker://HOST/NAME:TAG where updates come from")
    return text
