"""The state of a deployment on the root volume, as bootc lays it out (formats F.1)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.model.action import (
    Attributes,
    CopyObject,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.disk import Location, Volume
from cfs_core.model.origin import OriginFile
from cfs_core.model.places import DEPLOYMENTS
from cfs_core.model.tree import Directory, RegularFile, Special, Symlink, lookup, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cfs_core.model.action import Action, PlacingAction
    from cfs_core.model.boot import EntryKind
    from cfs_core.model.content import Content
    from cfs_core.model.deployment import ImageId
    from cfs_core.model.digest import Digest
    from cfs_core.model.manifest import ImageConfig
    from cfs_core.model.origin import BootFile
    from cfs_core.model.tree import Node, ObjectId, Xattrs

SELINUX = b"security.selinux"
WHY = "state of the deployment"
_NOT_COPIED = frozenset({b"/.updated"})
VERSION_LABEL = "org.opencontainers.image.version"
"""Label of the image specification's annotation of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentState:
    """Everything the state of one deployment is made from. ``tree`` is the deployed (bootable) tree."""

    image_id: ImageId
    tree: Directory
    content: Callable[[ObjectId], Content]
    target_imgref: str
    boot_type: EntryKind
    boot_digest: str
    manifest_digest: Digest
    verified: tuple[str, ...] = ()
    config: ImageConfig | None = None
    """The image's configuration: what the origin file says of version, date and architecture is from it."""

    root_ssh_authorized_keys: bytes | None = None
    first_boot: Mapping[str, PlacingAction] = field(default_factory=dict)
    """Files that take the place of the image's, by path from /etc (``/hostname``)."""


def plan_state(state: DeploymentState) -> Iterator[Action]:
    """Yield what makes the physical root: directories, /etc and /var copied from the image.

    Raises:
        ImageError: the image has no /etc.
    """
    plain = label_of(state.tree, b"/")
    deploy = f"/state/deploy/{state.image_id}"
    for path in ("/state", "/state/deploy", deploy, "/state/os", "/state/os/default", "/boot", "/ostree"):
        yield _directory(path, plain)
    yield _directory("/composefs/bootc", label_of(state.tree, b"/usr"))
    # bootc keeps images that belong to a system in /ostree/bootc/storage, whichever back end the system itself is on.
    yield MakeSymlink(location=Location(Volume.ROOT, "/ostree/bootc"), target="../composefs/bootc", why=WHY)
    # With /etc/.updated not older than /usr, ConditionNeedsUpdate= (systemd.unit(5)) does not hold, and the first boot
    # skips what brings a new /etc up to date, such as systemd-sysusers. bootc leaves it out, too.
    replaced = frozenset(map(os.fsencode, state.first_boot))
    yield from _copy(etc_of(state.tree), f"{deploy}/etc", state.content, skip=_NOT_COPIED | replaced)
    if state.root_ssh_authorized_keys is not None:
        yield from _ssh_keys(f"{deploy}/etc", state.root_ssh_authorized_keys, label_of(state.tree, b"/etc"))
    # One /var for all deployments, whose data outlives each of them; "default" is what ostree calls such a state root.
    var = lookup(state.tree, b"var")
    if isinstance(var, Directory):
        yield from _copy(var, "/state/os/default/var", state.content, skip=frozenset({b"/.updated"}))
    else:
        yield _directory("/state/os/default/var", plain)
    yield MakeSymlink(location=Location(Volume.ROOT, f"{deploy}/var"), target="../../os/default/var", why=WHY)


def plan_next_state(state: DeploymentState, where: Location) -> Iterator[Action]:
    """Yield what a further deployment adds to a machine, below *where*: its own directory with /etc.

    /var is on the machine and shared; the link to it is for the place that the directory will have.

    Raises:
        ImageError: the image has no /etc.
    """
    deploy = (where / state.image_id).path
    yield _directory(deploy, label_of(state.tree, b"/"))
    yield from _copy(etc_of(state.tree), f"{deploy}/etc", state.content, skip=_NOT_COPIED)
    yield MakeSymlink(location=Location(Volume.ROOT, f"{deploy}/var"), target="../../os/default/var", why=WHY)


def etc_of(tree: Directory) -> Directory:
    """Return /etc of an image.

    Raises:
        ImageError: it has none.
    """
    etc = lookup(tree, b"etc")
    if not isinstance(etc, Directory):
        msg = "the image has no /etc directory"
        raise ImageError(msg, hint="create it in the image; without it no system comes up")
    return etc


def plan_origin(
    state: DeploymentState, boot_files: tuple[BootFile, ...], bootloader: tuple[str, str] = ("", "")
) -> WriteFile:
    """Return what writes the origin file.

    *boot_files* are what loader and menu put outside of the repository, *bootloader* its name and distribution.
    """
    config = state.config
    origin = OriginFile(
        image=state.target_imgref,
        boot_type=state.boot_type,
        boot_digest=state.boot_digest,
        manifest_digest=str(state.manifest_digest),
        verified=state.verified,
        bootloader=bootloader[0] or None,
        bootloader_distribution=bootloader[1] or None,
        files=boot_files,
        version=config.labels.get(VERSION_LABEL) if config else None,
        created=config.created if config else None,
        architecture=config.platform.architecture if config else None,
    )
    return WriteFile(
        location=DEPLOYMENTS / state.image_id / f"{state.image_id}.origin",
        data=origin.format().encode(),
        attributes=Attributes(mode=0o644, xattrs=label_of(state.tree, b"/")),
        why="where the deployment came from",
    )


def label_of(tree: Directory, path: bytes) -> Xattrs:
    """Return the SELinux label of *path* as an attribute list; empty where the image is not labelled."""
    node = lookup(tree, path)
    return tuple(pair for pair in node.xattrs if pair[0] == SELINUX) if node is not None else ()


def _directory(path: str, xattrs: Xattrs) -> MakeDirectory:
    return MakeDirectory(
        location=Location(Volume.ROOT, path), attributes=Attributes(mode=0o755, xattrs=xattrs), why=WHY
    )


def _copy(
    top: Directory, where: str, content: Callable[[ObjectId], Content], skip: frozenset[bytes] = frozenset()
) -> Iterator[PlacingAction]:
    """Copy a directory of the image, metadata and hard links included."""
    first: dict[int, Location] = {}
    for path, node in walk(top):
        if path in skip:
            continue
        location = Location(Volume.ROOT, where + os.fsdecode(path.rstrip(b"/")))
        if not isinstance(node, Directory) and id(node) in first:
            yield MakeHardLink(location=location, existing=first[id(node)], why=WHY)
            continue
        first[id(node)] = location
        yield _place(node, location, content)


def _place(node: Node, location: Location, content: Callable[[ObjectId], Content]) -> PlacingAction:
    attributes = Attributes(
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_sec=node.mtime_sec,
        mtime_nsec=node.mtime_nsec,
        xattrs=node.xattrs,
    )
    if isinstance(node, RegularFile):
        source = content(node.object) if node.object is not None else BytesContent(node.data or b"")
        return CopyObject(location=location, source=source, attributes=attributes, why=WHY)
    if isinstance(node, Symlink):
        return MakeSymlink(location=location, target=os.fsdecode(node.target), attributes=attributes, why=WHY)
    if isinstance(node, Special):
        return MakeSpecial(location=location, kind=node.kind, rdev=node.rdev, attributes=attributes, why=WHY)
    return MakeDirectory(location=location, attributes=attributes, why=WHY)


def _ssh_keys(etc: str, keys: bytes, xattrs: Xattrs) -> Iterator[PlacingAction]:
    """Let systemd-tmpfiles make root's authorized_keys at first boot: /root may be a link into /var."""
    text = (
        "d /root/.ssh 0700 root root -\n"
        f"f~ /root/.ssh/authorized_keys 0600 root root - {base64.b64encode(keys).decode()}\n"
    )
    yield WriteFile(
        location=Location(Volume.ROOT, f"{etc}/tmpfiles.d/bootc-root-ssh.conf"),  # noqa: S108 - a configuration directory
        data=text.encode(),
        attributes=Attributes(mode=0o600, xattrs=xattrs),
        why="root's SSH keys",
    )
