"""Host name, locale, time zone and keymap: which files of /etc say them, and whether the image has what they name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from cfs_core.model.action import Attributes, MakeSymlink, WriteFile
from cfs_core.model.disk import Location, Volume
from cfs_core.model.plan import Finding
from cfs_core.model.tree import RegularFile, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.image.reader import ImageReader
    from cfs_core.model.action import PlacingAction
    from cfs_core.model.tree import Xattrs

WHY = "settings of first boot"
_SELINUX = b"security.selinux"
_ZONES = "/usr/share/zoneinfo"
_LOCALES = "/usr/lib/locale"
_KEYMAPS = ("/usr/share/keymaps", "/usr/share/kbd/keymaps", "/usr/lib/kbd/keymaps")
_XKB = "/usr/share/X11/xkb/symbols"
_BUILT_IN: Final = frozenset({"C", "POSIX"})
_CHUNK = 1 << 20
_MOST_FOLDERS = 1000


class FileWriter:
    """Collects files of /etc, with the metadata of the image's own where that has them."""

    def __init__(self, image: ImageReader, etc: str) -> None:
        self.made: dict[str, PlacingAction] = {}
        self._image = image
        self._etc = etc

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Plan the file *path* from /etc; *mode* is for a file that the image lacks."""
        node = lookup(self._image.root, os.fsencode(f"etc{path}"))
        attributes = Attributes(mode=mode, xattrs=self._label())
        if isinstance(node, RegularFile):
            attributes = Attributes(mode=node.mode, uid=node.uid, gid=node.gid, xattrs=node.xattrs)
        self.made[path] = WriteFile(location=self._at(path), data=data, attributes=attributes, why=WHY)

    def link(self, path: str, target: str) -> None:
        """Plan the symbolic link *path* from /etc."""
        attributes = Attributes(mode=0o777, xattrs=self._label())
        self.made[path] = MakeSymlink(location=self._at(path), target=target, attributes=attributes, why=WHY)

    def _at(self, path: str) -> Location:
        return Location(Volume.ROOT, self._etc + path)

    def _label(self) -> Xattrs:
        etc = lookup(self._image.root, b"etc")
        return tuple(pair for pair in etc.xattrs if pair[0] == _SELINUX) if etc is not None else ()


class System:
    """What an image's /etc says of the whole system. Each method yields what keeps the image from following it."""

    def __init__(self, image: ImageReader, files: FileWriter) -> None:
        self._image = image
        self._files = files

    def hostname(self, name: str, _origin: str) -> Iterator[Finding]:
        """Plan /etc/hostname (hostname(5))."""
        self._files.write("/hostname", f"{name}\n".encode())
        yield from ()

    def locale(self, name: str, origin: str) -> Iterator[Finding]:
        """Plan /etc/locale.conf (locale.conf(5)), and /etc/default/locale where the image has that file."""
        if not self._has_locale(name):
            message = f"{origin}: the image has no locale {name}"
            yield Finding.error(
                "first-boot.locale", message, "generate it in the image (locale-gen, localedef), or say C.UTF-8"
            )
        line = f"LANG={name}\n".encode()
        self._files.write("/locale.conf", line)
        if self._is_file("/etc/default/locale"):
            self._files.write("/default/locale", line)

    def timezone(self, name: str, origin: str) -> Iterator[Finding]:
        """Plan the link /etc/localtime (localtime(5)), and /etc/timezone where the image has that file."""
        if not (self._image.read(f"{_ZONES}/{name}") or b"").startswith(b"TZif"):
            message = f"{origin}: the image has no time zone {name} in {_ZONES}"
            yield Finding.error(
                "first-boot.timezone", message, "install tzdata in the image, or name a zone that it has"
            )
        self._files.link("/localtime", f"..{_ZONES}/{name}")
        if self._is_file("/etc/timezone"):
            self._files.write("/timezone", f"{name}\n".encode())

    def keymap(self, name: str, origin: str) -> Iterator[Finding]:
        """Plan /etc/vconsole.conf (vconsole.conf(5)), or /etc/default/keyboard of Debian's console-setup."""
        if self._has_keymap(name):
            old = (self._image.read("/etc/vconsole.conf") or b"").decode("utf-8", "surrogateescape")
            self._files.write("/vconsole.conf", _assigned(old, "KEYMAP", name))
        elif self._is_file("/etc/default/keyboard") and self._image.content(f"{_XKB}/{name}") is not None:
            old = (self._image.read("/etc/default/keyboard") or b"").decode("utf-8", "surrogateescape")
            self._files.write("/default/keyboard", _assigned(old, "XKBLAYOUT", f'"{name}"'))
        else:
            message = f"{origin}: the image has no keymap {name}"
            hint = "install the package with keymaps in the image (kbd, console-data or console-setup)"
            yield Finding.error("first-boot.keymap", message, hint)

    def _is_file(self, path: str) -> bool:
        return isinstance(lookup(self._image.root, os.fsencode(path)), RegularFile)

    def _has_locale(self, name: str) -> bool:
        """Say whether glibc finds a locale: one directory each, or all in one archive, the codeset spelled its way."""
        spelled = _normalised(name)
        if name in _BUILT_IN or {name, spelled} & set(self._image.names(_LOCALES)):
            return True
        # glibc 2.35 and musl have it built in
        if spelled == "C.utf8":
            return True
        content = self._image.content(f"{_LOCALES}/locale-archive")
        if content is None:
            return False
        wanted, rest = b"\0" + spelled.encode() + b"\0", b""
        with content.open() as file:
            while data := file.read(_CHUNK):
                if wanted in rest + data:
                    return True
                rest = data[-len(wanted) :]
        return False

    def _has_keymap(self, name: str) -> bool:
        wanted = {f"{name}.map", f"{name}.map.gz", f"{name}.kmap", f"{name}.kmap.gz"}
        pending, seen = list(_KEYMAPS), 0
        while pending and seen < _MOST_FOLDERS:
            folder = pending.pop()
            seen += 1
            names = self._image.names(folder)
            if wanted & set(names):
                return True
            pending += [f"{folder}/{each}" for each in names if not re.search(r"\.(map|kmap|inc)(\.gz)?$", each)]
        return False


def _normalised(name: str) -> str:
    """Spell the codeset as glibc's names of files have it: ``de_DE.UTF-8`` is ``de_DE.utf8``."""
    base, dot, rest = name.partition(".")
    codeset, at, modifier = rest.partition("@")
    plain = re.sub(r"[^a-z0-9]", "", codeset.lower())
    return f"{base}{dot}{f'iso{plain}' if plain.isdigit() else plain}{at}{modifier}"


def _assigned(text: str, variable: str, value: str) -> bytes:
    """Return *text*, lines of a shell, with one assignment changed or added."""
    line = f"{variable}={value}"
    changed, found = re.subn(rf"(?m)^[ \t]*{variable}=.*$", lambda _: line, text)
    if not found:
        changed = f"{text.rstrip(chr(10))}\n{line}\n" if text.strip() else f"{line}\n"
    return changed.encode("utf-8", "surrogateescape")
