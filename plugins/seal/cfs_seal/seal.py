"""Sealing: the image as it will be installed, its digest in a UKI, the UKI in one more layer."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    BootError,
    BytesContent,
    EntryKind,
    FileContent,
    Finding,
    FormatOptions,
    FormatVersion,
    HashAlgorithm,
    ImageError,
    KernelArgument,
    RefusedError,
    Severity,
    UsageError,
)
from cfs_core.sealing import (
    AddedLayer,
    NoKernelError,
    append_layer,
    collect_arguments,
    examine,
    examine_arguments,
    open_image,
    read_pe,
)
from cfs_seal.detached import Handover, read_handover, write_handover
from cfs_seal.signing import sign_file, taken_over
from cfs_seal.uki import Ukify, UkiParts, stub_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.plugin import BootArtifacts, Content, ImageId
    from cfs_core.sealing import OpenedImage, Services
    from cfs_seal.signing import Signer

BOOT = "/boot"
UKIS = "/boot/EFI/Linux"
_LOADERS = "/usr/lib/systemd/boot/efi"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*\Z")
_OS_RELEASE = ("/usr/lib/os-release", "/etc/os-release")
_BLOCK_BITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SealRequest:
    """What was asked for. ``destination`` is None where only unsigned files are wanted."""

    source: str
    destination: str | None
    signers: tuple[Signer, ...] = ()
    unsigned_to: Path | None = None
    signed_from: tuple[Path, ...] = ()
    kargs: tuple[str, ...] = ()
    karg_deletes: tuple[str, ...] = ()
    addons: Mapping[str, str] = field(default_factory=dict)
    """Arguments by the addon's name."""

    profiles: Mapping[str, str] = field(default_factory=dict)
    """Arguments that are added in a profile, by its name."""

    pcr_key: Path | None = None
    name: str | None = None
    sbat: str | None = None
    stub: Path | None = None
    architecture: str | None = None
    version: FormatVersion = FormatVersion.V1
    algorithm: HashAlgorithm = HashAlgorithm.SHA512
    verity_optional: bool = False
    split_kernel: bool = False
    dump: bool = False
    replace: bool = False
    sign_loader: bool = False

    @property
    def options(self) -> FormatOptions:
        """What decides the digest."""
        return FormatOptions(version=self.version, algorithm=self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealResult:
    """What was made. ``manifest_digest`` is None, and ``unsigned`` are files, where somebody else is to sign."""

    image_id: ImageId
    uki: str
    arguments: tuple[str, ...]
    signed_by: tuple[str, ...] = ()
    manifest_digest: str | None = None
    unsigned: tuple[Path, ...] = ()
    findings: tuple[Finding, ...] = ()


def seal(request: SealRequest, services: Services) -> SealResult:
    """Seal an image, or go as far as the files that somebody else is to sign.

    Raises:
        RefusedError, BootError: the image cannot boot sealed; the hint says what to change in it.
        CfsError: of the class of whatever failed; nothing is visible at the destination then.
    """
    with (
        open_image(services, request.source, options=request.options, architecture=request.architecture) as image,
        _work(services) as work,
    ):
        sealing = _Sealing(request, image, services, work)
        if request.signed_from:
            return sealing.finish(read_handover(request.signed_from))
        return sealing.run()


@contextmanager
def _work(services: Services) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="seal-", dir=services.scratch) as folder:
        yield Path(folder)


class _Sealing:
    """One image being sealed."""

    def __init__(self, request: SealRequest, image: OpenedImage, services: Services, work: Path) -> None:
        self._request = request
        self._image = image
        self._services = services
        self._work = work
        self._mtime = services.source_date_epoch if services.source_date_epoch is not None else int(time.time())
        self._kernel, self._old = self._artifacts()
        self._uki_path = f"{UKIS}/{self._name()}"

    def run(self) -> SealResult:
        """Build, and sign or hand over."""
        below = self._below()
        image_id = self._image.identity_with(below, self._request.options)
        arguments, findings = self._arguments(image_id)
        built = self._build(arguments)
        result = SealResult(image_id=image_id, uki=self._uki_path, arguments=arguments, findings=findings)
        if self._request.unsigned_to is not None:
            handover = Handover(
                manifest_digest=self._image.manifest_digest,
                image_id=image_id,
                arguments=arguments,
                uki=self._uki_path,
                places=dict(zip(built, (path.name for path in built.values()), strict=True)),
            )
            made = write_handover(self._request.unsigned_to, handover, built)
            return _with(result, unsigned=made)
        files: dict[str, Content] = {}
        for place, path in built.items():
            files[place] = self._signed(path)
        names = tuple(signer.name for signer in self._request.signers)
        return _with(result, signed_by=names, manifest_digest=self._append(below, files, image_id))

    def finish(self, handover: Handover) -> SealResult:
        """Take over what somebody else has signed."""
        below = self._below()
        image_id = self._image.identity_with(below, self._request.options)
        handover.check(self._image.manifest_digest, image_id)
        files: dict[str, Content] = {}
        signed_by: tuple[str, ...] = ()
        for place, (unsigned, signed) in handover.files().items():
            out = self._work / f"taken-{len(files)}"
            names = taken_over(unsigned, signed, out)
            signed_by = names if place == handover.uki else signed_by
            files[place] = FileContent.of(out)
        self._check_uki(files[handover.uki], handover)
        return SealResult(
            image_id=image_id,
            uki=handover.uki,
            arguments=handover.arguments,
            signed_by=signed_by,
            manifest_digest=self._append(below, files, image_id),
        )

    # --- what goes into it ----------------------------------------------------------------------

    def _artifacts(self) -> tuple[BootArtifacts, BootArtifacts | None]:
        """Return the kernel to seal, and the UKI that is in its place.

        Raises:
            RefusedError: the image is sealed already.
            ImageError: it has no kernel.
        """
        ukis = [each for each in self._image.artifacts if each.kind is EntryKind.UKI]
        kernels = [each for each in self._image.artifacts if each.kind is EntryKind.BLS]
        if ukis and not self._request.replace:
            msg = f"the image has the UKI {ukis[0].uki_name} already"
            hint = "look at it with `cfs seal --check REF`, or build another in its place with --replace"
            raise RefusedError(msg, hint=hint)
        if not kernels and not ukis:
            msg = "the image has no kernel: no /usr/lib/modules/VERSION/vmlinuz"
            raise NoKernelError(msg, hint="put kernel and initramfs.img below /usr/lib/modules/VERSION/")
        return (kernels or ukis)[0], ukis[0] if ukis else None

    def _name(self) -> str:
        name = self._request.name or self._kernel.kernel_version
        if not _NAME.match(name):
            msg = f"{name!r:.100} is no name for a UKI"
            raise UsageError(msg, hint="give one of letters, digits, dots and dashes with --name")
        return name if name.endswith(".efi") else f"{name}.efi"

    def _below(self) -> AddedLayer:
        """Return the part of the layer that the digest is of: what it changes outside of /boot."""
        files: dict[str, Content] = {}
        gone: list[str] = []
        if self._request.split_kernel and self._kernel.kind is EntryKind.BLS:
            folder = f"/usr/lib/modules/{self._kernel.kernel_version}"
            # What is in /boot is in no deployed tree, and the UKI comes before it.
            there = (f"{folder}/{name}" for name in ("vmlinuz", "initramfs.img"))
            gone += [path for path in there if self._image.reader.exists(path)]
        if self._request.sign_loader:
            path, content = self._loader()
            files[f"{path}.signed"] = content
        # A /boot that the layer must make is part of the digest, other than what is in it.
        made = () if self._image.reader.exists(BOOT) else (BOOT,)
        return AddedLayer(
            files=files, whiteouts=tuple(gone), directories=made, mtime=self._mtime, created_by="cfs seal"
        )

    def _loader(self) -> tuple[str, Content]:
        path = f"{_LOADERS}/systemd-boot{self._image.architecture.efi}.efi"
        loader = self._image.reader.content(path)
        if loader is None:
            msg = f"the image has no {path} to sign"
            raise ImageError(msg, hint="install systemd-boot's EFI files in the image, or leave out --sign-loader")
        unsigned = self._work / "loader.efi"
        with loader.open() as file:
            unsigned.write_bytes(file.read())
        return path, self._signed(unsigned)

    def _arguments(self, image_id: ImageId) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
        """Return the command line.

        Raises:
            BootError: what the image or somebody wants on it does not boot.
        """
        mark = "?" if self._request.verity_optional else ""
        added = [KernelArgument(text=text, origin="--karg") for text in self._request.kargs]
        wanted = collect_arguments(
            self._image.reader, self._image.labels, self._image.architecture, added=added,
            deleted=self._request.karg_deletes,
        )  # fmt: skip
        fitness = examine(self._image, self._kernel, wanted.arguments)
        origin = f"initramfs ({fitness.handler})"
        own = [KernelArgument(text=f"composefs={mark}{image_id}", origin="cfs seal")]
        own += [KernelArgument(text=text, origin=origin) for text in fitness.arguments]
        found = collect_arguments(
            self._image.reader, self._image.labels, self._image.architecture, own=own, added=added,
            deleted=self._request.karg_deletes,
        )  # fmt: skip
        findings = (*fitness.findings, *found.findings, *self._check_more())
        refuse(findings)
        return tuple(argument.text for argument in found.arguments), findings

    def _check_more(self) -> Iterator[Finding]:
        """Judge arguments of addons and profiles, which a sealed command line gets too."""
        asked = {"--addon": self._request.addons, "--profile": self._request.profiles}
        for option, named in asked.items():
            for name, text in named.items():
                words = [KernelArgument(text=word, origin=f"{option} {name}") for word in text.split()]
                yield from examine_arguments(words)
                for word in words:
                    if word.key in {"composefs", "composefs.digest"}:
                        message = f"{word.text!r:.100} of {word.origin} would name another image than the UKI"
                        hint = "leave it out: the UKI names the image"
                        yield Finding.error("boot.karg-composefs", message, hint)

    def _build(self, arguments: tuple[str, ...]) -> dict[str, Path]:
        """Build UKI and addons; return them by their place in the image."""
        architecture = self._image.architecture
        ukify = Ukify(self._services.commands, self._work, architecture)
        linux, initrd = self._kernel.kernel, self._kernel.initrd
        if self._kernel.uki is not None:
            pe = read_pe(self._kernel.uki)
            linux, initrd = pe.section(".linux"), pe.section(".initrd")
        if linux is None or initrd is None:
            msg = f"kernel {self._kernel.kernel_version} has no initramfs, which is what mounts the sealed root"
            raise ImageError(msg, hint="make one in the image: /usr/lib/modules/VERSION/initramfs.img")
        release = (self._image.reader.content(path) for path in _OS_RELEASE)
        stub = FileContent.of(self._request.stub) if self._request.stub else stub_of(self._image.reader, architecture)
        parts = UkiParts(
            linux=linux,
            initrd=initrd,
            uname=self._kernel.kernel_version,
            arguments=arguments,
            os_release=next(filter(None, release), None),
            stub=stub,
            sbat=self._request.sbat,
            pcr_key=self._request.pcr_key,
            addon_stub=stub_of(self._image.reader, architecture, addon=True) if self._request.profiles else None,
            profiles={name: (*arguments, *text.split()) for name, text in self._request.profiles.items()},
        )
        built = {self._uki_path: self._work / self._uki_path.rpartition("/")[2]}
        ukify.uki(parts, built[self._uki_path])
        for name, text in self._request.addons.items():
            path = self._work / f"{name}.addon.efi"
            ukify.addon(text.split(), stub_of(self._image.reader, architecture, addon=True), path)
            built[f"{self._uki_path}.extra.d/{path.name}"] = path
        return built

    # --- what becomes of it ---------------------------------------------------------------------

    def _signed(self, path: Path) -> Content:
        if not self._request.signers:
            return FileContent.of(path)
        out = path.with_name(f"{path.name}.signed")
        sign_file(path, self._request.signers, self._services.commands, out)
        return FileContent.of(out)

    def _append(self, below: AddedLayer, files: Mapping[str, Content], image_id: ImageId) -> str:
        gone = list(below.whiteouts)
        if self._old is not None:
            gone += [path for path in self._old_files() if path not in files]
        if self._request.dump:
            lines = self._image.dump_with(below, self._request.options)
            text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
            files = {**files, f"{BOOT}/{self._uki_path.rpartition('/')[2]}.dump": BytesContent(text)}
        version, algorithm = self._request.version, self._request.algorithm
        key = f"composefs.merged.bootable.erofs.{version}.fsverity-{algorithm}-{_BLOCK_BITS}"
        layer = AddedLayer(
            files={**below.files, **files},
            whiteouts=tuple(gone),
            directories=below.directories,
            mtime=self._mtime,
            created_by=below.created_by,
            annotations={key: image_id},
        )
        if self._request.destination is None:
            msg = "there is no DEST to write the sealed image to"
            raise UsageError(msg, hint="name one, such as oci:DIR:TAG")
        return str(append_layer(self._image, layer, self._request.destination))

    def _old_files(self) -> list[str]:
        """Return the UKIs of the image and their addons."""
        names = [name for name in self._image.reader.names(UKIS) if name.endswith(".efi")]
        extra = [f"{name}.extra.d" for name in names]
        return [f"{UKIS}/{name}" for name in (*names, *extra) if self._image.reader.exists(f"{UKIS}/{name}")]

    def _check_uki(self, uki: Content, handover: Handover) -> None:
        """Hold what was signed against what is in the image now.

        Raises:
            ImageError: kernel or initramfs are not those of the image.
        """
        pe = read_pe(uki)
        for name, ours in ((".linux", self._kernel.kernel), (".initrd", self._kernel.initrd)):
            theirs = pe.section(name)
            if ours is not None and (theirs is None or not same_bytes(ours, theirs)):
                msg = f"the signed {handover.uki.rpartition('/')[2]} has another {name} than the image"
                raise ImageError(msg, hint="begin again with --unsigned-to")


def same_bytes(ours: Content, theirs: Content) -> bool:
    """Say whether two contents are the same."""
    if ours.size != theirs.size:
        return False
    with ours.open() as one, theirs.open() as other:
        while block := one.read(1 << 20):
            if block != other.read(len(block)):
                return False
    return True


def refuse(findings: tuple[Finding, ...]) -> None:
    """Stop if a finding is an error.

    Raises:
        BootError: with the first one's message, hint and code; all of them are in ``facts['findings']``.
    """
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        first, *rest = errors
        more = f" (and {len(rest)} more: {', '.join(each.code for each in rest)})" if rest else ""
        raise BootError(first.message + more, hint=first.hint, code=first.code, facts={"findings": errors})


def _with(result: SealResult, **changes: object) -> SealResult:
    from dataclasses import replace

    return replace(result, **changes)  # type: ignore[arg-type]
