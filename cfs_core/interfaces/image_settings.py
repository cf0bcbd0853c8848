"""What all settings inside images have in common: which architectures they are for, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.interfaces.storage import TreeReader

RUST_NAMES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64", "386": "x86"}
"""What bootc calls the architectures of images (``std::env::consts::ARCH``)."""


def refuse_file(image: TreeReader, folder: str) -> None:
    """Refuse a file where a directory of settings belongs: what it says would be lost without a word.

    Raises:
        ConfigError: it is one.
    """
    if image.content(folder) is not None:
        msg = f"{folder} of the image is a file, and must be a directory with files in it"
        raise ConfigError(msg, hint=f"move it to {folder}/10-image.toml in the image", facts={"path": folder})


def is_for(architecture: str, wanted: object) -> bool:
    """Return whether ``match-architectures`` has *architecture*, in bootc's words or in OCI's; without it all do."""
    return not isinstance(wanted, list) or bool({architecture, RUST_NAMES.get(architecture)} & set(wanted))
