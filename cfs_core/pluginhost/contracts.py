"""What the methods of made providers return, and holding them to it: a wrong type is the plugin's fault, not core's.

Core calls providers in many places and believes what they return. So they are held to it where they are made: core gets
an object of the same interface that passes every call on and looks at what comes back before core does. Bytes are not
looked at (digests verify them), nor are the many entries of layers. What a plugin found says whose it is, whatever it
claims.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from cfs_core.interfaces.initramfs import InitramfsAddition, InitramfsVerdict
from cfs_core.interfaces.policy import PolicyVerdict
from cfs_core.interfaces.storage import LayerJob, Repository
from cfs_core.interfaces.transport import ImageWriter
from cfs_core.model.action import Action
from cfs_core.model.boot import BootMenu, KernelArgument
from cfs_core.model.deployment import CommittedImage, GcReport, StoredImage
from cfs_core.model.disk import Partition, VolumeNeed
from cfs_core.model.manifest import Descriptor
from cfs_core.model.plan import Finding
from cfs_core.model.reference import ImageReference
from cfs_core.model.tree import Directory

if TYPE_CHECKING:
    from cfs_core.pluginhost.registry import PluginId

    Complain = Callable[[str], NoReturn]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class One:
    """A value of this class, or of one of these."""

    kind: type | tuple[type, ...]

    def check(self, returned: object, complain: Complain) -> object:
        """Return *returned*."""
        if not isinstance(returned, self.kind):
            complain(f"returned {type(returned).__name__}, not {_names(self.kind)}")
        return returned


@dataclass(frozen=True, slots=True)
class Group:
    """A tuple of values of these classes, in this order."""

    kinds: tuple[type, ...]

    def check(self, returned: object, complain: Complain) -> object:
        """Return *returned*."""
        expected = ", ".join(kind.__name__ for kind in self.kinds)
        if not isinstance(returned, tuple) or len(returned) != len(self.kinds):
            complain(f"returned {type(returned).__name__}, not a tuple ({expected})")
        if not all(isinstance(item, kind) for item, kind in zip(returned, self.kinds, strict=True)):
            found = ", ".join(type(item).__name__ for item in returned)
            complain(f"returned a tuple ({found}), not ({expected})")
        return returned


@dataclass(frozen=True, slots=True)
class Many:
    """Any number of values of this class. What is no sequence becomes a tuple, but for streams."""

    kind: type
    stream: bool = False

    def check(self, returned: object, complain: Complain) -> object:
        """Return *returned*, or the same values."""
        if isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
            complain(f"returned {type(returned).__name__}, not several {self.kind.__name__}")
        if self.stream:
            return self._each(returned, complain)
        values = returned if isinstance(returned, Sequence) else tuple(returned)
        for _ in self._each(values, complain):
            pass
        return values

    def _each(self, values: Iterable[object], complain: Complain) -> Iterator[object]:
        for value in values:
            if not isinstance(value, self.kind):
                complain(f"returned {type(value).__name__} among others, not {self.kind.__name__}")
            yield value


RETURNS: Final[dict[str, dict[str, One | Group | Many]]] = {
    "Transport": {
        "parse": One(ImageReference),
        "canonical": One(ImageReference),
        "read_manifest": Group((str, bytes)),
        "open_blob": One(AbstractContextManager),
        "open_uncompressed_layer": One((AbstractContextManager, types.NoneType)),
        "referrers": Many(Descriptor),
        "open_writer": One(ImageWriter),
    },
    "StorageFormat": {
        "open": One(Repository),
        "scratch": One(AbstractContextManager),
        "scan": One(Directory),
        "read_dump": One(Directory),
        "write_image": One(str),
        "is_repository": One(bool),
        "recognises": One(bool),
        "check_files": Many(Finding, stream=True),
        "has_file": One(bool),
    },
    "Repository": {
        "has_layer": One(bool),
        "verify_layer": One(bool),
        "layer_job": One((LayerJob, types.NoneType)),
        "image_ids": Many(str),
        "commit": One(CommittedImage),
        "open_tree": One(Directory),
        "kernel_arguments": Many(KernelArgument),
        "plan_export": Many(Action, stream=True),
        "images": Many(StoredImage),
        "resolved": Group((StoredImage, bytes, bytes)),
        "fsck": Many(Finding, stream=True),
        "collect_garbage": One(GcReport),
    },
    "Bootloader": {
        "needs": Many(VolumeNeed),
        "check": Many(Finding),
        "plan_install": Many(Action),
        "read_menu": One(BootMenu),
        "plan_menu": Many(Action),
        "installed_version": One((str, types.NoneType)),
        "offered_version": One((str, types.NoneType)),
    },
    "DiskLayout": {
        "plan": Many(Partition),
        "disk_bytes": One(int),
        "read": Many(Partition),
        "check": Many(Finding),
    },
    "Filesystem": {
        "scratch_needed": One(int),
        "check_host": Many(Finding),
        "bytes_needed": One(int),
        "check": Many(Finding),
        "reader": One(AbstractContextManager),
    },
    "Policy": {"judge": One(PolicyVerdict)},
    "Initramfs": {
        "examine": One(InitramfsVerdict),
        "supplement": One((InitramfsAddition, InitramfsVerdict, types.NoneType)),
    },
    "BlockHasher": {"hash_blocks": One(bytes)},
}
"""Methods by interface, and what each returns."""

UNCHECKED: Final = {"Repository": {"layer_entries", "content"}}
"""Methods that return something and are not looked at: those called for every file."""


class _Held:
    """Passes on what its interface does not name, and keeps nothing of its own."""

    def __init__(self, made: object, owner: PluginId, what: str) -> None:
        vars(self).update(_held_made=made, _held_owner=owner, _held_what=what)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the plugin's object has
        if name.startswith(("_held_", "__")):  # a copy under way has none yet
            raise AttributeError(name)
        return getattr(self._held_made, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._held_made, name, value)

    def __repr__(self) -> str:
        return repr(self._held_made)


def hold(made: T, interface: type, owner: PluginId, what: str) -> T:
    """Return *made* behind an object of *interface* that checks what its methods return.

    A method then raises `PluginError`, which names *what* (``the policy 'x'``) and its owner, instead of returning what
    the interface does not allow.
    """
    # Held already is what comes twice: from a factory that keeps one object, or a repository that `open` returned
    # before.
    if interface.__name__ not in RETURNS or isinstance(made, _Held):
        return made
    return cast("T", _held_class(interface)(made, owner, what))


@functools.cache
def _held_class(interface: type) -> Callable[..., object]:
    members: dict[str, object] = {}
    for base in reversed(interface.__mro__[:-1]):
        for name, value in vars(base).items():
            if name in {"__enter__", "__exit__"} or (
                not name.startswith("_") and isinstance(value, types.FunctionType)
            ):
                members[name] = _passing_on(name, RETURNS[interface.__name__].get(name))
            elif not name.startswith("_"):
                members[name] = _attribute(name)
    return types.new_class(f"Held{interface.__name__}", (_Held, interface), exec_body=lambda body: body.update(members))


def _passing_on(name: str, promise: One | Group | Many | None) -> Callable[..., object]:
    def method(self: _Held, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - whatever the method takes
        returned = getattr(self._held_made, name)(*args, **kwargs)
        if returned is self._held_made:  # `with repository as it`
            return self
        if promise is None:
            return returned

        def complain(problem: str) -> NoReturn:
            msg = f"{self._held_what} of {self._held_owner} breaks its contract: {name}() {problem}"
            raise self._held_owner.fault(msg)

        returned = promise.check(returned, complain)
        if isinstance(promise, Many) and promise.kind is Finding:
            stamp = functools.partial(replace, origin=self._held_owner.distribution)
            each = map(stamp, cast("Iterable[Finding]", returned))
            return each if promise.stream else tuple(each)
        if isinstance(returned, Repository):
            return hold(returned, Repository, self._held_owner, self._held_what)
        return returned

    method.__name__ = name
    return method


def _attribute(name: str) -> property:
    return property(
        lambda self: getattr(self._held_made, name), lambda self, value: setattr(self._held_made, name, value)
    )


def _names(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join("None" if item is types.NoneType else item.__name__ for item in kinds)
