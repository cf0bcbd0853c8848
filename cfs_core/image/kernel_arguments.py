"""Kernel arguments from everywhere, each with its origin; nothing is dropped without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import split_arguments
from cfs_core.errors import ConfigError, ImageError, UsageError
from cfs_core.interfaces.image_settings import is_for, refuse_file
from cfs_core.model.boot import Architecture, KernelArgument
from cfs_core.model.plan import Finding, Severity
from cfs_core.system.strict_toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.interfaces.storage import TreeReader

DIRECTORIES = ("/usr/lib/bootc/kargs.d", "/usr/lib/cfs/kargs.d")
LABEL = "containers.cfs.kargs"
FILE_LIMIT = 1 << 20
_COMMAND_LINE_BYTES = {Architecture.RISCV64: 1023}
_DEFAULT_COMMAND_LINE_BYTES = 2047
"""COMMAND_LINE_SIZE of the kernel less its NUL; arch/x86, arch/arm64."""

_OURS = frozenset({"composefs", "composefs.digest"})
_SINGLE = frozenset(
    {"root", "rootfstype", "rootflags", "init", "rdinit", "systemd.unit", "selinux", "enforcing", "fips"}
)
_OF_ROOT = frozenset({"rootfstype", "rootflags"})
"""How the root is mounted. Which partition it is, ``root=``, is judged where the partitions are known."""

_OPPOSITES = ({"ro", "rw"},)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedArguments:
    """The command line, in order, and what is odd about it. ``removed`` is what ``--karg-delete`` took away."""

    arguments: tuple[KernelArgument, ...]
    findings: tuple[Finding, ...] = ()
    removed: tuple[KernelArgument, ...] = ()


def quote(text: str) -> str:
    """Return *text* as one word of the command line: double quotes go around a value with white space in it.

    Raises:
        UsageError: it cannot be one word; the kernel knows no escape for a double quote.
    """
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):  # noqa: PLR2004 - control characters
        msg = f"the kernel argument {text!r} contains a control character"
        raise UsageError(msg, hint="leave it out; no loader can write it")
    if not text.strip():
        msg = "a kernel argument is empty"
        raise UsageError(msg, hint="write it as --karg NAME or --karg NAME=VALUE")
    if text.count('"') % 2:
        msg = f"the kernel argument {text!r} has an odd number of double quotes"
        raise UsageError(msg, hint="the kernel has no escape for a double quote; they only come in pairs")
    if split_arguments(text) == (text,):
        return text
    if '"' in text:
        msg = f"the kernel argument {text!r} has white space and double quotes in it"
        raise UsageError(msg, hint='write it as KEY="VALUE WITH SPACES", or give several arguments')
    key, equals, value = text.partition("=")
    return f'{key}="{value}"' if equals and " " not in key else f'"{text}"'


def image_arguments(
    image: TreeReader, labels: Mapping[str, str], architecture: Architecture
) -> tuple[KernelArgument, ...]:
    """Return what an image asks for in ``kargs.d`` (both places, by file name) and in its label.

    Raises:
        ImageError: a file is not what bootc documents: ``kargs`` and ``match-architectures``, arrays of strings.
    """
    found: list[KernelArgument] = []
    for directory in DIRECTORIES:
        try:
            refuse_file(image, directory)
        except ConfigError as error:
            raise ImageError(error.message, hint=error.hint, facts=error.facts) from error
        for name in image.names(directory):
            path = f"{directory}/{name}"
            if name.endswith(".toml") and (raw := image.read(path, limit=FILE_LIMIT)) is not None:
                found += _of_file(raw, path, architecture)
    words = _words([labels.get(LABEL, "")], f"label {LABEL}")
    return (*found, *(KernelArgument(text=word, origin=f"image label {LABEL}") for word in words))


def collect_arguments(
    image: TreeReader,
    labels: Mapping[str, str],
    architecture: Architecture,
    *,
    own: Sequence[KernelArgument] = (),
    settings: Sequence[KernelArgument] = (),
    added: Sequence[KernelArgument] = (),
    deleted: Sequence[str] = (),
    configured_deletes: Sequence[KernelArgument] = (),
) -> CollectedArguments:
    """Put the command line together: image, settings, *own* (what the system cannot start without), then *added*.

    Later words win in the kernel and in the initramfs, so nothing an image says overrides *own*. *deleted* takes away
    what image and settings want, by key or as ``key=value``; it does not touch *own* and *added*. Nor do
    *configured_deletes*, those of settings and image advice, of which nothing is said where there is nothing to delete.

    Raises:
        ImageError: a malformed file or label.
        UsageError: an argument that cannot be one word.
    """
    findings: list[Finding] = []
    lower = [*image_arguments(image, labels, architecture), *map(_quoted, settings)]
    upper = [*own, *map(_quoted, added)]
    removed: list[KernelArgument] = []
    for text in deleted:
        gone = [argument for argument in lower if matches(argument, text)]
        lower = [argument for argument in lower if not matches(argument, text)]
        removed += gone
        if not gone:
            findings.append(_undeletable(text, own))
    for argument in configured_deletes:
        removed += [each for each in lower if matches(each, argument.text)]
        lower = [each for each in lower if not matches(each, argument.text)]
        findings += _kept(argument, own)
    arguments = (*lower, *upper)
    ours = frozenset(argument.text for argument in own)
    findings += _contradictions(arguments, ours)
    # An error, and not planned with: the loader would be told to start another image, and be blamed for it.
    arguments = tuple(argument for argument in arguments if not _mounts_another(argument, ours))
    length = len(" ".join(argument.text for argument in arguments).encode("utf-8", "surrogateescape"))
    limit = _COMMAND_LINE_BYTES.get(architecture, _DEFAULT_COMMAND_LINE_BYTES)
    if length > limit:
        message = f"the kernel command line has {length} bytes, {architecture.value} kernels read {limit}"
        findings.append(Finding.error("boot.cmdline-too-long", message, "leave some arguments out"))
    return CollectedArguments(arguments=arguments, findings=tuple(findings), removed=tuple(removed))


def _of_file(raw: bytes, path: str, architecture: Architecture) -> Iterator[KernelArgument]:
    try:
        document = parse_toml(raw, path)
    except ConfigError as error:
        raise ImageError(error.message, hint=error.hint) from error
    for key, value in document.items():
        if key not in {"kargs", "match-architectures"}:
            msg = f"{path} has the unknown key {key!r:.100}"
            raise ImageError(msg, hint="bootc knows kargs and match-architectures")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            msg = f"{key!r} in {path} must be an array of strings"
            raise ImageError(msg)
    if "kargs" not in document:
        msg = f"{path} has no kargs in it"
        raise ImageError(msg)
    wanted = document.get("match-architectures")
    if not is_for(architecture.value, wanted):
        return
    for word in _words(document["kargs"], path):
        yield KernelArgument(text=word, origin=path)


def _words(texts: Sequence[str], where: str) -> tuple[str, ...]:
    found = tuple(word for text in texts for word in split_arguments(text))
    for word in found:
        try:
            quote(word)
        except UsageError as error:
            msg = f"{where}: {error.message}"
            raise ImageError(msg, hint=error.hint) from error
    return found


def _quoted(argument: KernelArgument) -> KernelArgument:
    return KernelArgument(text=quote(argument.text), origin=argument.origin)


def matches(argument: KernelArgument, text: str) -> bool:
    """Return whether ``--karg-delete`` *text*, a key or ``key=value``, means *argument*."""
    if "=" in text:
        return argument.text in {text, quote(text)}
    return _key(argument) == text.replace("-", "_")


def unquoted(argument: KernelArgument) -> KernelArgument:
    """Return *argument* as programs see it: double quotes only group (kernel, lib/cmdline.c)."""
    return KernelArgument(text=argument.text.replace('"', ""), origin=argument.origin)


def _key(argument: KernelArgument) -> str:
    """Return the key as the kernel compares it (kernel/params.c: dash and underscore are the same)."""
    return unquoted(argument).key.replace("-", "_")


def _kept(delete: KernelArgument, own: Sequence[KernelArgument]) -> list[Finding]:
    """Say what settings or an image cannot take out."""
    kept = next((argument for argument in own if matches(argument, delete.text)), None)
    if kept is None:
        return []
    message = f"{delete.origin} takes {delete.text} out: {kept.text!r} stays, the system does not start without it"
    return [Finding.warning("boot.karg-needed", message, "leave it out there")]


def _undeletable(text: str, own: Sequence[KernelArgument]) -> Finding:
    kept = next((argument for argument in own if matches(argument, text)), None)
    if kept is not None:
        message = (
            f"--karg-delete {text}: {kept.text!r} comes from {kept.origin} and the system does not start without it"
        )
        return Finding.error("boot.karg-needed", message, "leave the option out")
    message = f"--karg-delete {text}: neither image nor settings have such an argument"
    return Finding.warning("boot.karg-not-found", message)


def _mounts_another(argument: KernelArgument, own: frozenset[str]) -> bool:
    return unquoted(argument).key in _OURS and argument.text not in own


def _contradictions(arguments: Sequence[KernelArgument], own: frozenset[str]) -> Iterator[Finding]:
    keys: dict[str, list[KernelArgument]] = {}
    for argument in arguments:
        keys.setdefault(_key(argument), []).append(argument)
    for argument in arguments:
        if _mounts_another(argument, own):
            message = f"{argument.text!r} of {argument.origin} would mount another image than the one that is installed"
            yield Finding.error("boot.karg-composefs", message, "remove it there; cfs adds the right one")
    for pair in _OPPOSITES:
        if all(key in keys for key in pair):
            both = [argument for argument in arguments if _key(argument) in pair]
            yield _conflict(both)
    for key in _SINGLE & keys.keys():
        if len({argument.text for argument in keys[key]}) > 1:
            overridden = any(argument.text in own for argument in keys[key]) and keys[key][-1].text not in own
            fatal = overridden and key in _OF_ROOT
            yield _conflict(keys[key], Severity.ERROR if fatal else Severity.WARNING)


def _conflict(found: Sequence[KernelArgument], severity: Severity = Severity.WARNING) -> Finding:
    listed = ", ".join(f"{argument.text!r} of {argument.origin}" for argument in found)
    message = f"kernel arguments contradict each other: {listed}; the last one counts"
    hint = "leave out the last one" if severity is Severity.ERROR else "take the others away with --karg-delete"
    return Finding(severity=severity, code="boot.karg-conflict", message=message, hint=hint)
