"""Holding a bootloader to what it declares, and to what its plan promises: before a byte is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.config.settings import Rank
from cfs_core.deploy.choose import BOOTC_NAMES, choose_firmware
from cfs_core.errors import BootError
from cfs_core.image.pe import find_pe
from cfs_core.interfaces.provider import Capability
from cfs_core.model.boot import Firmware
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.config.settings import Settings
    from cfs_core.interfaces.bootloader import BootFacts, Bootloader
    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.model.boot import BootEntry, BootMenu
    from cfs_core.pluginhost.load import PluginHost
    from cfs_core.pluginhost.registry import PluginId
    from cfs_core.target.memory import MemoryTarget


class FirmwareError(BootError):
    """A bootloader was asked for on firmware that does not start it."""

    code = "boot.firmware-unsupported"


class CapabilityError(BootError):
    """Something was asked for that the bootloader cannot do."""

    code = "boot.loader-unable"


def examine_firmware(provider: BootloaderProvider, firmware: frozenset[Firmware]) -> Iterator[Finding]:
    """Compare *firmware*, all of it, with what the provider declares."""
    missing = firmware - provider.firmware
    if missing:
        yield Finding.error("boot.firmware-unsupported", *_firmware_words(provider, missing))


def _firmware_words(provider: BootloaderProvider, missing: frozenset[Firmware]) -> tuple[str, str]:
    names = " and ".join(sorted(provider.firmware))
    message = f"{provider.name} does not start from {' and '.join(sorted(missing))}; it starts from {names}"
    return message, f"pass --firmware {min(provider.firmware, default=Firmware.UEFI)}, or choose another --bootloader"


def refuse_early(settings: Settings, host: PluginHost) -> None:
    """Refuse what the bootloader that was asked for cannot do, before anything is fetched.

    Raises:
        FirmwareError: it does not start from the firmware that was asked for.
        CapabilityError: it cannot show its menu for a given time.
    """
    asked = settings.get("install.bootloader")
    name = BOOTC_NAMES.get(str(asked.value), str(asked.value))
    registry = host.collect(families.BOOTLOADERS)
    if not asked.value or name not in registry:
        return  # whoever chooses it later says what is wrong with the name
    provider = registry.get(name)
    missing = (choose_firmware(settings) or frozenset()) - provider.firmware
    if missing:
        message, hint = _firmware_words(provider, missing)
        raise FirmwareError(message, hint=hint, facts={"bootloader": name, "firmware": sorted(missing)})
    timeout = settings.get("install.timeout")
    if timeout.value is not None and Capability.TIMEOUT not in provider.can:
        message = f"{name} cannot show its menu for a given time, which install.timeout of {timeout.origin} asks for"
        hint = "leave install.timeout out, or choose another --bootloader"
        raise CapabilityError(message, hint=hint, facts={"bootloader": name, "capability": Capability.TIMEOUT.value})


def wanted_timeout(settings: Settings, provider: BootloaderProvider) -> tuple[int | None, list[Finding]]:
    """Return the seconds that the menu is to be shown, None for the loader's own; what an image advises may be lost."""
    asked = settings.get("install.timeout")
    if not isinstance(asked.value, int) or Capability.TIMEOUT in provider.can:
        return (asked.value if isinstance(asked.value, int) else None), []
    message = f"{provider.name} cannot show its menu for a given time, which install.timeout of {asked.origin} asks for"
    hint = "leave install.timeout out, or choose another --bootloader"
    if asked.rank is Rank.IMAGE:
        return None, [Finding.warning("boot.loader-unable", message, hint)]
    return None, [Finding.error("boot.loader-unable", message, hint)]


def check_filled(
    target: MemoryTarget, wanted: BootMenu, facts: BootFacts, bootloader: Bootloader, whose: tuple[str, PluginId]
) -> None:
    """Read loader and menu back from the target in memory, as firmware and loader will.

    *whose* are name and owner of *bootloader*.

    Raises:
        PluginError: firmware would find nothing to start, or the menu is not what was wanted: the plugin is named.
        CfsError: what the plugin itself says about the menu.
    """
    name, owner = whose
    problem = _program_problem(target, facts)
    if problem is None:
        problem = next(_menu_problems(target, bootloader.read_menu(target), wanted), None)
    if problem is not None:
        message = f"the bootloader {name!r} of {owner} planned what does not start: {problem}"
        raise owner.fault(message)


def _program_problem(target: MemoryTarget, facts: BootFacts) -> str | None:
    """Look for what firmware starts from a disk it does not know: nothing else is sure to be tried."""
    if Firmware.UEFI not in facts.firmware or not facts.generic:
        return None
    location = facts.architecture.removable_program
    try:
        data = target.read(location)
    except FileNotFoundError:
        return f"{location} is not there, and firmware starts nothing else from a disk that it does not know"
    if not data and target.runs_nothing:
        return None  # a command will make it
    program = find_pe(data)
    if program is None:
        return f"{location} is no EFI program"
    found = program.architecture.value if program.architecture is not None else f"machine {program.machine:#x}"
    return None if program.architecture is facts.architecture else f"{location} is for {found}"


def _menu_problems(target: MemoryTarget, menu: BootMenu, wanted: BootMenu) -> Iterator[str]:
    ours = [entry for entry in menu.entries if not entry.foreign]
    for entry, found in zip(wanted.entries, ours, strict=False):
        if found.deployment_id != entry.deployment_id:
            yield f"its menu offers {found.deployment_id:.16} in the place of {entry.deployment_id:.16}"
        yield from _entry_problems(target, found, entry)
    if len(ours) != len(wanted.entries):
        yield f"its menu has {len(ours)} entries of {len(wanted.entries)}"
    if wanted.timeout_seconds is not None and menu.timeout_seconds != wanted.timeout_seconds:
        yield f"its menu is shown for {menu.timeout_seconds} seconds, not for {wanted.timeout_seconds}"


def _entry_problems(target: MemoryTarget, found: BootEntry, wanted: BootEntry) -> Iterator[str]:
    if wanted.arguments and found.arguments != wanted.arguments:
        lost = [text for text in wanted.arguments if text not in found.arguments]
        yield f"its menu has other kernel arguments than planned ({', '.join(lost) or 'in another order'})"
    if not found.files:
        yield f"its entry {found.title!r} names no boot files"
    initrds = wanted.artifacts.initrds if wanted.artifacts is not None else ()
    if len(initrds) > 1 and len(found.files) < 1 + len(initrds):
        yield f"its entry {found.title!r} names {len(found.files)} boot files of {1 + len(initrds)}: not every initrd"
    for location in found.files:
        if location.volume not in target.volumes() or not target.exists(location):
            yield f"its entry {found.title!r} names {location}, which is not there"
