"""TOML from outside: images, operators, other programs; parsed in a bounded time."""

from __future__ import annotations

import re
from typing import Any

from cfs_core.errors import ConfigError

DOTTED_LIMIT = 64
"""Names of one key. The time that tomllib takes grows with the square of them: 30,000, in 60 KB, take a minute."""

_DOTTED = re.compile(rb"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % DOTTED_LIMIT)


def parse_toml(raw: bytes, where: str) -> dict[str, Any]:
    """Parse a TOML document; *where* names it in messages.

    Raises:
        ConfigError: not TOML (UTF-8), nested too deeply, or a key of more than `DOTTED_LIMIT` names.
    """
    import tomllib  # most hosts have no settings file

    if _DOTTED.search(raw):
        msg = f"{where} has a key of more than {DOTTED_LIMIT} names"
        raise ConfigError(msg, hint="no setting has so many; correct the file")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except RecursionError as cause:
        msg = f"{where} is nested too deeply"
        raise ConfigError(msg, hint="no setting is nested so deeply; correct the file") from cause
    except ValueError as cause:  # also a number of more digits than Python reads
        msg = f"{where} is not valid TOML: {cause!s:.200}"
        raise ConfigError(msg) from cause
