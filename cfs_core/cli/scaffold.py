"""Writes the project of a new plugin: complete, small, and right according to the conformance kit."""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

KINDS = ("bootloader", "transport", "storage", "policy")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
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

    def fill(self, text: str) -> str:
        """Put the names into a template."""
        values = {
            "NAME": self.name,
            "DIST": self.distribution,
            "PACKAGE": self.package,
            "CLASS": "".join(part.capitalize() for part in self.name.split("-")),
            "KIND": self.kind,
            "SUMMARY": _SUMMARIES[self.kind].format(name=self.name),
            "USAGE": _USAGE[self.kind].format(name=self.name),
            "NOTE": _TO_KNOW.get(self.kind, "").format(name=self.name),
        }
        return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def write_project(kind: str, name: str, directory: Path | None = None) -> Path:
    """Write the project and return where it is: *directory*, or one named after the distribution.

    Raises:
        UsageError: a name that cannot be a provider's.
        RefusedError: there is something already.
    """
    if not _NAME.match(name):
        msg = f"{name!r:.60} cannot be the name of a plugin"
        raise UsageError(msg, hint="use lower-case letters, digits and dashes, a letter first")
    plugin = NewPlugin(kind, name)
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


def _files(plugin: NewPlugin) -> dict[str, str]:
    templates = importlib.resources.files("cfs_core.cli") / "templates"
    common, own = templates / "common", templates / plugin.kind
    files = {
        "pyproject.toml": _text(common / "pyproject.toml.tmpl"),
        "README.md": _text(common / "README.md.tmpl"),
        ".gitignore": _text(common / "gitignore.tmpl"),
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
