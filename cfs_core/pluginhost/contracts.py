"""What the methods of made providers return, and holding them to it: a wrong type is the plugin's fault, not core's.

Core calls providers in many places and believes what they return. So they are held to it where they are made: the
object gets a subclass of its own class, whose methods look at what comes back before core does. Bytes are not looked at
(digests verify them), nor are the many entries of layers.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from cfs_core.interfaces.initramfs import InitramfsVerdict
from cfs_core.interfaces.policy import PolicyVerdict
from cfs_core.interfaces.storage import Repository
from cfs_core.interfaces.transport import ImageWriter
from cfs_core.model.action import Action
from cfs_core.model.boot import BootMenu, KernelArgument
from cfs_core.model.deployment import CommittedImage, GcReport, Problem, StoredImage
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
        "_fetch_manifest": Group((str, bytes)),
        "_open_blob": One(AbstractContextManager),
        "_open_layer_uncompressed": One((AbstractContextManager, types.NoneType)),
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
        "check_files": Many(Problem, stream=True),
        "has_file": One(bool),
    },
    "Repository": {
        "has_layer": One(bool),
        "image_ids": Many(str),
        "commit": One(CommittedImage),
        "open_tree": One(Directory),
        "kernel_arguments": Many(KernelArgument),
        "plan_export": Many(Action, stream=True),
        "images": Many(StoredImage),
        "resolved": Group((StoredImage, bytes, bytes)),
        "fsck": Many(Problem, stream=True),
        "collect_garbage": One(GcReport),
    },
    "Bootloader": {
        "needs": Many(VolumeNeed),
        "check": Many(Finding),
        "plan_install": Many(Action),
        "read_menu": One(BootMenu),
        "plan_menu": Many(Action),
    },
    "DiskLayout": {
        "plan": Many(Partition),
        "disk_bytes": One(int),
        "read": Many(Partition),
        "check": Many(Problem),
    },
    "Filesystem": {
        "scratch_needed": One(int),
        "check_host": Many(Finding),
        "bytes_needed": One(int),
        "check": Many(Problem),
        "reader": One(AbstractContextManager),
    },
    "Policy": {"judge": One(PolicyVerdict)},
    "InitramfsProvider": {"examine": One(InitramfsVerdict)},
}
"""Methods by interface, and what each returns."""

UNCHECKED: Final = {
    "Transport": {"retrying", "fetch_manifest", "fetch_bytes", "iter_blob", "open_layer_uncompressed", "_chunks"},
    "Repository": {"layer_entries", "content"},
}
"""Methods that return something and are not looked at: core's own, and those called for every file."""


def hold(made: T, interface: type, owner: PluginId, what: str) -> T:
    """Make the methods of *made* check what they return, and return it.

    A method then raises `PluginError`, which names *what* (``the policy 'x'``) and its owner, instead of returning what
    the interface does not allow.
    """
    own = type(made)
    promises = RETURNS.get(interface.__name__, {})
    # Held already is what comes twice: from a factory that keeps one object, or a repository that `open` returned
    # before.
    if not promises or "_cfs_held" in vars(own):
        return made
    held = types.new_class(own.__name__, (own,), exec_body=lambda body: body.update(__slots__=(), _cfs_held=True))
    for name, promise in promises.items():
        setattr(held, name, _checked(held, name, promise, owner, what))
    held.__module__, held.__qualname__, held.__doc__ = own.__module__, own.__qualname__, own.__doc__
    object.__setattr__(made, "__class__", held)  # frozen dataclasses too
    return made


def _checked(held: type, name: str, promise: One | Group | Many, owner: PluginId, what: str) -> Callable[..., object]:
    def complain(problem: str) -> NoReturn:
        msg = f"{what} of {owner} breaks its contract: {name}() {problem}"
        raise owner.fault(msg)

    def method(self: object, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - whatever the method takes
        returned = promise.check(getattr(super(held, self), name)(*args, **kwargs), complain)
        if isinstance(returned, Repository):
            return hold(returned, Repository, owner, what)
        return returned

    method.__name__, method.__qualname__ = name, f"{held.__qualname__}.{name}"
    return method


def _names(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join("None" if item is types.NoneType else item.__name__ for item in kinds)
