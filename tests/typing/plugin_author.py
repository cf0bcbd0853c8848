"""What an author of plugins writes; mypy --strict reads it, nobody runs it.

Every hook is implemented, every interface derived from, with the types that the documentation shows. A change in
`cfs_core.plugin` that breaks this file breaks plugins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import assert_type

import click

from cfs_core.plugin import (
    Action,
    Attributes,
    BootArtifacts,
    BootFacts,
    Bootloader,
    BootloaderProvider,
    BootMenu,
    CommandContext,
    CommandProvider,
    Descriptor,
    Digest,
    EntryKind,
    Event,
    Fetcher,
    Finding,
    Firmware,
    ImageReference,
    Initramfs,
    InitramfsProvider,
    InitramfsVerdict,
    InstallPlan,
    KernelArgument,
    LoaderConsole,
    Location,
    NotFoundError,
    OutputFormat,
    PluginContext,
    Policy,
    PolicyProvider,
    PolicyVerdict,
    ResolvedImage,
    Severity,
    TargetView,
    Transport,
    TransportProvider,
    TreeReader,
    Volume,
    VolumeNeed,
    WriteFile,
    hookimpl,
)

CFS_PLUGIN_API = (2, 0)


class Shelf(Transport):
    """The smallest transport."""

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        if not reference.tag:
            msg = f"nothing at {reference}"
            raise NotFoundError(msg, hint="name a tag", facts={"looked_for": list(accept)})
        return "", b""

    def open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        assert_type(descriptor.digest, Digest)
        return nullcontext([bytes(descriptor.size - offset)])


class Starter(Bootloader):
    """The smallest bootloader."""

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        return [VolumeNeed(volume=Volume.ESP, bytes_needed=1 << 20, filesystems=("vfat",), why="the loader")]

    def check(self, facts: BootFacts) -> Sequence[Finding]:
        if Firmware.UEFI in facts.firmware:
            return []
        return [Finding(severity=Severity.ERROR, code="boot.firmware-unsupported", message="UEFI only", origin="shelf")]

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        place = Location(Volume.ESP, "/EFI/BOOT") / f"BOOT{facts.architecture.efi.upper()}.EFI"
        assert_type(target.exists(place), bool)
        return [WriteFile(location=place, data=b"loader", attributes=Attributes(mode=0o755), why="the loader")]

    def read_menu(self, target: TargetView) -> BootMenu:
        return BootMenu(entries=())

    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        return []


class Anything(Policy):
    """The smallest policy."""

    def judge(self, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
        found = transport.referrers(image.reference, image.manifest.digest)
        assert_type(found, tuple[Descriptor, ...])
        return PolicyVerdict(accepted=bool(found), reason="has an attestation" if found else "has none")


class Knower(Initramfs):
    """The smallest knowledge of early-boot code."""

    def examine(self, artifacts: BootArtifacts, image: TreeReader, storage_format: str) -> InitramfsVerdict:
        return InitramfsVerdict(supported=None)


def make_transport(context: PluginContext) -> Transport:
    """Be a factory."""
    assert_type(context.source_date_epoch, int | None)
    context.log.debug("shelf.made", provider=context.provider)
    return Shelf()


@hookimpl
def cfs_register_transports() -> Iterable[TransportProvider]:
    return [TransportProvider(name="shelf", summary="images from a shelf", factory=make_transport, schemes=("shelf",))]


@hookimpl
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:
    yield BootloaderProvider(
        name="starter",
        summary="starts",
        factory=lambda _context: Starter(),
        firmware=frozenset({Firmware.UEFI}),
        entries=frozenset({EntryKind.BLS}),
        console=LoaderConsole(name="starter", started=(r"^starter \d",)),
    )


@hookimpl
def cfs_register_policies() -> Iterable[PolicyProvider]:
    return (PolicyProvider(name="anything", summary="has an attestation", factory=lambda _context: Anything()),)


@hookimpl
def cfs_register_initramfs() -> Iterable[InitramfsProvider]:
    return [InitramfsProvider(name="knower", summary="knows nothing", factory=lambda _context: Knower())]


def make_entries(context: CommandContext) -> click.Command:
    """Make a command that lists the entries of a disk."""

    def entries(disk: Path) -> None:
        menus = [each.menu for each in context.boot_menus(disk) if each.menu is not None]
        titles = [entry.title for menu in menus for entry in menu.entries]
        context.log.info("entries.read", provider=context.provider, uid=context.uid)
        if context.output.format is OutputFormat.JSON:
            context.output.show(titles)
        for title in titles:
            context.output.say(title)

    return click.Command(
        "entries", callback=entries, params=[click.Argument(["disk"], type=click.Path(path_type=Path))]
    )


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    return [CommandProvider(name="entries", summary="lists entries", factory=make_entries, has_result=True)]


@hookimpl
def cfs_kernel_arguments(facts: BootFacts) -> Iterable[KernelArgument]:
    if facts.root_filesystem == "ext4":
        yield KernelArgument(text="rootflags=noatime", origin="shelf")


@hookimpl
def cfs_check_plan(plan: InstallPlan) -> Iterable[Finding]:
    """Leave out the argument that is not needed."""
    return [
        Finding(severity=Severity.WARNING, code="shelf.init", message="starts another init", origin="shelf")
        for argument in plan.arguments
        if argument.key == "init"
    ]


@hookimpl
def cfs_check_boot(artifacts: BootArtifacts, efivars: Path) -> Iterable[Finding]:
    if artifacts.uki is None and efivars.is_dir():
        yield Finding(severity=Severity.WARNING, code="shelf.uki", message="starts no UKI", origin="shelf")


@hookimpl
def cfs_on_event(event: Event) -> None:
    assert_type(event.name, str)
