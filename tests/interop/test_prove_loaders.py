"""What each loader says that it writes, with lines that it really writes; and lost arguments with each of them."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
from builders.outsiders import EXAMPLES

from cfs_core.interfaces.bootloader import LoaderConsole
from cfs_core.interfaces.provider import BootloaderProvider
from cfs_core.pluginhost import families
from cfs_core.pluginhost.load import PluginHost
from cfs_core.pluginhost.offers import offer_problem
from cfs_prove.console import ConsoleWatch
from cfs_prove.expectation import Expectation
from cfs_prove.guest import parse_report
from cfs_prove.judge import Accepted, Observed, failure_of, notes_of
from cfs_prove.patterns import patterns_for
from cfs_prove.report import Accelerator, FailureKind, Stage

FIRMWARE = 'BdsDxe: loading Boot0001 "UEFI Misc Device" from x'
KERNEL = "[    0.000000] Linux version 6.12.0 (a@b) #1 SMP"
PANIC = "[    9.000000] Kernel panic - not syncing: Attempted to kill init!"
ROOT = f"29 1 0:27 / / ro - overlay composefs:{'5ab4' * 32} ro,metacopy=on,verity=require"

STARTED = {
    "grub": ["GRUB loading.", "Welcome to GRUB!", "\x1b[1;1H                 GNU GRUB  version 2.12-9"],
    "systemd-boot": ["systemd-boot 257.13-1~deb13u1"],
    "refind": ["rEFInd 0.14.2", "Starting vmlinuz.efi", "Using load options 'root=a Access Denied'"],
    "extlinux": [
        "U-Boot 2025.01+dfsg-3 (Jan 1 2025)",
        "Retrieving file: /extlinux/extlinux.conf",
        "Found /x.conf, booting with extlinux",
    ],
}
FAILED = {
    "grub": [
        "error: file `/boot/vmlinuz' not found.",
        "error: ../../grub-core/fs/fshelp.c:257:file `/x' not found.",
        "error: no such device: 1234.",
        "Entering rescue mode...",
        "grub rescue> ",
        "Failed to boot both default and fallback entries.",
        "GRUB Geom Error",
    ],
    "systemd-boot": [
        "Error loading \\EFI\\Linux\\x\\vmlinuz: Not found",
        "Error opening root path: Not found",
        "Failed to open kernel",
        "No loader found. Configuration files in \\loader\\entries\\*.conf are needed.",
        "Unable to locate embedded .linux section: Not found",
    ],
    "refind": ["Error: Not Found while loading vmlinuz", "Invalid loader file!", "Unknown error: 5"],
    "extlinux": [
        "Skipping one for failure retrieving kernel",
        "Bad Linux ARM64 Image magic!",
        "SCRIPT FAILED: continuing...",
        "Error reading config file",
        "=> ",
    ],
}
HARMLESS = {
    "grub": [
        "error: terminal `gfxterm' isn't found.",
        "error: no suitable video mode found.",
        "error: file `/boot/grub2/fonts/unicode.pf2' not found.",
    ],
    "systemd-boot": ["Boot in 3 s."],
    "refind": ["Using load options 'a=Error: Not Found while loading x'"],
    "extlinux": ["append: root=x Bad Linux SCRIPT FAILED"],
}


def examples():
    """Yield the bootloaders that the documentation's examples offer."""
    for name in ("refind", "extlinux"):
        path = EXAMPLES / f"cfs-{name}" / f"cfs_{name}" / "plugin.py"
        spec = importlib.util.spec_from_file_location(f"example_{name}_plugin", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield from module.cfs_register_bootloaders()


def loaders():
    host = PluginHost()
    host.load_installed()
    return {provider.name: provider for provider in [*host.collect(families.BOOTLOADERS), *examples()]}


LOADERS = loaders()
NAMES = sorted(STARTED)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "lines"), [("started", STARTED), ("failed", FAILED), ("harmless", HARMLESS)])
def test_every_pattern_has_a_line_here(name, kind, lines):
    """So that none escapes the tests below."""
    plain = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in lines[name]]
    patterns = getattr(LOADERS[name].console, kind)
    assert [each for each in patterns if not any(re.search(each, line) for line in plain)] == []


def watched(name, *lines):
    watch = ConsoleWatch(patterns=patterns_for([LOADERS[name].console]))
    watch.feed("\r\n".join(lines).encode() + b"\r\n", 1.0)
    return watch


@pytest.mark.parametrize("name", NAMES)
def test_every_loader_of_the_project_says_what_it_writes(name):
    assert offer_problem(LOADERS[name], BootloaderProvider) is None
    assert LOADERS[name].console.name


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in NAMES for line in STARTED[name]])
def test_a_loader_is_seen_to_start(name, line):
    watch = watched(name, line)
    assert list(watch.reached) == [Stage.LOADER]
    assert watch.failure is None


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in NAMES for line in FAILED[name]])
def test_a_loader_is_seen_to_fail_unless_the_kernel_runs_after_all(name, line):
    watch = watched(name, FIRMWARE, line)
    assert watch.failure.kind is FailureKind.LOADER
    watch = watched(name, FIRMWARE, line, KERNEL)
    assert watch.failure is None
    assert watch.overtaken == [line.strip()]
    assert watched(name, FIRMWARE, KERNEL, line).failure is None


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in NAMES for line in HARMLESS[name]])
def test_what_is_harmless_is_no_failure(name, line):
    watch = watched(name, FIRMWARE, line)
    assert watch.failure is None
    assert watch.findings == []


def observed(name, command_line, *console):
    facts = ["begin", f"root {ROOT}", f"cmdline {command_line}", "state running", "kernel-log-read yes", "end"]
    guest = parse_report("".join(f"cfs-prove s {fact}\n" for fact in facts).encode(), "s")
    expected = Expectation(loader=name, loaders=(LOADERS[name].console,), arguments=("root=UUID=1", 'a="b c"', "d=$e"))
    watch = watched(name, FIRMWARE, KERNEL)
    watch.report_is_complete()
    watch.feed("".join(f"{line}\r\n" for line in console).encode(), 9.0)
    return Observed(accelerator=Accelerator.TCG, expected=expected, guest=guest, watch=watch, complete_at=8.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", ['initrd=x root=UUID=1 "a=b c" d=$e', 'BOOT_IMAGE=x root=UUID=1 quiet a="b c" d=$e'])
def test_each_line_of_failure_after_a_complete_report_is_still_a_proof(name, line):
    scary = [each for lines in FAILED.values() for each in lines]
    boot = observed(name, line, *scary, "Access Denied", "UEFI Interactive Shell v2.2", "Entering emergency mode")
    assert failure_of(boot, Accepted()) is None
    assert any("failure" in note for note in notes_of(boot))
    assert failure_of(observed(name, line, PANIC), Accepted()).kind is FailureKind.PANIC


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", ["root=UUID=1 a=b c d=$e", 'root=UUID=1 "a=b c"', '"a=b c" d=$e root=UUID=1', ""])
def test_lost_arguments_are_no_proof(name, line):
    failure = failure_of(observed(name, line), Accepted())
    assert failure.kind is FailureKind.ARGUMENTS
    assert failure.message.startswith(f"{name} was to hand the kernel ")


@pytest.mark.parametrize(
    "console",
    [
        LoaderConsole(started=("(",)),
        LoaderConsole(failed=("",)),
        LoaderConsole(harmless=(".*",)),
        LoaderConsole(failed="text"),
        LoaderConsole(failed=(b"bytes",)),
        LoaderConsole(name=None),
        None,
    ],
)
def test_a_console_that_says_nothing_useful_is_told_to_its_author(console):
    offer = BootloaderProvider(
        name="x", summary="x", factory=print, firmware=frozenset(), entries=frozenset(), console=console
    )
    assert "console" in offer_problem(offer, BootloaderProvider)
