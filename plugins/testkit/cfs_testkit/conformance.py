"""Turns contract tests into a conformance report: strict expected failures, ``--cfs-report FILE``, a summary."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_DECLARED = "not declared: "
_KEY = "cfs_contract"
REPORT_VERSION = 2
"""2: checks of what a provider does not declare are names in ``not_declared``, by what that is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--cfs-report``."""
    group = parser.getgroup("cfs", "conformance of cfs plugins")
    group.addoption("--cfs-report", metavar="FILE", help="write the conformance report (JSON) to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Collect results, where there are contracts."""
    pytest.register_assert_rewrite("cfs_testkit.contracts")
    config.addinivalue_line("markers", "vm: boots virtual machines")
    config.pluginmanager.register(Conformance(config), "cfs-conformance")


class Conformance:
    """Results of all contract checks of one pytest run."""

    def __init__(self, config: pytest.Config) -> None:
        self.file: str | None = config.getoption("--cfs-report")
        self.is_worker = hasattr(config, "workerinput")
        self.contracts: dict[tuple[str, str], dict[str, Any]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark expected failures, and remember which contract each check belongs to."""
        for item, kind in _contract_items(items):
            unknown = [name for name in kind.expected_failures if not hasattr(kind, name)]
            if unknown:
                msg = f"{kind.__name__}.expected_failures names checks that do not exist: {', '.join(unknown)}"
                raise pytest.UsageError(msg)
            name = getattr(item, "originalname", item.name)
            reason = kind.expected_failures.get(name)
            if reason:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
            facts = {
                "class": f"{item.nodeid.partition('::')[0]}::{kind.__name__}",
                "contract": _contract_name(kind),
                "family": kind.family.name,
                "provider": kind.provider,
                "check": item.name,
                "title": next(iter((getattr(item, "function").__doc__ or "").strip().splitlines()), ""),  # noqa: B009
            }
            item.user_properties.append((_KEY, facts))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of one check."""
        properties: dict[str, Any] = dict(report.user_properties)
        facts = properties.get(_KEY)
        if facts is None or (report.when != "call" and report.outcome == "passed"):
            return
        key = (facts["class"], facts["provider"])
        about = ("class", "contract", "family", "provider")
        contract = self.contracts.setdefault(key, {name: facts[name] for name in about} | {"checks": {}})
        contract["plugin"] = properties.get("cfs_plugin", contract.get("plugin"))
        outcome, reason = _outcome(report)
        check = {
            "name": facts["check"],
            "title": facts["title"],
            "outcome": outcome,
            "reason": reason,
            "took_seconds": round(report.duration, 3),
        }
        previous = contract["checks"].get(facts["check"])
        if previous is None or previous["outcome"] == "passed":
            contract["checks"][facts["check"]] = check

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        if self.file is not None and not self.is_worker:
            Path(self.file).write_text(json.dumps(self.report(), indent=2) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:  # noqa: ANN401 - pytest's own is private
        """Say in a line per contract what came of it."""
        if not self.contracts:
            return
        terminalreporter.section("cfs conformance")
        for contract in self.report()["contracts"]:
            counts = ", ".join(f"{count} {name}" for name, count in contract["summary"].items())
            verdict = "conforms" if contract["conforms"] else "DOES NOT CONFORM"
            terminalreporter.line(f"{contract['contract']} {contract['provider']}: {verdict} ({counts})")
            for what, names in contract["not_declared"].items():
                terminalreporter.line(f"  not declared: {what} ({len(names)} checks)")

    def report(self) -> dict[str, Any]:
        """Return the report as JSON will hold it."""
        contracts = []
        for contract in self.contracts.values():
            checks = [check for check in contract["checks"].values() if check["outcome"] != "not-declared"]
            not_declared: dict[str, list[str]] = {}
            for check in contract["checks"].values():
                if check["outcome"] == "not-declared":
                    not_declared.setdefault(check["reason"], []).append(check["name"])
            summary: dict[str, int] = {}
            for check in checks:
                summary[check["outcome"]] = summary.get(check["outcome"], 0) + 1
            conforms = not {"failed", "error", "unexpected-pass"} & set(summary)
            found = {"conforms": conforms, "summary": summary, "checks": checks, "not_declared": not_declared}
            contracts.append({**contract, **found})
        return {
            "report": REPORT_VERSION,
            "kit": metadata.version("cfs-plugin-testkit"),
            "core": metadata.version("cfs-core"),
            "python": platform.python_version(),
            "conforms": bool(contracts) and all(contract["conforms"] for contract in contracts),
            "contracts": contracts,
        }


def _contract_items(items: list[pytest.Item]) -> Iterator[tuple[pytest.Item, Any]]:
    for item in items:
        kind = getattr(item, "cls", None)
        if kind is not None and hasattr(kind, "expected_failures") and hasattr(kind, "family"):
            yield item, kind


def _contract_name(kind: type) -> str:
    for base in kind.__mro__:
        if base.__module__.startswith("cfs_testkit.contracts"):
            return base.__name__
    return kind.__name__


def _outcome(report: pytest.TestReport) -> tuple[str, str]:
    expected = getattr(report, "wasxfail", None)
    if expected is not None:
        return ("expected-failure" if report.skipped else "unexpected-pass"), expected.removeprefix("reason: ")
    if report.passed:
        return "passed", ""
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
        if reason.startswith(NOT_DECLARED):
            return "not-declared", reason.removeprefix(NOT_DECLARED)
        return "skipped", reason
    text = report.longreprtext
    if "[XPASS(strict)]" in text:
        return "unexpected-pass", text.partition("[XPASS(strict)]")[2].strip()
    last = [line for line in text.splitlines() if line.startswith("E ")]
    return ("failed" if report.when == "call" else "error"), (last[0][1:].strip() if last else text[-200:])
