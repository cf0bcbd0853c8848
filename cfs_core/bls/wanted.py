"""What loaders do alike with an entry that is wanted: its text, its room, and what no loader can do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls.entry import edit_entry, format_entry
from cfs_core.errors import BootError
from cfs_core.model.boot import EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cfs_core.bls.scan import EntryFile
    from cfs_core.model.boot import BootEntry

FAT_CLUSTER = 32 * 1024
"""Bytes; the largest clusters that FAT has on volumes of the sizes boot volumes have (Microsoft, fatgen103)."""

FAT_OVERHEAD = 2 * 1024 * 1024
"""Bytes of a boot volume for directories, menus, and FAT's own tables."""


def bytes_on_fat(sizes: Iterable[int]) -> int:
    """Return the bytes that files of these *sizes* (bytes) take on a boot volume, and what holds them."""
    return FAT_OVERHEAD + sum(-(-size // FAT_CLUSTER) * FAT_CLUSTER for size in sizes)


def unknown_entry(identity: str) -> BootError:
    """Return the error for a deployment, or a foreign entry, that a menu does not have."""
    message = f"the menu has no entry for {identity[:64]!r}"
    return BootError(
        message, hint="run `cfs status` to see which deployments can be started", facts={"entry": identity}
    )


def refuse_letters(arguments: Iterable[str], letters: str, *, loader: str) -> None:
    """Refuse kernel arguments with one of *letters*, which *loader* would not hand over as they are.

    Raises:
        BootError: one has such a letter; the message names both.
    """
    for argument in arguments:
        found = next((letter for letter in argument if letter in letters), None)
        if found is not None:
            message = (
                f"{loader} does not hand over the kernel argument {argument!r} as it is: {found!r} is special to it"
            )
            raise BootError(
                message,
                hint="write the argument without it, or use a unified kernel image",
                facts={"argument": argument},
            )


def refuse_added_arguments(entry: BootEntry, current: Sequence[str] = ()) -> None:
    """Refuse arguments that a unified kernel image does not have: those in it are sealed.

    *current* are what the loader's entry of a deployment that is kept has now. An entry without arguments asks for no
    change. Entries of other kinds pass.

    Raises:
        BootError: arguments would be added to the image's own, or taken from those its entry has.
    """
    if entry.kind is not EntryKind.UKI or not entry.arguments:
        return
    known = current if entry.artifacts is None else entry.artifacts.sealed_arguments
    extra = [text for text in entry.arguments if text not in known]
    if extra:
        message = f"a unified kernel image carries its own command line: {extra[0]!r} cannot be added to it"
        raise BootError(message, hint="build it into the image, or add it with a UKI addon", facts={"arguments": extra})
    if entry.artifacts is None and tuple(entry.arguments) != tuple(current):
        message = f"the arguments of {entry.title} cannot change: a unified kernel image carries its own command line"
        raise BootError(message, hint="build them into the image", facts={"arguments": list(entry.arguments)})


def new_entry_text(
    entry: BootEntry, paths: Sequence[str], *, options_of: Callable[[BootEntry], str], uki_key: str = "uki"
) -> bytes:
    """Return the entry file of a new *entry*, whose boot files the loader calls *paths*: kernel and initrds, or UKI.

    *options_of* writes its arguments as the loader reads them; *uki_key* is the key by which it starts a UKI.

    Raises:
        BootError: the entry adds arguments to a UKI, or *options_of* cannot write them.
    """
    fields = [("title", entry.title), ("version", entry.version or entry.deployment_id)]
    if entry.kind is EntryKind.UKI:
        refuse_added_arguments(entry)
        fields.append((uki_key, paths[0]))
    else:
        fields += [("linux", paths[0]), *(("initrd", path) for path in paths[1:])]
        fields.append(("options", options_of(entry)))
    if entry.machine_id:
        fields.append(("machine-id", entry.machine_id))
    return format_entry(fields)


def kept_entry_text(
    entry: BootEntry,
    file: EntryFile | None,
    *,
    arguments_of: Callable[[EntryFile], tuple[str, ...]],
    options_of: Callable[[BootEntry], str],
) -> bytes:
    """Return the text of an *entry* that is on the target already, in *file*: as it is, but for changed arguments.

    *arguments_of* reads the arguments of an entry file as the loader does, *options_of* writes them.

    Raises:
        BootError: there is no such file; changed arguments of a UKI; arguments that *options_of* cannot write.
    """
    if file is None:
        raise unknown_entry(entry.deployment_id)
    current = arguments_of(file)
    refuse_added_arguments(entry, current)
    if entry.kind is EntryKind.BLS and entry.arguments != current:
        return edit_entry(file.data, {"options": options_of(entry)})
    return file.data
