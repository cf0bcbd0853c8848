"""``cfs install``: an image to a disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.cli.first_boot import TEXTS, first_boot_options, first_boot_request
from cfs_core.cli.output import (
    NamedPath,
    ResultGroup,
    authfile_option,
    format_option,
    platform_option,
    progress_fd_option,
    repo_option,
    say,
    show_json,
)
from cfs_core.cli.plan_options import plan_fields, plan_options, plan_settings
from cfs_core.documents.install import installed
from cfs_core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cfs_core.app.app import App
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.install.plan import PreparedInstall
    from cfs_core.install.request import InstallRequest
    from cfs_core.install.run import InstallResult


@click.group(cls=ResultGroup)
def install() -> None:
    """Install an image to a disk."""


@install.command("to-disk")
@click.argument("disk", type=NamedPath(path_type=Path))
@click.option(
    "--source-imgref",
    metavar="REF",
    help="Image: oci:DIR[:TAG], docker://…, …; inside a container, its own image by default.",
)
@click.option(
    "--target-imgref", metavar="REF", help="Where the installed system looks for updates; the source by default."
)
@click.option("--filesystem", metavar="NAME", help="Root filesystem (default: image advice, or ext4).")
@click.option("--bootloader", metavar="NAME", help="Bootloader (default: image advice, or what fits).")
@click.option("--firmware", type=click.Choice(["uefi", "bios", "both", "u-boot"]), help="What will start the disk.")
@click.option(
    "--secure-boot-enroll",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Let systemd-boot enrol the Secure Boot keys of DIR, which `cfs secureboot keys` made.",
)
@plan_options
@click.option(
    "--root-ssh-authorized-keys",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="SSH keys that may log in as root.",
)
@first_boot_options
@click.option(
    "--seed", metavar="TEXT", envvar="CFS_SEED", help="Derive all identifiers from TEXT (reproducible disks)."
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option(
    "--show",
    metavar="VOLUME:/PATH",
    help="Print a file of the plan, such as ESP:/loader/loader.conf, and stop.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask before replacing or destroying anything.")
@click.option("--prove", is_flag=True, help="Boot the result in a virtual machine.")
@progress_fd_option
@authfile_option
@repo_option
@platform_option
@format_option
@click.pass_context
def to_disk(ctx: click.Context, /, disk: Path, output: str, **options: Any) -> int:  # noqa: ANN401 - the options above
    """Make DISK a disk image that boots into the image.

    Needs no root, mounts nothing and executes nothing of the image. Settings, the image's advice and these options
    decide; --dry-run shows the result.

    \b
    Examples:
      cfs install to-disk --source-imgref oci:./debian:latest disk.img
      cfs install to-disk --source-imgref oci:./debian:latest --karg console=ttyS0 --dry-run disk.img
    """
    from cfs_core.cli.plan_text import show_file, show_plan
    from cfs_core.install.run import install as run_install

    app: App = ctx.obj
    app.add_options(_settings(options))
    request = _request(app, disk, options)
    if request.replace and not (options["yes"] or options["dry_run"]):
        _ask(disk)

    def show(image: PreparedImage, prepared: PreparedInstall) -> None:
        app.progress.close()
        _refuse_keys(options["secure_boot_enroll"], prepared.decisions.bootloader_choice.value)
        if options["show"]:
            show_file(prepared, options["show"])
        elif options["dry_run"] or output == "text":
            show_plan(image, prepared, request, output=output, full=options["dry_run"])
        if options["prove"]:
            _provable(each.value for each in prepared.decisions.facts.firmware)

    if options["prove"]:
        _prover(ctx)
    result = run_install(request, app, show=show)
    app.progress.close()
    if result is None:
        return 0
    if not options["prove"] or output == "text":
        _show_result(result, output)
    if options["prove"]:
        arguments = _prove_arguments(ctx, result)
        app.configure(output_format=output)  # after the prover's own default was taken
        return int(ctx.invoke(_prover(ctx), **arguments) or 0)
    return 0


def _refuse_keys(keys: Path | None, bootloader: str) -> None:
    """Refuse keys that nothing would enrol."""
    if keys is not None and bootloader != "systemd-boot":
        msg = f"--secure-boot-enroll: {bootloader} enrols no keys"
        raise UsageError(msg, hint="choose --bootloader systemd-boot, or enrol them in the firmware's own menu")


def _source(app: App, options: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return source and target: where none is named, the image of the container that cfs runs in, and its name."""
    if options["source_imgref"] is not None:
        return options["source_imgref"], options["target_imgref"]
    from cfs_core.install.running import running_image

    found = running_image(app)
    return found.source, options["target_imgref"] or found.name


def _show_result(result: InstallResult, output: str) -> None:
    if output == "json":
        show_json(installed(result))
        return
    took = f"{result.took_seconds:.1f} s"
    say(f"installed {result.image_id:.16}… to {result.disk} in {took}; read back and verified")


def _request(app: App, disk: Path, options: Mapping[str, Any]) -> InstallRequest:
    from cfs_core.install.request import InstallRequest

    source, target = _source(app, options)
    keys = options["root_ssh_authorized_keys"]
    return InstallRequest(
        source=app.locate(source),
        disk=disk,
        target_imgref=target,
        **plan_fields(options),
        root_ssh_authorized_keys=keys.read_bytes() if keys else None,
        first_boot=first_boot_request(options),
        repo=options["repo_path"],
        seed=options["seed"],
        # Asked about before anything is fetched; a name too long is judged later.
        replace=os.path.exists(disk),  # noqa: PTH110
        dry_run=bool(options["dry_run"] or options["show"]),
    )


def _settings(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that are settings, by the settings' names."""
    given = plan_settings(options)
    names = ("bootloader", "filesystem", "firmware", *TEXTS)
    given.update({f"install.{name.replace('_', '-')}": options[name] for name in names})
    keys = options["secure_boot_enroll"]
    given["bootloader"] = {"systemd-boot": {"secure-boot-keys": str(keys)}} if keys else None
    return given


def _ask(disk: Path) -> None:
    if not sys.stdin.isatty():
        msg = f"{disk} exists"
        raise RefusedError(msg, hint="pass --yes to replace it")
    click.confirm(f"{disk} exists. Replace it?", abort=True, err=True)


def _prover(ctx: click.Context) -> click.Command:
    root = ctx.find_root()
    command = root.command.get_command(root, "prove") if isinstance(root.command, click.Group) else None
    if command is None:
        msg = "there is no `cfs prove` here"
        raise UsageError(msg, hint="pip install cfs-prove")
    return command


def _provable(firmware: Iterable[str]) -> str:
    """Return what `cfs prove` calls *firmware*.

    Raises:
        UsageError: it has no machine with it.
    """
    found = {"uefi", "bios"} & set(firmware)
    if not found:
        msg = f"there is no virtual machine for a disk that is started by {' and '.join(sorted(firmware))}"
        raise UsageError(msg, hint="leave --prove out, or make the disk for --firmware uefi or bios")
    return "both" if len(found) > 1 else found.pop()


def _prove_arguments(ctx: click.Context, result: InstallResult) -> dict[str, Any]:
    """Return the prover's own defaults, for the disk that was made: what starts it is what it was made for."""
    command = _prover(ctx)
    given = {
        "disk": result.disk,
        "firmware": _provable(result.firmware),
        "architecture": result.architecture,
        "loader": result.bootloader,
    }
    made = command.make_context("prove", [str(result.disk)], parent=ctx.find_root())
    return {**made.params, **{name: value for name, value in given.items() if name in made.params and value}}
