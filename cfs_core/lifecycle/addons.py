"""Addons of a unified kernel image on a machine: which the image brought, which are the machine's own.

They lie beside the UKI of their deployment, so that going back takes back what was chosen, and what is collected goes
with its addons. Nothing else keeps the choice: it is read off what lies there.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfs_core.deploy.choose import ADDON_SUFFIX, addon_file
from cfs_core.errors import CfsError, StateError, UsageError
from cfs_core.image.sealed import command_line, parse_words, sealed_arguments
from cfs_core.image.uki_files import ADDON_DIRECTORY
from cfs_core.model.boot import EntryKind, KernelArgument, UkiAddon
from cfs_core.model.content import BytesContent, read_all
from cfs_core.model.disk import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cfs_core.interfaces.target import TargetView
    from cfs_core.lifecycle.stored import StoredDeployment
    from cfs_core.model.boot import BootArtifacts, BootEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonChoice:
    """What is taken of an image's addons, by name, and what the machine's owner added."""

    image: frozenset[str] | None = None
    """Names of the image's addons; None for all that it has."""

    own: tuple[UkiAddon, ...] = ()

    def of(self, artifacts: BootArtifacts) -> BootArtifacts:
        """Return *artifacts* of an image with the addons that are chosen; one that names the image stays."""
        chosen = {
            addon.name: addon
            for addon in artifacts.addons
            if self.image is None or addon.name in self.image or names_image(addon)
        }
        chosen |= {addon.name: addon for addon in self.own}
        return replace(artifacts, addons=tuple(chosen[name] for name in sorted(chosen)))

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        own = {addon.name: b64encode(read_all(addon.content)).decode() for addon in self.own}
        return {"image": sorted(self.image) if self.image is not None else None, "own": own}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AddonChoice:
        """Read what `as_json` wrote."""
        image = found.get("image")
        return cls(
            image=frozenset(image) if image is not None else None,
            own=tuple(
                UkiAddon(name=name, content=BytesContent(b64decode(text))) for name, text in found["own"].items()
            ),
        )


def names_image(addon: UkiAddon) -> bool:
    """Return whether an addon names the image that is mounted, which then is not the machine's to leave out.

    Raises:
        ImageError: it is none.
    """
    return bool(list(parse_words(command_line(addon.content))))


def present(target: TargetView, entry: BootEntry | None) -> tuple[UkiAddon, ...]:
    """Return the addons that lie beside the UKI of *entry*."""
    if entry is None or entry.kind is not EntryKind.UKI or not entry.files:
        return ()
    folder = Location(entry.files[0].volume, entry.files[0].path + ADDON_DIRECTORY)
    names = [name for name in target.names(folder) if name.lower().endswith(ADDON_SUFFIX)]
    return tuple(UkiAddon(name=name, content=BytesContent(target.read(folder / name))) for name in names)


def choice_of(here: Iterable[UkiAddon], image: BootArtifacts | None) -> AddonChoice:
    """Return what was chosen where *here* are the addons of a deployment of *image*; None for one that is unknown.

    Whoever has all of an image's addons takes all of the next image's, too.
    """
    found = {addon.name: addon for addon in here}
    offered = {addon.name: read_all(addon.content) for addon in image.addons} if image is not None else {}
    taken = frozenset(name for name, addon in found.items() if offered.get(name) == read_all(addon.content))
    own = tuple(addon for name, addon in found.items() if name not in taken)
    return AddonChoice(image=None if taken == frozenset(offered) else taken, own=own)


def carried(target: TargetView, entry: BootEntry | None, old: StoredDeployment) -> AddonChoice:
    """Return what the deployment of *entry* has chosen, for the next one."""
    try:
        image = old.artifacts() if entry is not None and entry.kind is EntryKind.UKI else None
    except CfsError:
        image = None  # its layers are gone: what lies beside it counts as the machine's own
    return choice_of(present(target, entry), image)


def changed(
    choice: AddonChoice, image: BootArtifacts, *, added: Sequence[str] = (), removed: Sequence[str] = ()
) -> AddonChoice:
    """Return *choice* with more or fewer addons: names of the image's, or files (with a ``/`` in the name).

    Raises:
        UsageError: there is no such addon, it is none, or it names the image that is mounted.
        StateError: what is to be removed is not chosen.
    """
    offered = {addon.name: addon for addon in image.addons}
    names = set(offered) if choice.image is None else set(choice.image)
    own = {addon.name: addon for addon in choice.own}
    for word in added:
        name = word.rpartition("/")[2].removesuffix(ADDON_SUFFIX) + ADDON_SUFFIX
        if "/" in word:
            own[name] = addon_file(Path(word), name.removesuffix(ADDON_SUFFIX))
        elif name in offered:
            names.add(name)
            own.pop(name, None)
        else:
            msg = f"--uki-addon {word}: the image has no such addon; it has: {', '.join(sorted(offered)) or 'none'}"
            raise UsageError(msg, hint="name one of these, or a file with a / in its name")
    for word in removed:
        name = word.removesuffix(ADDON_SUFFIX) + ADDON_SUFFIX
        if name in offered and names_image(offered[name]):
            msg = f"the addon {name} names the image that is mounted"
            raise UsageError(msg, hint="`cfs kargs list` shows which addons there are")
        if own.pop(name, None) is None and name not in names:
            msg = f"the deployment has no addon {name}"
            raise StateError(msg, hint="`cfs kargs list` shows which addons there are", code="boot.karg-not-found")
        names.discard(name)
    everything = frozenset(names) == frozenset(offered) and not removed
    return AddonChoice(image=None if everything else frozenset(names), own=tuple(own.values()))


def words_on(target: TargetView, entry: BootEntry | None) -> tuple[KernelArgument, ...]:
    """Return the command line that a deployment is started with: of a UKI its own and its addons', by file.

    Raises:
        ImageError: one of the files is damaged.
    """
    if entry is None:
        return ()
    if entry.kind is not EntryKind.UKI or not entry.files:
        return tuple(KernelArgument(text=word, origin="boot entry") for word in entry.arguments)
    try:
        uki = BytesContent(target.read(entry.files[0]))
    except FileNotFoundError:
        return ()
    own = [KernelArgument(text=word, origin="unified kernel image") for word in command_line(uki)]
    for addon in present(target, entry):
        own += [KernelArgument(text=word, origin=addon.name) for word in command_line(addon.content)]
    return tuple(own)


def words_of(entry: BootEntry) -> tuple[str, ...]:
    """Return the command line of an entry that is planned."""
    if entry.artifacts is not None and entry.kind is EntryKind.UKI:
        return tuple(argument.text for argument in sealed_arguments(entry.artifacts))
    return entry.arguments
