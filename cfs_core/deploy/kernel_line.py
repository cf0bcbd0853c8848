"""Does a kernel command line start the disk it is on? The rules are those of the initramfs (formats E.6)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.deploy.bootable.rootflags import examine_rootflags
from cfs_core.errors import CfsError
from cfs_core.image.kernel_arguments import matches, unquoted
from cfs_core.image.sealed import command_line, effective, parse_words
from cfs_core.model.boot import EntryKind, KernelArgument
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.disk import Location, Volume
from cfs_core.model.places import REPOSITORY
from cfs_core.model.plan import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.model.boot import BootEntry
    from cfs_core.model.disk import Partition
    from cfs_core.target.read import DiskImage

ADDONS = ".extra.d"
"""A UKI's addons are in the directory of its name and this (systemd-stub)."""

_DISCOVERED = frozenset({"gpt-auto", "gpt-auto-force", "dissect", "dissect-force"})
_DEVICE = re.compile(r"/dev/(?:[shv]d[a-z]+|xvd[a-z]+|(?:nvme\d+n|mmcblk|loop)\d+p)(\d+)\Z")
_BY_LINK = re.compile(r"/dev/disk/by-(uuid|partuuid|label|partlabel)/(.*)\Z", re.DOTALL)


def examine_seal(words: Sequence[str], image_id: str, where: str) -> Iterator[Finding]:
    """Compare the identity that the initramfs will take from *words*, the command line of UKI *where*, with *image_id*.

    Raises:
        ImageError: a ``composefs=`` that the initramfs stops at.
    """
    short = len(image_id) == 2 * HashAlgorithm.SHA256.size
    found = effective(parse_words(words), HashAlgorithm.SHA256 if short else HashAlgorithm.SHA512)
    if found is None:
        message = f"the command line of {where} names no composefs image, so its initramfs will not find the root"
        hint = f"build the UKI, or an addon of it, with composefs={image_id}"
        yield Finding.error("boot.uki-unsealed", message, hint)
    elif found.hex != image_id:
        message = f"the command line of {where} names {found.hex:.16}… first, but the image is {image_id:.16}…"
        yield Finding.error("boot.uki-seal", message, f"build the UKI again with composefs={image_id} and no other")
    elif found.verity_optional:
        message = f"the command line of {where} makes fs-verity optional: files are not verified where it is missing"
        yield Finding.warning("boot.uki-verity-optional", message, "leave out the ? behind composefs= to require it")


def examine_root(arguments: Sequence[KernelArgument], root: Partition, *, sealed: bool) -> Iterator[Finding]:
    """Compare ``root=``, ``rootfstype=`` and ``rootflags=`` with the root partition; of each the last one counts.

    A device name depends on the machine. It is a warning where the command line is *sealed*, and there is no other
    choice; else it is an error, as it overrides the partition's identifier.
    """
    last = {argument.key.replace("-", "_"): argument for argument in map(unquoted, arguments)}
    named = last.get("root")
    if named is not None:
        value = named.text.partition("=")[2]
        verdict = is_root(value, root)
        message = f"{named.text!r} of {named.origin} is not the root partition, which is UUID={root.fs_uuid}"
        hint = "leave it out: cfs names the root partition, and UKIs find it by its type"
        if verdict is False or (verdict is None and not sealed):
            yield Finding.error("boot.karg-root", message, hint)
        elif verdict is None:
            message = f"{named.text!r} of {named.origin} may or may not be the root partition on another machine"
            yield Finding.warning("boot.karg-root", message, hint)
    kind = last.get("rootfstype")
    if kind is not None and root.filesystem is not None:
        allowed = kind.text.partition("=")[2].split(",")
        if not {root.filesystem, "auto"} & set(allowed):
            message = f"{kind.text!r} of {kind.origin} contradicts the root filesystem, which is {root.filesystem}"
            yield Finding.error("boot.karg-root", message, "leave it out")
    flags = last.get("rootflags")
    if flags is not None and root.filesystem is not None:
        yield from examine_rootflags(flags, root.filesystem)


def is_root(value: str, root: Partition) -> bool | None:
    """Return whether ``root=`` *value* is *root*; None where only the machine can say."""
    if value in _DISCOVERED:
        return True
    if link := _BY_LINK.match(value):
        kind, value = link[1].upper(), link[2]
    elif device := _DEVICE.match(value):
        return None if int(device[1]) == root.number else False
    else:
        kind, _, value = value.partition("=")
    known = {"UUID": root.fs_uuid, "PARTUUID": root.uuid, "LABEL": root.label, "PARTLABEL": root.name}
    expected = known.get(kind)
    if expected is None:
        return None
    return value.lower() == expected.lower() if kind.endswith("UUID") else value == expected


def examine_sealed_arguments(
    words: Sequence[KernelArgument],
    *,
    demanded: Sequence[KernelArgument],
    advised: Sequence[KernelArgument],
    deleted: Sequence[str],
) -> Iterator[Finding]:
    """Say what will not be on the command line of a UKI, *words*, and what cannot be taken away from it.

    What somebody *demanded* or *deleted* is an error, what an image or a plugin *advised* a warning.
    """
    hint = "build it into the UKI, or ship a UKI addon in the image"
    have = {unquoted(word).text for word in words}
    for argument in demanded:
        if unquoted(argument).text not in have:
            message = f"{argument.text!r} of {argument.origin} cannot be added: a UKI's command line is sealed"
            yield Finding.error("boot.karg-sealed", message, hint)
    for text in deleted:
        kept = next((word for word in words if matches(word, text)), None)
        if kept is not None:
            message = f"--karg-delete {text}: {kept.text!r} of {kept.origin} stays, as a UKI's command line is sealed"
            yield Finding.error(
                "boot.karg-sealed", message, "leave the option out, or build the UKI without the argument"
            )
        elif not any(matches(argument, text) for argument in advised):
            message = f"--karg-delete {text}: neither UKI, image nor settings have such an argument"
            yield Finding.warning("boot.karg-not-found", message)
    for argument in advised:
        if unquoted(argument).text not in have and not any(matches(argument, text) for text in deleted):
            message = f"{argument.text!r} of {argument.origin} is left out: a UKI's command line is sealed"
            yield Finding.warning("boot.karg-dropped", message, hint)


def sealed_on(disk: DiskImage, uki: Location) -> tuple[KernelArgument, ...]:
    """Return the command line of a UKI on a disk, its addons' included.

    Raises:
        ImageError, DiskError: one of the files is damaged.
    """
    folder = Location(uki.volume, uki.path + ADDONS)
    addons = [folder / name for name in disk.names(folder) if name.lower().endswith(".addon.efi")]
    return tuple(
        KernelArgument(text=word, origin=str(location))
        for location in (uki, *addons)
        for word in command_line(disk.content(location))
    )


def examine_sealed_entry(disk: DiskImage, entry: BootEntry) -> Iterator[Finding]:
    """Yield what keeps an entry of cfs from finding its root, on a finished disk: the UKI that is there decides."""
    root = disk.partition(Volume.ROOT)
    if entry.kind is not EntryKind.UKI or entry.foreign or root is None or not disk.exists(REPOSITORY):
        return
    if not all(map(disk.exists, entry.files)):
        return
    for where in entry.files[:1]:
        try:
            arguments = sealed_on(disk, where)
            findings = list(examine_seal([argument.text for argument in arguments], entry.deployment_id, str(where)))
        except CfsError as cause:
            yield Finding.error("boot.uki-damaged", cause.message, where=str(where))
            return
        for finding in (*findings, *examine_root(arguments, root, sealed=True)):
            if finding.severity is Severity.ERROR:
                yield replace(finding, where=str(where))
