"""Who else can write to a directory: its owner, its mode, and the way that leads to it."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LINKS = 40
_DEPTH = 3
"""Levels below a repository that are looked at: directories of objects, of names, of references."""


def somebody_else(path: Path, *, inside: bool = False) -> str | None:
    """Return who besides the caller and root can put something else at *path*, in words; None if nobody can.

    Every directory on the way there is looked at, links and where they lead included; with *inside* also the
    directories in it. What is not there yet does not count. A sticky directory (``/tmp``) may be open to all: nobody
    can rename there what belongs to others (inode(7)). A group whose only member is the caller is the caller.

    Raises:
        OSError: a directory cannot be examined.
    """
    for each, is_last in _way(path):
        reason = _open_to(each, is_last=is_last)
        if reason is not None:
            return reason
    return _below(os.path.realpath(path), _DEPTH) if inside else None


def _way(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield what leads to *path*, root first: directories and links, each link followed by where it leads."""
    pending = os.path.abspath(path).split("/")[:0:-1]  # noqa: PTH100 - links are followed here, one by one
    here, links = "/", 0
    yield here, not pending
    while pending:
        name = pending.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            here = os.path.dirname(here)  # noqa: PTH120 - a string all the way
            continue
        there = os.path.join(here, name)  # noqa: PTH118
        try:
            target = os.readlink(there) if stat.S_ISLNK(os.lstat(there).st_mode) else None  # noqa: PTH115
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing is there that anybody could have prepared; whoever opens it says what is wrong
        yield there, not pending and target is None
        if target is None:
            here = there
            continue
        links += 1
        if links > _LINKS:
            return
        pending += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here


def _below(directory: str, depth: int) -> str | None:
    try:
        with os.scandir(directory) as entries:
            found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return None
    for path in found:
        reason = _open_to(path, is_last=True) or (_below(path, depth - 1) if depth > 1 else None)
        if reason is not None:
            return reason
    return None


def _open_to(path: str, *, is_last: bool) -> str | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None  # it went away
    if found.st_uid not in {0, os.geteuid()}:
        return f"{path} belongs to {_user(found.st_uid)}"
    if stat.S_ISLNK(found.st_mode) or (found.st_mode & stat.S_ISVTX and not is_last):
        return None
    if found.st_mode & stat.S_IWOTH:
        return f"everybody can write to {path}"
    if found.st_mode & stat.S_IWGRP and (_has_access_list(path) or not _is_private(found.st_gid)):
        return f"others can write to {path} (group {_group(found.st_gid)}, or an access list)"
    return None


def _has_access_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access", follow_symlinks=False))
    except OSError:
        return False


@lru_cache
def _is_private(gid: int) -> bool:
    """Whether the caller, or root, is all of a group: many distributions give each user one, and a umask of 002."""
    import grp
    import pwd

    if gid == 0 and os.geteuid() == 0:
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def _user(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
