"""SELinux labels by the policy inside an image, as composefs-rs gives them (formats E.4; file_contexts(5))."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, ImageError, Leaf, LimitError, Node, RegularFile, Special, SpecialKind, Symlink
from cfs_storage_composefs.selinux.automaton import Automaton, States, Work
from cfs_storage_composefs.selinux.regex import (
    POSSIBLE_TYPES,
    REFUSALS,
    Choice,
    Series,
    TooLargeError,
    UnusualRegexError,
    literal_prefix,
    one_byte,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.plugin import TreeReader, Xattrs

LABEL = b"security.selinux"
_CONFIG = "/etc/selinux/config"
_NO_LABEL = b"<<none>>"
_STEM_COMPONENTS = 3
_FILE_LIMIT = 64 * 1024 * 1024
_SPECIAL_TYPES = {
    SpecialKind.CHAR: b"c",
    SpecialKind.BLOCK: b"b",
    SpecialKind.FIFO: b"p",
    SpecialKind.SOCKET: b"s",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One line of a file_contexts file. ``kind`` is a type character, empty for any type."""

    regex: bytes
    kind: bytes
    context: bytes
    where: str
    """File and line, for messages."""


def read_specs(data: bytes, name: str) -> list[Spec]:
    """Parse a file_contexts file.

    Raises:
        ImageError: a malformed line.
    """
    specs = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        where = f"{name}, line {number}"
        kind = b""
        if len(fields) == 3 and fields[1][:1] == b"-" and fields[1][1:] in POSSIBLE_TYPES:  # noqa: PLR2004 - with TYPE
            kind = fields.pop(1)[1:]
        if len(fields) != 2:  # noqa: PLR2004 - REGEX CONTEXT
            msg = f"{where}: not a file context: {line[:200]!r}"
            raise ImageError(msg, hint="a line is REGEX [-TYPE] CONTEXT, see file_contexts(5)")
        specs.append(Spec(fields[0], kind, fields[1], where))
    return specs


def read_aliases(data: bytes, name: str) -> dict[bytes, bytes]:
    """Parse a file_contexts.subs file: path, and the path whose labels it gets.

    Raises:
        ImageError: a malformed line.
    """
    aliases = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        if len(fields) != 2:  # noqa: PLR2004 - ALIAS ORIGINAL
            msg = f"{name}, line {number}: not a substitution: {line[:200]!r}"
            raise ImageError(msg, hint="a line is ALIAS ORIGINAL")
        aliases[fields[0]] = fields[1]
    return aliases


class Policy:
    """File contexts ready for look-ups: literal paths in a table, regular expressions grouped by how they start."""

    def __init__(self, specs: Sequence[Spec], aliases: Mapping[bytes, bytes]) -> None:
        self.aliases = aliases
        self._contexts = [spec.context for spec in specs]
        self._literal: dict[bytes, int] = {}
        self._work = Work()
        self._groups: dict[bytes, Automaton] = {}
        self._candidates: dict[bytes, list[Automaton]] = {}
        for number, spec in enumerate(specs):
            try:
                self._add(number, spec)
            except TooLargeError as error:
                raise _too_much(spec.where) from error
            except UnusualRegexError as error:
                msg = f"{spec.where}: {spec.regex[:200]!r} has {error}, which no file context needs"
                raise ImageError(msg, hint="write the line of the policy without it") from error
            except REFUSALS as error:
                msg = f"{spec.where}: {spec.regex[:200]!r} is no regular expression: {error}"
                raise ImageError(msg, hint="the image's SELinux policy is damaged") from error

    def _add(self, number: int, spec: Spec) -> None:
        literal, rest = literal_prefix(spec.regex)
        if not rest:
            for kind in (spec.kind,) if spec.kind else POSSIBLE_TYPES:
                self._literal[literal + kind] = number
            return
        stem = b"/".join(literal.split(b"/")[:-1][: _STEM_COMPONENTS + 1])
        expression = parse(rest)
        if isinstance(expression, Choice):  # of whole paths: what is literal begins only the first
            stem, expression = b"", parse(spec.regex)
        else:
            expression = Series((*map(one_byte, literal[len(stem) :]), expression))
        self._groups.setdefault(stem, Automaton(self._work, len(stem))).add(number, expression, spec.kind)

    def label(self, path: bytes, kind: bytes) -> bytes | None:
        """Return the context of *path* (aliases not applied), None if it has none. *kind* is a type character.

        Raises:
            LimitError: the policy's expressions took too many steps.
        """
        head, _, name = path.rpartition(b"/")
        return self.in_directory(head).label(name, kind)

    def in_directory(self, path: bytes) -> DirectoryLabeller:
        """Return what labels the entries of directory *path*, which is empty for the root.

        Raises:
            LimitError: see `label`.
        """
        components = path.split(b"/")[: _STEM_COMPONENTS + 1]
        key = b"/".join(components)
        groups = self._candidates.get(key)
        if groups is None:
            stems = [b"/".join(components[:count]) for count in range(1, len(components) + 1)]
            groups = [self._groups[stem] for stem in stems if stem in self._groups]
            groups.sort(key=lambda group: -group.highest)
            self._candidates[key] = groups
        return DirectoryLabeller(path + b"/", self._literal, groups, self._contexts)


def _too_much(what: str) -> LimitError:
    return LimitError(
        f"{what}: the expressions of the image's SELinux policy are too many or too complicated",
        hint="no policy that is in use comes near; install one of a distribution into the image",
    )


class DirectoryLabeller:
    """Look-ups for the entries of one directory; the last matching line of the policy wins."""

    __slots__ = ("_begun", "_contexts", "_literal", "_path")

    def __init__(
        self, path: bytes, literal: dict[bytes, int], groups: Sequence[Automaton], contexts: list[bytes]
    ) -> None:
        self._path = path
        self._literal = literal
        self._contexts = contexts
        begun = [(group, self._walk(group, group.start(), path[group.at :])) for group in groups]
        self._begun = [(group, states) for group, states in begun if states.items]

    def _walk(self, group: Automaton, states: States, text: bytes) -> States:
        try:
            return group.walk(states, text)
        except TooLargeError as error:
            raise _too_much(repr(self._path[:200])) from error

    def label(self, name: bytes, kind: bytes) -> bytes | None:
        """Return the context of the entry *name*, None if it has none.

        Raises:
            LimitError: the policy's expressions took too many steps.
        """
        best = self._literal.get(self._path + name + kind, -1)
        for group, states in self._begun:
            if group.highest <= best:
                break
            best = max(best, self._walk(group, states, name + kind).best)
        context = self._contexts[best] if best >= 0 else _NO_LABEL
        return None if context == _NO_LABEL else context


def load_policy(reader: TreeReader) -> Policy | None:
    """Read the policy that the image's /etc/selinux/config names; None if it names none.

    Raises:
        ImageError: the policy is incomplete or malformed.
    """
    config = reader.read(_CONFIG, limit=_FILE_LIMIT)
    name = _policy_name(config) if config is not None else None
    if name is None:
        return None
    folder = f"/etc/selinux/{name}/contexts/files/file_contexts"
    specs: list[Spec] = []
    for suffix in ("", ".local", ".homedirs"):
        data = reader.read(folder + suffix, limit=_FILE_LIMIT)
        if data is not None:
            specs += read_specs(data, folder + suffix)
        elif not suffix:
            msg = f"{_CONFIG} names SELinux policy {name!r}, but the image has no {folder}"
            raise ImageError(msg, hint="install the policy into the image, or set SELINUXTYPE to the one it has")
    aliases: dict[bytes, bytes] = {}
    for suffix in (".subs", ".subs_dist"):
        data = reader.read(folder + suffix, limit=_FILE_LIMIT)
        if data is not None:
            aliases |= read_aliases(data, folder + suffix)
    return Policy(specs, aliases)


def _policy_name(config: bytes) -> str | None:
    for line in config.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if equals and key.strip().lower() == b"selinuxtype":
            return value.strip().decode("utf-8", "surrogateescape")
    return None


def relabel(tree: Directory, policy: Policy | None) -> None:
    """Give every file the label of *policy*, or remove all labels. Hard links whose names disagree are broken up."""
    _Relabeller(policy).tree(tree)


class _Relabeller:
    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy
        self.committed: dict[Node, bytes | None] = {}
        self.sets: dict[tuple[Xattrs, bytes | None], Xattrs] = {}

    def tree(self, root: Directory) -> None:
        """Label everything, depth first in name order: the first name of a hard link decides."""
        policy = self.policy
        self._set(root, policy.label(b"/", b"d") if policy is not None else None)
        stack = [self._entries(root, b"")]
        while stack:
            below = next(stack[-1], None)
            if below is None:
                stack.pop()
            else:
                stack.append(self._entries(*below))

    def _entries(self, directory: Directory, path: bytes) -> Iterator[tuple[Directory, bytes]]:
        """Label the entries of a directory; yield subdirectories with the paths that their labels come from."""
        policy = self.policy
        labeller = policy.in_directory(path) if policy is not None else None
        for name, node in sorted(directory.entries.items()):
            here = path + b"/" + name
            label: bytes | None = None
            if policy is not None and labeller is not None:
                kind = _type_of(node)
                alias = policy.aliases.get(here)
                if alias is None:
                    label = labeller.label(name, kind)
                else:
                    here = alias.rstrip(b"/")
                    label = policy.label(alias, kind)
            if isinstance(node, Directory):
                self._set(node, label)
                yield node, here
            elif isinstance(node, Leaf):
                directory.entries[name] = self._leaf(node, label)

    def _leaf(self, leaf: Leaf, label: bytes | None) -> Leaf:
        """Label a leaf, or a copy of it if it has another label under an earlier name."""
        if self.committed.setdefault(leaf, label) != label:
            leaf.nlink = 0
            leaf = copy.copy(leaf)
        self._set(leaf, label)
        return leaf

    def _set(self, node: Node, label: bytes | None) -> None:
        key = (node.xattrs, label)
        xattrs = self.sets.get(key)
        if xattrs is None:
            others = dict(node.xattrs)
            others.pop(LABEL, None)
            if label is not None:
                others[LABEL] = label
            xattrs = self.sets[key] = tuple(sorted(others.items()))
        node.xattrs = xattrs


def _type_of(node: Node) -> bytes:
    if isinstance(node, RegularFile):
        return b"-"
    if isinstance(node, Directory):
        return b"d"
    if isinstance(node, Symlink):
        return b"l"
    return _SPECIAL_TYPES[node.kind] if isinstance(node, Special) else b"-"
