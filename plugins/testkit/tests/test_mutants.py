"""Deliberately wrong plugins: each fails just the check that names its fault. What no mutant can fail is no check."""

import importlib
import shutil
from pathlib import Path

import mutants_bootloader
import mutants_filesystem
import mutants_hasher
import mutants_initramfs
import mutants_layout
import mutants_policy
import mutants_storage
import mutants_transport
import pytest

import cfs_core.plugin
from cfs_core.cli.scaffold import KINDS, write_project

pytest_plugins = ["pytester"]

# pytester forgets modules that a run imported; what core imports on demand would be there twice, as different classes.
for _name in cfs_core.plugin.__all__:
    getattr(cfs_core.plugin, _name)

MUTANTS = {
    "bootloader": mutants_bootloader,
    "transport": mutants_transport,
    "storage": mutants_storage,
    "policy": mutants_policy,
    "layout": mutants_layout,
    "filesystem": mutants_filesystem,
    "initramfs": mutants_initramfs,
    "hasher": mutants_hasher,
}
CASES = [
    pytest.param(kind, mutant, id=f"{kind}-{mutant.fault.replace(' ', '-')}")
    for kind, module in MUTANTS.items()
    for mutant in module.MUTANTS
]
REFERENCES = Path(__file__).parent / "references"
"""Small plugins that are right, of the kinds that `cfs plugins new` does not write."""

SLOW_CHECK = "test_registration_loads_no_implementation"


def make(pytester, kind, mutant=None):
    """Write a project, break it, and point its contract at the module itself."""
    folder = pytester.path / "project"
    package = folder / "cfs_mutant"
    test = folder / "tests" / "test_contract.py"
    if kind in KINDS:
        write_project(kind, "mutant", folder)
    else:
        shutil.copytree(REFERENCES / kind, package)
        (package / "__init__.py").touch()
        test.parent.mkdir()
        (package / "contract.py").rename(test)
    for file, old, new in (*mutant.base, *mutant.edits) if mutant else ():
        path = test if file == "test" else package / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))
    text = test.read_text().replace("    provider = ", "    plugin = cfs_mutant.plugin\n    provider = ")
    test.write_text(text.replace("from cfs_testkit", "import cfs_mutant.plugin\nfrom cfs_testkit", 1))
    return folder


def failures(pytester, monkeypatch, folder, *options):
    """Run the contract, and return names of the checks that did not pass, and how many ran."""
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    result = pytester.inline_run(str(folder / "tests"), "-q", "-p", "no:cacheprovider", "-W", "ignore", *options)
    reports = [r for r in result.getreports("pytest_runtest_logreport") if r.failed]
    passed, _, _ = result.listoutcomes()
    return {report.nodeid.rpartition("::")[2].partition("[")[0] for report in reports}, len(passed)


@pytest.mark.parametrize("kind", MUTANTS)
def test_the_new_plugin_keeps_its_contract(pytester, monkeypatch, kind):
    folder = make(pytester, kind)
    failed, passed = failures(pytester, monkeypatch, folder)
    assert failed == set()
    assert passed > 10


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mutant"), CASES)
def test_a_mutant_fails_the_check_that_names_its_fault(pytester, monkeypatch, kind, mutant):
    folder = make(pytester, kind, mutant)
    options = [] if mutant.check == SLOW_CHECK else ["-k", f"not {SLOW_CHECK}"]
    failed, passed = failures(pytester, monkeypatch, folder, *options)
    assert failed == {mutant.check, *mutant.also}
    assert passed > 10 - len(mutant.also)


@pytest.mark.parametrize("kind", MUTANTS)
def test_every_check_can_fail(kind):
    from cfs_testkit import contracts

    contract = getattr(contracts, f"{kind.capitalize()}Contract")
    checks = {name for name in dir(contract) if name.startswith("test_")}
    common = {name for name in dir(contracts.Contract) if name.startswith("test_")}
    if kind != "bootloader":  # what all contracts share is shown with one of them
        checks -= common
    shown = {name for mutant in MUTANTS[kind].MUTANTS for name in (mutant.check, *mutant.also)}
    assert checks - shown == set()


def test_what_is_not_seen_is_said():
    for fault, reason in mutants_bootloader.NOT_SEEN.items():
        assert fault not in {mutant.fault for mutant in mutants_bootloader.MUTANTS}
        assert len(reason) > 20


def test_there_are_many_mutants_with_a_fault_of_their_own():
    assert len([case for case in CASES if not case.values[1].also]) >= 25
