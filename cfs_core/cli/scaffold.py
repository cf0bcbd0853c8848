"""Writes the project of a new plugin: complete, small, and right according to the conformance kit."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import RefusedError, UsageError
from cfs_core.pluginhost.distributions import DEFAULTS, DISTRIBUTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

KINDS = ("bootloader", "transport", "storage", "policy")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SCHEME = re.compile(r"[a-z]")
"""How a scheme begins, which is what a transport's references begin with (RFC 3986, 3.1)."""

_GROUP = "cfs.plugins"
_OURS = {"cfs-core", "cfs-plugin-testkit", "cfs-testkit", DEFAULTS, *DISTRIBUTIONS.values()}
"""Distributions of this project, installed or not, and those whose package would have a name of this project's."""

_FOLDERS = {"boot", "linux", "microsoft", "systemd"}
"""Directories below ``/EFI`` that are not a new loader's (UEFI 2.10, 3.5.1.1; Boot Loader Specification)."""

_USAGE = {
    "bootloader": "cfs install to-disk --bootloader {name} --source-imgref oci:IMAGE disk.img",
    "transport": "cfs image pull {name}:DIRECTORY",
    "storage": "CFS_INSTALL_STORAGE={name} cfs install to-disk --source-imgref oci:IMAGE disk.img",
    "policy": "CFS_POLICY_REQUIRE={name} cfs install to-disk --source-imgref oci:IMAGE disk.img",
}
_TO_KNOW = {
    "storage": """
The last command needs one thing more: an image whose initramfs can mount {name}, and an initramfs provider (hook
`cfs_register_initramfs`, here or in another plugin) that recognises it. Until there is one, cfs refuses the install,
with the code `boot.initramfs`, since the disk would not boot. `cfs image` and `cfs repo` always work with composefs.
""",
    "policy": """
What it asks for is in the settings:

    [policy]
    require = ["{name}"]

    [policy.settings.{name}]
    labels = {{"org.opencontainers.image.vendor" = "Example"}}
""",
}
_SUMMARIES = {
    "bootloader": "{name} as a bootloader",
    "transport": "images from {name}",
    "storage": "{name} as a storage format",
    "policy": "judges images by {name}",
}


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What a project is called. ``name`` is the handle people choose it by."""

    kind: str
    name: str

    @property
    def distribution(self) -> str:
        """Name for the package index."""
        return f"cfs-{self.name}"

    @property
    def package(self) -> str:
        """Name to import."""
        return f"cfs_{self.name.replace('-', '_')}"

    @property
    def class_name(self) -> str:
        """Name of the class that does the work: an identifier, no keyword, and no name that the project imports.

        It ends in the kind, before which something stands: ``MyLoaderBootloader``, ``NonePolicy``.
        """
        words = self.name.split("-")
        if words[-1] == self.kind and len(words) > 1:
            words.pop()
        name = "".join(word.capitalize() for word in [*words, self.kind])
        return f"Cfs{name}" if name[0].isdigit() else name

    def fill(self, text: str) -> str:
        """Put the names into a template."""
        values = {
            "NAME": self.name,
            "DIST": self.distribution,
            "PACKAGE": self.package,
            "CLASS": self.class_name,
            "KIND": self.kind,
            "SUMMARY": _SUMMARIES[self.kind].format(name=self.name),
            "USAGE": _USAGE[self.kind].format(name=self.name),
            "NOTE": _TO_KNOW.get(self.kind, "").format(name=self.name),
        }
        return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def write_project(
    kind: str, name: str, directory: Path | None = None, *, offered: Mapping[str, str] | None = None
) -> Path:
    """Write the project and return where it is: *directory*, or one named after the distribution.

    *offered* has what installed plugins of this kind are chosen by, and who offers it.

    Raises:
        UsageError: a name that cannot be a provider's.
        RefusedError: there is something already, or the name is taken.
    """
    if not _NAME.match(name):
        msg = f"{name!r:.60} cannot be the name of a plugin"
        raise UsageError(msg, hint="use lower-case letters, digits and dashes, a letter or a digit first")
    if kind == "transport" and not _SCHEME.match(name):
        msg = f"{name!r:.60} cannot be the name of a transport, whose references would begin with it"
        raise UsageError(msg, hint="use a letter first")
    plugin = NewPlugin(kind, name)
    holder = _holder(plugin, offered or {})
    if holder is not None:
        msg = f"the name {name} is taken: {holder}"
        raise RefusedError(msg, hint="choose another name; `cfs plugins list` shows those of installed plugins")
    target = (directory or Path(plugin.distribution)).absolute()
    if target.exists():
        msg = f"{target} is there already"
        raise RefusedError(msg, hint="choose another place with --directory")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for path, text in _files(plugin).items():
                file = temporary / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror}"
        raise UsageError(msg, hint="name a directory that can be written to") from error
    return target


def _holder(plugin: NewPlugin, offered: Mapping[str, str]) -> str | None:
    """Return who has the name already, in words; None if it is free."""
    if plugin.name in offered:
        return f"{offered[plugin.name]} offers it"
    if plugin.distribution in _OURS:
        return f"{plugin.distribution} is a package of cfs itself"
    if plugin.name in DISTRIBUTIONS:
        return f"{DISTRIBUTIONS[plugin.name]} offers it"
    if plugin.kind == "bootloader" and plugin.name in _FOLDERS:
        return f"/EFI/{plugin.name} of an EFI system partition belongs to others"
    for point in importlib.metadata.entry_points(group=_GROUP):
        if point.name == plugin.name:
            return f"{point.dist.name if point.dist else point.value} has a plugin of this name"
    if next(iter(importlib.metadata.distributions(name=plugin.distribution)), None) is not None:
        return f"{plugin.distribution} is installed"
    if importlib.util.find_spec(plugin.package) is not None:
        return f"the package {plugin.package} is installed"
    return None


def _files(plugin: NewPlugin) -> dict[str, str]:
    templates = importlib.resources.files("cfs_core.cli") / "templates"
    common, own = templates / "common", templates / plugin.kind
    files = {
        "pyproject.toml": _text(common / "pyproject.toml.tmpl"),
        "README.md": _text(common / "README.md.tmpl"),
        ".gitignore": _text(common / "gitignore.tmpl"),
        "wheels/README.md": _text(common / "wheels.md.tmpl"),
        ".github/workflows/test.yml": _text(common / "ci.yml.tmpl"),
        f"{plugin.package}/__init__.py": _text(common / "init.py.tmpl"),
        f"{plugin.package}/py.typed": "",
    }
    for template in own.iterdir():
        name = template.name.removesuffix(".tmpl")
        folder = "tests" if name.startswith("test_") else plugin.package
        files[f"{folder}/{name}"] = _text(template)
    return {path: plugin.fill(text) for path, text in files.items()}


def _text(template: Traversable) -> str:
    return template.read_text(encoding="utf-8")


def _umask() -> int:
    """Return the process's umask; it cannot be asked for without being set."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
