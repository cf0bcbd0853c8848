"""The matrix: every package alone with core and the kit, on every Python, with the lowest and the newest dependencies.

nox -l lists the sessions; nox -s "plugin-3.11(package='grub', versions='lowest')" runs one of them. With uv installed
the environments are made in seconds. A Python that is not installed is skipped by name; pyenv's are found whether pyenv
has chosen them or not. Results are added to .cache/matrix.tsv; `nox -s table` shows them as the README does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nox

ROOT = Path(__file__).parent
CORE = ROOT / "cfs_core"
CACHE = ROOT / ".cache" / "matrix"
VERSIONS = ["lowest", "newest"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PLUGINS = {
    path.parent.relative_to(ROOT / "plugins").as_posix(): path.parent
    for path in sorted((ROOT / "plugins").glob("**/pyproject.toml"))
}
TOOLS = ["hypothesis>=6.100", "pytest-timeout>=2.3"]
CORE_TESTS = ["tests/unit", "tests/bls", "tests/image"]
QUICK = "not vm and not slow and not judge"

nox.needs_version = ">=2024.10.9"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"  # what is tested is the Python of a distribution
nox.options.sessions = ["core", "plugin"]
nox.options.default_venv_backend = "uv|virtualenv"


def _find_pyenv() -> None:
    """Put pyenv's interpreters before its shims, which start only those that pyenv has been told to use."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {python: sorted(root.glob(f"versions/{python}.*/bin"), key=_release) for python in PYTHONS}
    folders = [str(folders[-1]) for folders in found.values() if folders]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


def _release(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.parent.name))


_find_pyenv()


@nox.session(python=PYTHONS)
@nox.parametrize("versions", VERSIONS)
def core(session: nox.Session, versions: str) -> None:
    """Test cfs-core with nothing but itself and the kit."""
    _install(session, versions, [CORE, PLUGINS["testkit"]])
    _test(session, "core", versions, CORE_TESTS)


@nox.session(python=PYTHONS)
@nox.parametrize("versions", VERSIONS)
@nox.parametrize("package", list(PLUGINS))
def plugin(session: nox.Session, package: str, versions: str) -> None:
    """Test one plugin with nothing but core, itself and the kit."""
    _install(session, versions, list(dict.fromkeys([CORE, PLUGINS["testkit"], PLUGINS[package]])))
    _test(session, package, versions, [f"plugins/{package}/tests"])


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """Show the results so far, one row for a package: tests passed with the lowest / the newest dependencies."""
    results: dict[tuple[str, str, str], str] = {}
    conform: dict[str, str] = {}
    file = CACHE.with_suffix(".tsv")
    for line in file.read_text().splitlines() if file.exists() else ():
        package, python, versions, passed, contracts = line.split("\t")
        results[package, python, versions] = passed
        conform[package] = contracts
    pythons = [python for python in PYTHONS if any(key[1] == python for key in results)]
    rows = [("Package", *pythons, "contracts kept"), ("---", *("---" for _ in pythons), "---")]
    for package in ["core", *PLUGINS]:
        cells = (
            " / ".join(results.get((package, python, versions), "-") for versions in VERSIONS) for python in pythons
        )
        rows.append((package, *cells, conform.get(package, "-")))
    session.log("\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))


def _install(session: nox.Session, versions: str, projects: list[Path]) -> None:
    """Install wheels of *projects* with what the tests of the last one need: its extra ``test``, where it has one."""
    wheels = [_wheel(session, project) for project in projects]
    if "test" in _project(projects[-1]).get("optional-dependencies", {}):
        wheels[-1] += "[test]"
    limits: list[str] = []
    if versions == "lowest" and session.venv_backend == "uv":
        # the lowest that has a wheel for this Python: nobody has to compile
        limits = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
        limits += [f"{name}>={version}" for name, version in _lowest(projects)]
    elif versions == "lowest":
        file = CACHE / f"lowest-{'-'.join(project.name for project in projects)}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name}=={version}\n" for name, version in _lowest(projects)))
        limits = ["--constraint", str(file)]
    session.install(*wheels, *TOOLS, *limits)


def _wheel(session: nox.Session, project: Path) -> str:
    """Build a wheel once per run of nox."""
    folder = CACHE / f"wheels-{os.getpid()}" / project.name
    if not folder.exists():
        build = ("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
        if session.venv_backend == "uv":
            build = ("uv", "build", "--quiet", "--wheel", "--out-dir")
        session.run(*build, str(folder), str(project), silent=True, external=True)
    (wheel,) = folder.glob("*.whl")
    return str(wheel)


def _project(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def _lowest(projects: list[Path]) -> list[tuple[str, str]]:
    """Return the lower bounds of all dependencies by name."""
    bounds: dict[str, str] = {}
    for project in projects:
        for dependency in _project(project).get("dependencies", []):
            name, _, version = dependency.partition(">=")
            if version and not name.startswith("cfs-"):
                lowest = version.partition(",")[0]
                bounds[name] = max(bounds.get(name, "0"), lowest, key=_numbers)
    return sorted(bounds.items())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _test(session: nox.Session, package: str, versions: str, paths: list[str]) -> None:
    results = Path(tempfile.mkdtemp(prefix="cfs-nox-")) / "results.xml"
    report = results.with_name("report.json")
    started = time.monotonic()
    try:
        session.run(
            "pytest", "-q", "-m", QUICK, "-p", "no:cacheprovider", "--junitxml", str(results),
            "--cfs-report", str(report), *paths, *session.posargs,
        )  # fmt: skip
    finally:
        if results.exists():
            _note(session, package, versions, results, report, time.monotonic() - started)
        shutil.rmtree(results.parent, ignore_errors=True)


def _note(session: nox.Session, package: str, versions: str, results: Path, report: Path, took: float) -> None:
    (suite,) = ET.parse(results).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = count["failures"] + count["errors"]
    passed = f"{count['tests'] - bad - count['skipped']}" + (f", {bad} failed" if bad else "")
    contracts = json.loads(report.read_text())["contracts"] if report.exists() else []
    kept = f"{sum(contract['conforms'] for contract in contracts)} of {len(contracts)}" if contracts else "-"
    session.log(f"{package} {session.python} {versions}: {passed} passed, contracts kept: {kept} ({took:.0f} s)")
    with CACHE.with_suffix(".tsv").open("a") as file:
        file.write(f"{package}\t{session.python}\t{versions}\t{passed}\t{kept}\n")
