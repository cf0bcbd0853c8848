"""Judging a sealed image: digest, signatures, command line, what was left in it; each with what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from cfs_core.bls import split_arguments
from cfs_core.plugin import (
    EntryKind,
    Finding,
    FormatOptions,
    FormatVersion,
    HashAlgorithm,
    ImageError,
    KernelArgument,
    Severity,
    read_all,
    read_pe,
)
from cfs_core.sealing import (
    differences,
    effective,
    examine_arguments,
    explain,
    open_image,
    parse_words,
    sealed_arguments,
    sealed_dump,
)
from cfs_seal.authenticode import judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.x509 import Certificate

    from cfs_core.plugin import BootArtifacts, Content
    from cfs_core.sealing import OpenedImage, SealedDigest, Services
    from cfs_seal.authenticode import Verdict

LOADERS = ("/usr/lib/systemd/boot/efi/systemd-boot{efi}.efi.signed", "/usr/lib/systemd/boot/efi/systemd-boot{efi}.efi")
# Where distributions keep shim: Fedora's and Debian's packages, bootupd, and what was copied to an ESP in the image.
_SHIM_FOLDERS = (
    "/usr/lib/shim",
    "/usr/share/shim",
    "/boot/efi/EFI",
    "/usr/lib/bootupd/updates/EFI",
    "/usr/lib/efi/shim",
)
_LOCKS_ITSELF = re.compile(r"^CONFIG_(LOCK_DOWN_IN_EFI_SECURE_BOOT|LOCK_DOWN_KERNEL_FORCE_\w+)=y$", re.MULTILINE)
_CONFIG_LIMIT = 4 << 20
_SHOWN = 20
"""Differing paths that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A signed file of the image."""

    path: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was seen. ``form`` is the EROFS form and hash that fit, ``v1 sha512``; empty where none does."""

    manifest_digest: str
    uki: str | None
    named: str | None
    computed: str | None
    form: str
    arguments: tuple[str, ...]
    files: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    different: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing was an error."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)


def check(
    source: str, trusted: Sequence[Certificate], services: Services, *, architecture: str | None = None
) -> CheckReport:
    """Judge the image that *source* names; nothing is written.

    Raises:
        CfsError: the image cannot be read.
    """
    algorithm = HashAlgorithm.SHA512
    while True:
        with open_image(
            services, source, options=FormatOptions(algorithm=algorithm), architecture=architecture
        ) as image:
            checker = _Checker(image, trusted)
            seal = checker.seal(algorithm)
            if seal is None or seal.algorithm is algorithm:
                return checker.report(seal)
            algorithm = seal.algorithm


class _Checker:
    """One image under judgement."""

    def __init__(self, image: OpenedImage, trusted: Sequence[Certificate]) -> None:
        self._image = image
        self._trusted = trusted
        self._ukis = [each for each in image.artifacts if each.kind is EntryKind.UKI]
        self._findings: list[Finding] = []

    def seal(self, algorithm: HashAlgorithm) -> SealedDigest | None:
        """Return what the UKI that comes first names."""
        if not self._ukis:
            return None
        words = list(parse_words(argument.text for argument in sealed_arguments(self._ukis[0])))
        return effective(words, algorithm) or next(iter(words), None)

    def report(self, seal: SealedDigest | None) -> CheckReport:
        """Look at everything."""
        uki = self._ukis[0] if self._ukis else None
        form, computed, different = self._digest(seal)
        files = self._files(uki)
        arguments = sealed_arguments(uki) if uki is not None else ()
        self._findings += examine_arguments(arguments)
        self._findings += [*self._profiles(uki, seal), *self._kernel(uki), *self._leftovers()]
        return CheckReport(
            manifest_digest=self._image.manifest_digest,
            uki=uki.uki_name if uki is not None else None,
            named=seal.hex if seal is not None else None,
            computed=computed,
            form=form,
            arguments=tuple(argument.text for argument in arguments),
            files=files,
            findings=tuple(self._findings),
            different=different,
        )

    def _digest(self, seal: SealedDigest | None) -> tuple[str, str | None, tuple[str, ...]]:
        """Return the form that fits, the digest as it is, and what differs."""
        if seal is None:
            what = "the command line of its UKI names no digest" if self._ukis else "it has no UKI in /boot/EFI/Linux"
            self._error("seal.none", f"the image is not sealed: {what}", "seal it with `cfs seal SOURCE DEST`")
            return "", None, ()
        candidates = [
            FormatOptions(version=version, algorithm=seal.algorithm, keep_user_xattrs=keep)
            for keep, version in product((False, True), (FormatVersion.V1, FormatVersion.V2, FormatVersion.V0))
        ]
        for options, found in zip(candidates, self._image.identities(candidates), strict=True):
            if found == seal.hex:
                if seal.verity_optional:
                    message = "composefs=? makes fs-verity optional: where there is none, files are not verified"
                    self._warn("boot.uki-verity-optional", message, "seal it without --verity-optional")
                kept = " with user.* attributes" if options.keep_user_xattrs else ""
                return f"{options.version} {seal.algorithm}{kept}", found, ()
        ours = self._image.identities(candidates[:1])[0]
        different = self._different(candidates[0])
        message = f"the UKI names {seal.hex:.16}…, and the files make {ours:.16}…"
        if not different:
            why = explain(self._image, seal.hex, candidates)
            message += f": {why.text}" if why is not None else ""
            different = why.different if why is not None else ()
        message += f" ({len(different)} paths differ from what was sealed)" if different else ""
        self._error("seal.digest", message, "seal the image again with --replace, and change nothing after it")
        return "", ours, different[:_SHOWN]

    def _different(self, options: FormatOptions) -> tuple[str, ...]:
        """Compare with the dump that a sealer left beside the UKI, if there is one."""
        expected = sealed_dump(self._image.reader, self._ukis[0].uki_name or "")
        return tuple(differences(expected, self._image.dump(options))) if expected is not None else ()

    def _files(self, uki: BootArtifacts | None) -> tuple[Judged, ...]:
        """Judge the signatures of UKI, addons and loader."""
        found: list[tuple[str, Content]] = []
        if uki is not None and uki.uki is not None:
            found.append((str(uki.uki_name), uki.uki))
            found += [(addon.name, addon.content) for addon in uki.addons]
        efi = self._image.architecture.efi
        loader = next(
            (path.format(efi=efi) for path in LOADERS if self._image.reader.exists(path.format(efi=efi))), None
        )
        if loader is not None and (content := self._image.reader.content(loader)) is not None:
            found.append((loader, content))
        return tuple(self._judged(*each) for each in found)

    def _judged(self, path: str, content: Content) -> Judged:
        unsigned = "seal.loader-unsigned" if path.startswith("/") else "seal.unsigned"
        try:
            verdicts = judge(read_all(content), self._trusted)
        except ImageError as cause:
            self._error("seal.damaged", f"{path}: {cause.message}", cause.hint or "build it again")
            return Judged(path=path, verdicts=())
        resign = "sign it again: `cfs seal --replace`, with --sign-loader for the loader"
        if not verdicts:
            self._error(unsigned, f"{path} is not signed: firmware with Secure Boot does not start it", resign)
        elif not any(verdict.intact for verdict in verdicts):
            self._error("seal.damaged", f"{path} has no signature that fits it: {verdicts[0].problem}", resign)
        elif self._trusted and not any(verdict.trusted_by for verdict in verdicts):
            names = ", ".join(verdict.signer for verdict in verdicts)
            message = f"{path} is signed by {names}, for which no given certificate vouches"
            self._error("seal.untrusted", message, "enrol that certificate, or sign with a key that is enrolled")
        return Judged(path=path, verdicts=verdicts)

    def _profiles(self, uki: BootArtifacts | None, seal: SealedDigest | None) -> Iterator[Finding]:
        """Judge the command lines of profiles: that of each takes the place of the UKI's own."""
        if uki is None or uki.uki is None or seal is None:
            return
        own = [argument.text for argument in sealed_arguments(uki) if argument.origin != uki.uki_name]
        for section in read_pe(uki.uki).every(".cmdline")[1:]:
            text = read_all(section).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            words = [KernelArgument(text=word, origin="a profile") for word in split_arguments(text)]
            found = effective(parse_words([*(word.text for word in words), *own]), seal.algorithm)
            if found is None or found.hex != seal.hex:
                names = f"names {found.hex:.16}…" if found is not None else "names no digest"
                message = f"a profile of {uki.uki_name} {names}, and the UKI {seal.hex:.16}…"
                hint = "seal it again with --replace: --profile adds to the UKI's own command line"
                yield Finding.error("seal.profile", message, hint)
            yield from examine_arguments(words)

    def _kernel(self, uki: BootArtifacts | None) -> Iterator[Finding]:
        """Say whether the kernel locks itself down."""
        if uki is None or any(argument.text.startswith("lockdown=") for argument in sealed_arguments(uki)):
            return
        for path in (f"/usr/lib/modules/{uki.kernel_version}/config", f"/boot/config-{uki.kernel_version}"):
            raw = self._image.reader.read(path, limit=_CONFIG_LIMIT)
            if raw is not None and not _LOCKS_ITSELF.search(raw.decode("utf-8", "replace")):
                message = f"{path}: the kernel does not lock itself down where Secure Boot is on, so root can change it"
                yield Finding.warning("seal.no-lockdown", message, "seal with --karg lockdown=integrity")
                return

    def _leftovers(self) -> Iterator[Finding]:
        kernels = [each for each in self._image.artifacts if each.kind is EntryKind.BLS]
        if kernels and self._ukis:
            message = (
                f"/usr/lib/modules/{kernels[0].kernel_version} has kernel and initramfs besides the UKI: they are twice"
            )
            yield Finding.note("seal.raw-kernel", message, "seal with --split-kernel to save the space")
        if len(self._ukis) > 1:
            names = ", ".join(str(each.uki_name) for each in self._ukis)
            message = f"there are {len(self._ukis)} UKIs ({names}); only the first is installed"
            yield Finding.warning("seal.several", message, "leave one in the image")
        for folder in _SHIM_FOLDERS:
            if self._image.reader.exists(folder) and (found := self._shim(folder)):
                message = f"{found} is left in the image: shim starts what its own keys and its list of keys vouch for"
                yield Finding.warning("seal.shim", message, "remove the package of shim from the image")
                return

    def _shim(self, folder: str, depth: int = 3) -> str | None:
        for name in self._image.reader.names(folder):
            path = f"{folder}/{name}"
            if name.lower().startswith("shim") and ".efi" in name.lower():
                return path
            if depth and (found := self._shim(path, depth - 1)):
                return found
        return None

    def _error(self, code: str, message: str, hint: str) -> None:
        self._findings.append(Finding.error(code, message, hint))

    def _warn(self, code: str, message: str, hint: str) -> None:
        self._findings.append(Finding.warning(code, message, hint))
