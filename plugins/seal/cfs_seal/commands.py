"""``cfs seal``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.plugin import FormatVersion, HashAlgorithm, OutputFormat, Severity, UsageError, VerificationError

if TYPE_CHECKING:
    from cfs_core.plugin import CommandContext, Finding, Output
    from cfs_core.sealing import Services
    from cfs_seal.check import CheckReport
    from cfs_seal.seal import SealRequest, SealResult

HELP = """
Seal the image SOURCE and write it to DEST: a UKI that names the digest of the image's own files goes on top, in one
layer. Layers below stay what they are, and those that DEST has are not copied. Needs no rights, and ukify.

The command line is that of the image (kargs.d, its label), --karg, and composefs=DIGEST. An image that would not boot
sealed is refused, with what to change in it. With SOURCE_DATE_EPOCH the same image and keys give the same bytes.

\b
Examples:
  cfs seal oci:./debian:latest oci:./debian:sealed --key db.key --certificate db.pem
  cfs seal oci:./debian:latest --unsigned-to handover
  cfs seal oci:./debian:latest oci:./debian:sealed --signed-from handover
  cfs seal --check oci:./debian:sealed --trust db.pem
"""
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def make_seal(context: CommandContext) -> click.Command:
    """Return the command."""
    return click.Command(
        "seal",
        callback=click.pass_obj(functools.partial(_seal, context)),
        help=HELP,
        short_help="Seal an image with a signed UKI, or check somebody else's seal.",
        params=[
            click.Argument(["source"]),
            click.Argument(["dest"], required=False),
            *_signing_options(),
            *_content_options(),
            *_check_options(),
            click.Option(["--authfile"], type=click.Path(path_type=Path), help="Credentials for registries."),
            click.Option(["--architecture"], help="Architecture to choose (default: this machine's)."),
        ],
    )  # fmt: skip


def _signing_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--key", "keys"], multiple=True, metavar="KEY",
            help="Sign with this key: a file, or pkcs11:URI. Repeatable, each with its certificate.",
        ),
        click.Option(
            ["--certificate", "certificates"], multiple=True, type=_FILE, metavar="FILE",
            help="Certificate of a key (PEM or DER), in the order of the keys.",
        ),
        click.Option(
            ["--unsigned-to"], type=_FOLDER, metavar="DIR", help="Write what is to be signed elsewhere, and stop."
        ),
        click.Option(
            ["--signed-from"], multiple=True, type=_FOLDER, metavar="DIR",
            help="Go on with what was signed elsewhere. Repeatable: one directory for each signer.",
        ),
        click.Option(["--sign-loader"], is_flag=True, help="Also sign the image's systemd-boot, as NAME.efi.signed."),
    ]  # fmt: skip


def _content_options() -> list[click.Parameter]:
    return [
        click.Option(["--karg", "kargs"], multiple=True, metavar="ARG", help="Add a kernel argument (repeatable)."),
        click.Option(
            ["--karg-delete", "karg_deletes"], multiple=True, metavar="ARG",
            help="Take out KEY or KEY=VALUE of the image's (repeatable).",
        ),
        click.Option(
            ["--addon", "addons"], multiple=True, metavar="NAME=ARGS",
            help="Also make an addon with these arguments, for machines that choose it (repeatable).",
        ),
        click.Option(
            ["--profile", "profiles"], multiple=True, metavar="NAME=ARGS",
            help="Also a profile of the UKI: the same with these arguments added (repeatable; systemd 257).",
        ),
        click.Option(
            ["--pcr-key"], type=_FILE, metavar="FILE",
            help="Sign what a TPM will measure with this key (.pcrsig), for secrets that only this UKI opens.",
        ),
        click.Option(["--name"], metavar="NAME", help="Name of the UKI (default: the kernel's version)."),
        click.Option(["--sbat"], metavar="TEXT", help="SBAT lines of the UKI, besides ukify's own."),
        click.Option(["--stub"], type=_FILE, metavar="FILE", help="Stub of the UKI (default: the image's own)."),
        click.Option(
            ["--erofs"], type=click.Choice([each.value for each in FormatVersion]), default="v1", show_default=True,
            help="EROFS form that is sealed.",
        ),
        click.Option(
            ["--hash", "algorithm"], type=click.Choice([each.value for each in HashAlgorithm]), default="sha512",
            show_default=True, help="Hash that is sealed.",
        ),
        click.Option(["--verity-optional"], is_flag=True, help="Seal composefs=?DIGEST, for filesystems without it."),
        click.Option(["--split-kernel"], is_flag=True, help="Leave kernel and initramfs to the UKI alone."),
        click.Option(
            ["--dump"], is_flag=True, help="Keep the sealed tree as text in /boot, which tells later what was changed."
        ),
        click.Option(["--replace"], is_flag=True, help="Put the UKI in the place of one that the image has."),
    ]  # fmt: skip


def _check_options() -> list[click.Parameter]:
    return [
        click.Option(["--check"], is_flag=True, help="Judge the seal of SOURCE, and write nothing."),
        click.Option(
            ["--trust", "trusted"], multiple=True, type=_FILE, metavar="FILE",
            help="With --check: a certificate that firmware would trust (repeatable).",
        ),
    ]  # fmt: skip


def _seal(context: CommandContext, services: Services, /, source: str, dest: str | None, **choices: Any) -> None:  # noqa: ANN401 - the options
    from cfs_seal.seal import seal

    _keep_authfile(services, choices.pop("authfile"))
    if choices["check"]:
        _check(context.output, services, source, choices)
        return
    request = _request(source, dest, choices)
    result = seal(request, services)
    if context.output.format is OutputFormat.JSON:
        context.output.show(_as_json(result))
    else:
        _show(result, context.output)


def _check(output: Output, services: Services, source: str, choices: dict[str, Any]) -> None:
    from cfs_seal.check import check
    from cfs_seal.signing import load_certificate

    trusted = [load_certificate(path) for path in choices["trusted"]]
    report = check(source, trusted, services, architecture=choices["architecture"])
    if output.format is OutputFormat.JSON:
        output.show(_report_json(report))
    else:
        _show_report(report, output)
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    if errors:
        raise VerificationError(errors[0].message, hint=errors[0].hint, code=errors[0].code)


def _report_json(report: CheckReport) -> dict[str, object]:
    return {
        "good": report.good,
        "manifest_digest": report.manifest_digest,
        "uki": report.uki,
        "named": report.named,
        "computed": report.computed,
        "form": report.form or None,
        "kernel_arguments": list(report.arguments),
        "signatures": [
            {
                "path": each.path,
                "signer": verdict.signer,
                "fingerprint": verdict.fingerprint,
                "intact": verdict.intact,
                "trusted_by": verdict.trusted_by,
                "problem": verdict.problem,
            }
            for each in report.files
            for verdict in each.verdicts
        ],
        "differences": list(report.different),
        "findings": [_finding_json(each) for each in report.findings],
    }


def _show_report(report: CheckReport, output: Output) -> None:
    output.say(f"image      {report.manifest_digest}")
    output.say(f"uki        {report.uki or 'none'}")
    output.say(f"named      {report.named or 'nothing'}")
    output.say(f"files      {report.computed or 'not computed'}" + (f" ({report.form})" if report.form else ""))
    for each in report.files:
        for verdict in each.verdicts:
            by = f", trusted by {verdict.trusted_by}" if verdict.trusted_by else ""
            output.say(
                f"signed     {each.path}: {verdict.signer}{by}" + (f": {verdict.problem}" if verdict.problem else "")
            )
    for line in report.different:
        output.say(f"differs    {line}")
    for finding in report.findings:
        output.say(f"{finding.severity.value:<10} {finding.message} [{finding.code}]")
        if finding.hint:
            output.say(f"           {finding.hint}")


def _keep_authfile(services: Services, path: Path | None) -> None:
    if path is not None:
        services.authfile = path  # type: ignore[attr-defined] # every command with credentials keeps them in the run


def _request(source: str, dest: str | None, choices: dict[str, Any]) -> SealRequest:
    from cfs_seal.seal import SealRequest
    from cfs_seal.signing import load_signers

    for name in ("check", "trusted"):
        choices.pop(name)
    signers = load_signers(choices.pop("keys"), choices.pop("certificates"))
    asked = [name for name, value in (("--key", signers), ("--unsigned-to", choices["unsigned_to"]),
                                      ("--signed-from", choices["signed_from"])) if value]  # fmt: skip
    if len(asked) > 1:
        msg = f"{asked[0]} and {asked[1]} contradict each other"
        raise UsageError(msg, hint="sign here, or elsewhere: first --unsigned-to, then --signed-from")
    if choices["sign_loader"] and not signers:
        msg = "--sign-loader needs a key: the digest is of the signed loader"
        raise UsageError(msg, hint="give --key and --certificate, or sign the loader when the image is built")
    if dest is None and choices["unsigned_to"] is None:
        msg = "there is no DEST to write the sealed image to"
        raise UsageError(msg, hint="name one, such as oci:DIR:TAG, or use --unsigned-to DIR or --check")
    return SealRequest(
        source=source,
        destination=dest,
        signers=signers,
        addons=dict(_named("--addon", text) for text in choices.pop("addons")),
        profiles=dict(_named("--profile", text) for text in choices.pop("profiles")),
        version=FormatVersion(choices.pop("erofs")),
        algorithm=HashAlgorithm(choices.pop("algorithm")),
        **choices,
    )


def _named(option: str, text: str) -> tuple[str, str]:
    import re

    name, _, arguments = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not arguments.strip():
        msg = f"{option} {text!r:.100} is not NAME=ARGS"
        raise UsageError(msg, hint=f'for example {option} "german=rd.vconsole.keymap=de"')
    return name.removesuffix(".addon.efi"), arguments


def _as_json(result: SealResult) -> dict[str, object]:
    return {
        "manifest_digest": result.manifest_digest,
        "image_id": result.image_id,
        "uki": result.uki,
        "kernel_arguments": list(result.arguments),
        "signed_by": list(result.signed_by),
        "unsigned": [str(path) for path in result.unsigned],
        "findings": [_finding_json(each) for each in result.findings],
    }


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity.value,
        "code": finding.code,
        "message": finding.message,
        "hint": finding.hint,
    }


def _show(result: SealResult, output: Output) -> None:
    for finding in result.findings:
        output.tell(f"{finding.severity.value}: {finding.message} [{finding.code}]")
    output.say(f"uki        {result.uki}")
    output.say(f"digest     {result.image_id}")
    output.say(f"arguments  {' '.join(result.arguments)}")
    for path in result.unsigned:
        output.say(f"unsigned   {path}")
    if result.manifest_digest is not None:
        output.say(f"signed by  {', '.join(result.signed_by) or 'nobody: firmware with Secure Boot will not start it'}")
        output.say(f"image      {result.manifest_digest}")
