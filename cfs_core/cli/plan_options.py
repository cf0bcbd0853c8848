"""Options that decide what an install would plan: those of ``install to-disk`` and of ``image check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfs_core.model.disk import Volume

F = TypeVar("F", bound="Callable[..., Any]")


def _size(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from cfs_core.config.values import parse_size

    return None if value is None else parse_size(value, parameter.opts[0])


_OPTIONS = (
    click.option("--root-size", callback=_size, metavar="SIZE", help="Size of the root partition, such as 10G."),
    click.option("--esp-size", callback=_size, metavar="SIZE", help="Size of the EFI system partition."),
    click.option(
        "--disk-size", callback=_size, metavar="SIZE", help="Size of the whole disk; root takes what is left."
    ),
    click.option("--karg", "kargs", multiple=True, metavar="ARG", help="Add a kernel argument (repeatable)."),
    click.option(
        "--karg-delete", "karg_deletes", multiple=True, metavar="ARG", help="Take out KEY or KEY=VALUE (repeatable)."
    ),
    click.option(
        "--uki-addon",
        "uki_addons",
        multiple=True,
        metavar="NAME",
        help="Take this addon of the UKI only: a name, DIR/FILE, or none (repeatable; default: all of the image).",
    ),
    click.option(
        "--early-boot",
        type=click.Choice(["auto", "never", "always"]),
        help="Add early boot to the image's initramfs (default: where it has none).",
    ),
    click.option("--composefs-native", is_flag=True, help="Keep the system in composefs storage, sealed or not."),
    click.option("--separate-boot", is_flag=True, help="Give /boot a partition of its own."),
    click.option("--xbootldr", is_flag=True, help="Give boot files an extended boot loader partition (XBOOTLDR)."),
)


def plan_options(command: F) -> F:
    """Add the options, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def plan_settings(options: Mapping[str, Any]) -> dict[str, object]:
    """Return those of the *options* that are settings, by the settings' names; None where nothing was said."""
    names = ("root_size", "esp_size", "early_boot")
    given: dict[str, object] = {f"install.{name.replace('_', '-')}": options[name] for name in names}
    given["install.storage"] = "composefs" if options["composefs_native"] else None
    return given


def plan_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rest of the *options*, by the fields of a request.

    Raises:
        UsageError: two that exclude each other.
    """
    same = ("architecture", "disk_size", "kargs", "karg_deletes", "uki_addons")
    return {**{name: options[name] for name in same}, "boot_volume": _boot_volume(options)}


def _boot_volume(options: Mapping[str, Any]) -> Volume | None:
    from cfs_core.model.disk import Volume

    if options["separate_boot"] and options["xbootldr"]:
        msg = "--separate-boot and --xbootldr are two ways to keep boot files, and a disk has one"
        raise UsageError(msg, hint="--xbootldr follows the Boot Loader Specification; --separate-boot is for GRUB only")
    if options["xbootldr"]:
        return Volume.XBOOTLDR
    return Volume.BOOT if options["separate_boot"] else None
