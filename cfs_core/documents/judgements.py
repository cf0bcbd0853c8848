"""``cfs image check``: judgements about an image as JSON, JUnit XML, or SARIF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from cfs_core import __version__
from cfs_core.documents.values import found
from cfs_core.model.plan import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.install.check import Judgement
    from cfs_core.model.plan import Finding

_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
"""Severities in the words of SARIF 2.1.0, 3.27.10."""


def judged(reference: str, judgements: Sequence[Judgement]) -> dict[str, object]:
    """Return every judgement about the image *reference*."""
    return {
        "result": "bootable" if all(each.error is None for each in judgements) else "refused",
        "reference": reference,
        "judgements": [
            {
                "result": "bootable" if each.error is None else "refused",
                "bootloader": each.bootloader,
                "firmware": each.firmware,
                "filesystem": each.filesystem,
                "kernel": each.kernel,
                "kernel_version": each.kernel_version,
                "kernel_arguments": each.kernel_arguments,
                "code": each.error.code if each.error is not None else None,
                "exit_status": each.error.exit_status if each.error is not None else 0,
                "findings": found(each.findings),
            }
            for each in judgements
        ],
    }


def junit(reference: str, judgements: Sequence[Judgement]) -> str:
    """Return a test suite with a case for each judgement; errors are failures, all else is its output."""
    failed = sum(each.error is not None for each in judgements)
    suite = ET.Element("testsuite", name="cfs image check", tests=str(len(judgements)), failures=str(failed))
    for judgement in judgements:
        case = ET.SubElement(suite, "testcase", classname=_printable(reference), name=_printable(judgement.name))
        others = [finding for finding in judgement.findings if finding.severity is not Severity.ERROR]
        if judgement.error is not None:
            failure = ET.SubElement(case, "failure", type=judgement.error.code)
            failure.set("message", _printable(judgement.error.message))
            failure.text = "\n".join(_line(each) for each in judgement.findings if each not in others)
        if others:
            ET.SubElement(case, "system-out").text = "\n".join(map(_line, others))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _line(finding: Finding) -> str:
    hint = f" (hint: {finding.hint})" if finding.hint else ""
    return _printable(f"{finding.severity.value}: {finding.message} [{finding.code}]{hint}")


def _printable(text: str) -> str:
    """Return *text* with what XML cannot hold (control characters, lone surrogates) escaped."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def sarif(reference: str, judgements: Sequence[Judgement]) -> dict[str, object]:
    """Return a log of SARIF 2.1.0 with one run; the same finding about several combinations is one result."""
    names: dict[Finding, list[str]] = {}
    for judgement in judgements:
        for finding in judgement.findings:
            names.setdefault(finding, []).append(judgement.name)
    results = [
        {
            "ruleId": finding.code,
            "level": _LEVELS[finding.severity],
            "message": {"text": finding.message + (f"; {finding.hint}" if finding.hint else "")},
            "locations": [{"logicalLocations": [{"fullyQualifiedName": reference, "kind": "resource"}]}],
            "properties": {"choices": choices},
        }
        for finding, choices in names.items()
    ]
    rules = [{"id": code} for code in dict.fromkeys(finding.code for finding in names)]
    driver = {"name": "cfs", "version": __version__, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
