"""Password hashes as crypt(5) describes them: what is one, and what is a password by mistake."""

from __future__ import annotations

import re

from cfs_core.errors import UsageError

_FORMS = {
    "yescrypt": r"\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}",
    "gost-yescrypt": r"\$gy\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}",
    "scrypt": r"\$7\$[./A-Za-z0-9]{11,97}\$[./A-Za-z0-9]{43}",
    "bcrypt": r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}",
    "sha512crypt": r"\$6\$(?:rounds=[1-9][0-9]{0,8}\$)?[^$:\n]{1,16}\$[./0-9A-Za-z]{86}",
    "sha256crypt": r"\$5\$(?:rounds=[1-9][0-9]{0,8}\$)?[^$:\n]{1,16}\$[./0-9A-Za-z]{43}",
}
_HASH = re.compile("|".join(_FORMS.values()))
_WEAK = re.compile(r"\$(?:1|md5|3|sha1|2|2x)[$,]|_[./0-9A-Za-z]{19}\Z")
HINT = "make one with `mkpasswd` or `openssl passwd -6`, and quote it: a shell takes $ for itself"


def check_hash(text: str, option: str) -> None:
    """Refuse what no login would be compared with. No part of *text* is in a message: it may be a password.

    Raises:
        UsageError: no hash, one that is cut off, or one of a kind that is broken.
    """
    if _HASH.fullmatch(text):
        return
    if _WEAK.match(text):
        msg = f"{option}: the password hash is of a kind that is broken in hours"
        raise UsageError(msg, hint=HINT)
    if text.startswith("$"):
        msg = f"{option}: the password hash is of no known kind, or a part of it is missing"
        raise UsageError(msg, hint=HINT)
    msg = f"{option}: this is no password hash; a password itself is taken nowhere"
    raise UsageError(msg, hint=HINT)
