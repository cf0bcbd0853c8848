"""Wheels of what is installed here: environments are made from them without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

NOT_OF_THE_WHEEL = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json", "uv_build.json"}
"""What installers write beside what a wheel brought; a record is made anew."""
BUILD = ("hatchling", "editables")


def required(*names: str) -> set[str]:
    """Return distributions of the index that *names* need, directly or not; this project's own are gone through."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return {name for name in found if not name.startswith("cfs-")}


def repack(name: str, folder: Path) -> Path:
    """Write the wheel that the installed distribution *name* came from into *folder*, with all of its files."""
    installed = metadata.distribution(name)
    tags = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.MULTILINE)
    stem = f"{re.sub(r'[-_.]+', '_', installed.metadata['Name'])}-{installed.version}"
    parts = [".".join(dict.fromkeys(tag.split("-")[at] for tag in tags)) for at in range(3)]
    wheel = folder / f"{stem}-{'-'.join(parts)}.whl"
    scripts = {entry.name for entry in installed.entry_points if entry.group == "console_scripts"}
    record = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in installed.files or ():
            place = _place(file.as_posix(), stem, scripts)
            if place is not None:
                archive.write(os.fspath(file.locate()), place)
                record.append(f"{place},,")
        info = next(line.split(",")[0].split("/")[0] for line in record if ".dist-info/" in line)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return wheel


def _place(path: str, stem: str, scripts: set[str]) -> str | None:
    """Return where the installed file *path* was in the wheel; None if it was not there."""
    name = path.rpartition("/")[2]
    if path.endswith(".pyc") or (".dist-info/" in path and name in NOT_OF_THE_WHEEL):
        return None
    if not path.startswith("../"):
        return path
    outside = re.sub(r"^(\.\./)+", "", path)
    if outside.startswith("bin/"):
        return None if name in scripts else f"{stem}.data/scripts/{name}"
    return f"{stem}.data/data/{outside}"


def make(folder: Path, *names: str) -> Path:
    """Fill *folder* with wheels of all that the installed distributions *names* need, and of what builds projects."""
    folder.mkdir(exist_ok=True)
    for name in sorted(required(*names, *BUILD)):
        repack(name, folder)
    return folder


class Offline:
    """An environment made by pip or uv that installs from folders of wheels alone; builds are isolated as usual."""

    def __init__(self, folder: Path, tool: str, *wheels: Path) -> None:
        self.folder = folder
        self.tool = tool
        self.wheels = wheels
        self.bin = folder / "bin"
        command = [sys.executable, "-m", "venv"] if tool == "pip" else [self._uv(), "venv", "-q", "-p", sys.executable]
        subprocess.run([*command, folder], check=True, capture_output=True, timeout=120)

    @staticmethod
    def _uv() -> Path:
        return Path(sys.executable).with_name("uv")

    def _environ(self, **more: str) -> dict[str, str]:
        """Return variables under which nothing but the folders is looked at, by what runs in isolation too."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))}
        folders = " ".join(map(str, self.wheels))
        return kept | {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": folders,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": ",".join(map(str, self.wheels)),
            "UV_CACHE_DIR": str(self.folder / ".uv-cache"),
        } | more  # fmt: skip

    def _ok(self, argv: list[object], cwd: Path | None = None, **more: str) -> str:
        done = subprocess.run(
            list(map(str, argv)), env=self._environ(**more), cwd=cwd or self.folder, capture_output=True, text=True,
            check=False, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *words: object) -> None:
        """Install, as ``pip install WORDS`` or ``uv pip install WORDS`` do."""
        if self.tool == "pip":
            self._ok([self.bin / "python", "-m", "pip", "install", "-q", *words])
        else:
            self._ok([self._uv(), "pip", "install", "-q", "--no-index", "-p", self.folder, *words])

    def build(self, kind: str, project: Path, out: Path) -> Path:
        """Build the ``sdist`` or ``wheel`` of *project* with uv, whatever the tool, into *out*; its path."""
        out.mkdir(exist_ok=True)
        self._ok([self._uv(), "build", "--no-index", f"--{kind}", "--out-dir", out, project])
        (made,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
        return made

    def check(self) -> None:
        """Raise AssertionError where what is installed does not fit together."""
        if self.tool == "pip":
            self._ok([self.bin / "python", "-m", "pip", "check"])
        else:
            self._ok([self._uv(), "pip", "check", "-p", self.folder])

    def cfs(self, *words: object) -> str:
        """Run ``cfs``, which must succeed; what it wrote."""
        return self._ok([self.bin / "cfs", *words])

    def versions(self) -> dict[str, str]:
        """Return the versions of this project's distributions that are there."""
        site = next((self.folder / "lib").glob("python*/site-packages"))
        found = {each.metadata["Name"]: each.version for each in metadata.distributions(path=[str(site)])}
        return {name: version for name, version in found.items() if name.startswith("cfs-")}
