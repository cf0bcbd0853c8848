"""Kernels that GRUB starts as EFI programs, because its ``linux`` command would change their arguments.

``chainloader`` hands its words over as they are (but for non-ASCII text, which it spoils). The kernel's EFI stub then
reads its initrd from the filesystem it was started from, so both need a copy on the ESP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls import join_arguments, read_file
from cfs_core.plugin import Action, Architecture, BytesContent, CopyObject, Location, Volume, read_all
from cfs_grub.place import filesystem_uuid
from cfs_grub.words import is_exact, quote

if TYPE_CHECKING:
    from cfs_core.plugin import BootArtifacts, BootEntry, Content, TargetView
    from cfs_grub.place import BootPlace

ESP_KERNELS = Location(Volume.ESP, "/EFI/Linux")
_ARCHITECTURES = frozenset({Architecture.AMD64})
"""Where every kernel with an EFI stub obeys ``initrd=`` (drivers/firmware/efi/libstub; elsewhere it is an option)."""


def esp_copies(artifacts: BootArtifacts, architecture: Architecture) -> tuple[int, ...]:
    """Return the bytes of each file that may have to be copied. Whether it must, only kernel arguments tell."""
    contents = (artifacts.kernel, *artifacts.initrds) if architecture in _ARCHITECTURES else ()
    return tuple(content.size for content in contents if content is not None)


class EfiKernels:
    """Plans copies on the ESP; ``actions`` puts them there."""

    def __init__(self, target: TargetView, place: BootPlace, architecture: Architecture) -> None:
        self._target = target
        self._place = place
        self._usable = architecture in _ARCHITECTURES
        self.actions: list[Action] = []

    def start(self, entry: BootEntry, linux: str, initrds: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
        """Return the ESP's UUID and the words for ``chainloader``; None where that is not needed or not possible.

        *linux* and *initrds* are the paths in the entry file.

        Raises:
            BootError: the ESP's UUID is not known.
        """
        text = join_arguments(entry.arguments)
        if not self._usable or is_exact(entry.arguments) or not text.isascii():
            return None
        artifacts = entry.artifacts
        contents = [artifacts.kernel, *artifacts.initrds] if artifacts else []
        copies = []
        for path, content in zip((linux, *initrds), [*contents, *([None] * (1 + len(initrds)))], strict=False):
            source = self._place.entries.locate(path)
            copies.append((ESP_KERNELS.path + "/" + "/".join(source.path.split("/")[-2:]), content, source))
        uuid = filesystem_uuid(self._target, Volume.ESP)
        for path, content, source in copies:
            self._copy(Location(Volume.ESP, path), content or BytesContent(self._target.read(source)), entry.title)
        options = [f"initrd={path}".replace("/", "\\") for path, _, _ in copies[1:]]
        return uuid, tuple(map(quote, (copies[0][0], *options, text)))

    def _copy(self, location: Location, content: Content, title: str) -> None:
        there = read_file(self._target, location)
        if there is None or len(there) != content.size or there != read_all(content):
            why = f"kernel of {title} for arguments that GRUB's linux command would change"
            self.actions.append(CopyObject(location=location, source=content, why=why))
