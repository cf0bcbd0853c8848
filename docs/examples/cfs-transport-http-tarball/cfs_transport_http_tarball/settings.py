"""The settings of this transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import Architecture, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes in bytes, ``timeout`` in seconds of silence."""

    architecture: str | None = None
    max_bytes: int = 16 << 30
    max_uncompressed_bytes: int = 64 << 30
    timeout: int = 30
    ca_file: str | None = None

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Self:
        """Read the table ``transport.http-tarball``.

        Raises:
            ConfigError: an unknown setting, or a value of the wrong type.
        """
        values = {}
        for name, value in table.items():
            number = name in {"max-bytes", "max-uncompressed-bytes", "timeout"}
            if not number and name not in {"architecture", "ca-file"}:
                if name == "authfile":  # core's --authfile goes to every transport
                    continue
                msg = f"unknown setting transport.http-tarball.{name}"
                raise ConfigError(
                    msg, hint="known are architecture, max-bytes, max-uncompressed-bytes, timeout, ca-file"
                )
            if isinstance(value, bool) or not isinstance(value, int if number else str) or (number and value <= 0):  # type: ignore[operator]
                msg = f"transport.http-tarball.{name} is {value!r}"
                raise ConfigError(msg, hint="a positive whole number" if number else "a string")
            values[name.replace("-", "_")] = value
        made = cls(**values)  # type: ignore[arg-type]  # checked above
        if made.architecture is not None and made.architecture not in set(Architecture):
            msg = f"transport.http-tarball.architecture is {made.architecture!r}"
            raise ConfigError(msg, hint=f"one of {', '.join(Architecture)}")
        return made
