"""Where policy.json, registries.d and signatures are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import ConfigError, directory_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Paths as containers/image has them for this user."""

    policy: Path
    registries_d: Path
    lookaside: Path
    """Where signatures are if registries.d says nothing."""

    @classmethod
    def of(cls, settings: Mapping[str, object], environ: Mapping[str, str], uid: int, root: Path = Path("/")) -> Self:
        """Read settings and look what is there.

        Raises:
            ConfigError: unknown setting, or not a path.
        """
        if unknown := sorted(set(settings) - {"policy-json", "registries-d"}):
            msg = f"unknown setting policy.settings.containers-policy.{unknown[0]}"
            raise ConfigError(msg, hint="known are policy-json and registries-d")
        for key, value in settings.items():
            if value is not None and not isinstance(value, str | Path):
                msg = f"policy.settings.containers-policy.{key} is {value!r}, not a path"
                raise ConfigError(msg)
        home = directory_of(environ, "HOME") or Path("/")
        own = home / ".config/containers"
        system = root / "etc/containers"
        policy = settings.get("policy-json")
        registries = settings.get("registries-d")
        lookaside = root / "var/lib/containers/sigstore" if uid == 0 else home / ".local/share/containers/sigstore"
        return cls(
            policy=Path(str(policy)) if policy else _first(own / "policy.json", system / "policy.json"),
            registries_d=Path(str(registries)) if registries else _first(own / "registries.d", system / "registries.d"),
            lookaside=lookaside,
        )


def _first(own: Path, system: Path) -> Path:
    return own if own.exists() else system
