"""The keys of ``--root-ssh-authorized-keys``, looked at before anything is fetched (sshd(8), AUTHORIZED_KEYS)."""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise

from cfs_core.errors import UsageError

_OPTION = "--root-ssh-authorized-keys"
_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s"])+')
_PRIVATE = (b"PRIVATE KEY-----", b"PuTTY-User-Key-File")
_HINT = "name a file of public keys, a line each, as ssh-keygen writes it: ~/.ssh/id_ed25519.pub"
_LIMIT = 1 << 20


def check_authorized_keys(data: bytes) -> None:
    """Refuse what sshd would not take for public keys. No part of the file is in a message: it may be a secret.

    Raises:
        UsageError: a private key, bytes that no text has, no key at all, or a line that is none.
    """
    if any(mark in data for mark in _PRIVATE):
        msg = f"the file of {_OPTION} holds a private key; it would be on every disk, and let nobody in"
        raise UsageError(msg, hint=_HINT)
    if len(data) > _LIMIT:
        msg = f"the file of {_OPTION} has {len(data)} bytes, more than {_LIMIT}"
        raise UsageError(msg, hint=_HINT, facts={"limit_bytes": _LIMIT})
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        msg = f"the file of {_OPTION} is no text"
        raise UsageError(msg, hint=_HINT)
    keys = 0
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        if not _is_key(words):
            msg = f"line {number} of the file of {_OPTION} is no public key"
            raise UsageError(msg, hint=_HINT, facts={"line": number})
        keys += 1
    if not keys:
        msg = f"the file of {_OPTION} holds no key"
        raise UsageError(msg, hint=_HINT)


def _is_key(line: str) -> bool:
    """Return whether a line is ``[OPTIONS] TYPE BASE64 [COMMENT]``, and the key says that it is of this type."""
    words = _WORD.findall(line)
    return any(_is_of_type(kind, data) for kind, data in pairwise(words[:3]))


def _is_of_type(kind: str, data: str) -> bool:
    """Compare with the type inside the key: a length of four bytes, then the name (RFC 4253, 6.6)."""
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    name = kind.encode()
    return len(blob) > 4 + len(name) and blob[:4] == len(name).to_bytes(4, "big") and blob[4 : 4 + len(name)] == name
