"""Looks into an image's initramfs and says whether it can mount a composefs root."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cfs_core.plugin import ConfigError, Initramfs, InitramfsVerdict, parse_toml
from cfs_initramfs.contents import CONFIG, read_contents
from cfs_initramfs.handlers import CFS, HANDLERS
from cfs_initramfs.programs import INIT
from cfs_initramfs.segments import UnknownCompressionError
from cfs_initramfs.supplement import CannotAddError, Lack, make_addition, refuse_addition
from cfs_initramfs.uki import initrd_section

if TYPE_CHECKING:
    from cfs_core.plugin import BootArtifacts, InitramfsAddition, TreeReader
    from cfs_initramfs.contents import Contents
    from cfs_initramfs.handlers import Handler

STORAGE = "composefs"
MODULES = {"erofs": "kernel/fs/erofs/erofs.ko", "overlay": "kernel/fs/overlayfs/overlay.ko"}
MOUNTS = frozenset({"none", "root", "bind", "overlay", "transient", "volatile"})


class EarlyBoot(Initramfs):
    """Recognises cfs's own code, bootc's and composefs-rs's."""

    def examine(self, artifacts: BootArtifacts, image: TreeReader, storage_format: str) -> InitramfsVerdict:
        """Look into the initrd (or the UKI's .initrd) and say whether it can mount *storage_format*.

        Raises:
            ImageError: the initramfs is damaged or beyond a limit.
        """
        if storage_format != STORAGE:
            return InitramfsVerdict(supported=None, reason=f"knows only {STORAGE}")
        try:
            contents = _read(artifacts)
        except UnknownCompressionError as error:
            return InitramfsVerdict(supported=False, reason=error.message, hint=error.hint)
        if contents is None:
            return InitramfsVerdict(
                supported=False, reason="the image has no initramfs", hint="build one into /usr/lib/modules/VERSION/"
            )
        return _verdict(contents, artifacts, image)

    def supplement(
        self, artifacts: BootArtifacts, image: TreeReader, storage_format: str, filesystem: str
    ) -> InitramfsAddition | InitramfsVerdict | None:
        """Offer script, hooks, and the modules and programs that the initramfs lacks; say what stands against it.

        Raises:
            ImageError: the initramfs is damaged or beyond a limit.
        """
        if storage_format != STORAGE:
            return None
        try:
            contents = _read(artifacts)
        except UnknownCompressionError as error:
            return InitramfsVerdict(supported=False, reason=error.message, hint=error.hint)
        if contents is None:
            return InitramfsVerdict(supported=False, reason="there is no initramfs to add it to")
        verdict = _verdict(contents, artifacts, image)
        try:
            refuse_addition(artifacts, verdict.handler if verdict.supported else None)
            stopped = _start_problem(contents, artifacts, image)
            if stopped is not None:
                raise CannotAddError(*stopped)  # noqa: TRY301 - one of many reasons, all answered below
            used = contents.compressions
            readable = _unpacked_by(image, artifacts.kernel_version, used)
            lack = Lack(contents=contents, artifacts=artifacts, image=image, filesystem=filesystem, readable=readable)
            return make_addition(lack)
        except CannotAddError as error:
            return error.verdict


def _verdict(contents: Contents, artifacts: BootArtifacts, image: TreeReader) -> InitramfsVerdict:
    """Say which handler, if any, will mount the root."""
    problems: list[InitramfsVerdict] = []
    for handler in HANDLERS:
        if handler.name not in contents.handlers:
            continue
        problem = _problem(handler, contents, artifacts, image)
        if problem is None:
            return InitramfsVerdict(supported=True, handler=handler.name, arguments=handler.arguments)
        problems.append(problem)
    return problems[0] if problems else InitramfsVerdict(supported=None)


def _read(artifacts: BootArtifacts) -> Contents | None:
    """Read the initramfs once; None where there is none."""
    with ExitStack() as stack:
        files = [stack.enter_context(initrd.open()) for initrd in artifacts.initrds]
        if not files and artifacts.uki is not None:
            section = initrd_section(artifacts.uki, stack.enter_context(artifacts.uki.open()))
            files = [] if section is None else [section]
        return read_contents(*files) if files else None


def _problem(
    handler: Handler, contents: Contents, artifacts: BootArtifacts, image: TreeReader
) -> InitramfsVerdict | None:
    """Say why *handler*, whose program is there, would not mount the root; None if it would."""
    if handler.marker is not None and handler.marker not in contents.handlers[handler.name]:
        return _refusal(
            handler,
            "the initramfs has an early-boot script of another version of cfs",
            "run `cfs initramfs install` for the image and rebuild its initramfs",
        )
    if handler.name not in contents.hooks:
        return _refusal(
            handler,
            f"the initramfs contains the early-boot code of {handler.name}, but nothing starts it",
            f"rebuild the initramfs so that {handler.service} is wanted by initrd-root-fs.target; "
            "the generator's module was perhaps added by hand",
        )
    stopped = _start_problem(contents, artifacts, image)
    if stopped is not None:
        return _refusal(handler, *stopped)
    version = artifacts.kernel_version
    if contents.versions and version and version not in contents.versions:
        return _refusal(
            handler,
            f"the initramfs has modules of kernel {', '.join(sorted(contents.versions))}, the image boots {version}",
            f"rebuild the initramfs for {version}",
        )
    for name, path in MODULES.items():
        there = name in contents.added or (version, path) in contents.modules
        if not there and not _is_builtin(image, version, path):
            return _refusal(
                handler,
                f"the initramfs has no module {name}, and kernel {version} does not have it built in",
                f"add the module {name} to the initramfs",
            )
    return _config_problem(handler, contents, image) if handler is CFS else None


def _start_problem(contents: Contents, artifacts: BootArtifacts, image: TreeReader) -> tuple[str, str] | None:
    """Return why the kernel does not come as far as early boot, and what helps; None if it does."""
    version = artifacts.kernel_version
    unknown = sorted(contents.compressions - _unpacked_by(image, version, contents.compressions))
    if unknown:
        reason = f"the initramfs is compressed with {', '.join(unknown)}, which kernel {version} cannot unpack"
        return reason, f"compress it otherwise: the kernel's configuration lacks CONFIG_RD_{unknown[0].upper()}"
    named = [word.partition("=")[2] for word in artifacts.sealed_arguments if word.startswith("rdinit=")]
    path = named[-1] if named else INIT
    problem = contents.programs.problem(path, artifacts.architecture)
    if problem:
        return f"{path} of the initramfs cannot be started: {problem}", "build the initramfs again, in the image"
    return None


def _unpacked_by(image: TreeReader, version: str, used: set[str]) -> set[str]:
    """Return the compressions that a kernel's configuration has built in; all that are *used* where there is none."""
    for path in (f"/usr/lib/modules/{version}/config", f"/boot/config-{version}"):
        text = image.read(path)
        if text is not None:
            return {word.decode().lower() for word in re.findall(rb"(?m)^CONFIG_RD_([A-Z0-9]+)=y$", text)}
    return used


def _refusal(handler: Handler, reason: str, hint: str) -> InitramfsVerdict:
    return InitramfsVerdict(supported=False, handler=handler.name, reason=reason, hint=hint)


def _is_builtin(image: TreeReader, version: str, path: str) -> bool:
    listing = image.read(f"/usr/lib/modules/{version}/modules.builtin")
    return listing is not None and path.encode() in listing.split()


def _config_problem(handler: Handler, contents: Contents, image: TreeReader) -> InitramfsVerdict | None:
    """Say what the early-boot script would not understand in setup-root-conf.toml; it would stop the boot."""
    data = contents.config if contents.config is not None else image.read(f"/{CONFIG}")
    if data is None:
        return None
    try:
        config = parse_toml(data, f"/{CONFIG}")
    except ConfigError as error:
        return _refusal(handler, error.message, "correct it in the image")
    if re.search(rb"(?m)^[^#\n]*=\s*\{", data):
        return _refusal(
            handler,
            f"/{CONFIG} has an inline table, which the early-boot script cannot read",
            "write [section] lines",
        )
    for section in ("etc", "var"):
        table = config.get(section, {})
        mount = table.get("mount", "bind") if isinstance(table, dict) else table
        if not isinstance(mount, str) or mount not in MOUNTS:
            return _refusal(
                handler, f"/{CONFIG}: [{section}] mount = {mount!r}", "say none, bind, overlay or transient"
            )
    return None
