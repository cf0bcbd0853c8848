"""How a run is to behave: what is asked of it besides settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run is told before it does anything. None leaves it to settings, environment and host."""

    config_file: Path | None = None
    disabled: tuple[str, ...] = ()
    """Plugins that are not loaded, by their names or distributions."""

    authfile: Path | None = None
    """Credentials, for the transport that takes them."""

    log_level: str | None = None
    log_as_json: bool = False
    progress_descriptor: int | None = None
    """Open for writing: JSON lines go there instead of bars to a terminal."""

    show_progress: bool = True
    output_format: str = "text"
    """In which form results are wanted: ``text`` or ``json``."""

    warn_of_plugins: bool = True
    """Whether what plugins do wrong is told in the log; not where it is the result."""
