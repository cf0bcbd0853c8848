"""``cfs initramfs install``."""

from __future__ import annotations

from pathlib import Path

import click

from cfs_initramfs.place import Generator, place

EXAMPLE = """
Puts the early-boot script and its hooks into DESTDIR, the root of an image that is being built. Run the image's
initramfs generator afterwards.

\b
Example, in a Containerfile:
  RUN cfs initramfs install / && dracut --force /usr/lib/modules/$VERSION/initramfs.img $VERSION
"""


def make_install() -> click.Command:
    """Return the command."""
    return click.Command(
        "install",
        callback=_install,
        params=[
            click.Argument(["destdir"], type=click.Path(path_type=Path)),
            click.Option(
                ["--for", "generators"],
                multiple=True,
                type=click.Choice([generator.value for generator in Generator]),
                help="Initramfs generator to write hooks for; default: those installed in DESTDIR.",
            ),
        ],
        help=EXAMPLE,
        short_help="Put early-boot code into an image that is being built.",
    )


def _install(destdir: Path, generators: tuple[str, ...]) -> None:
    for path in place(destdir, [Generator(name) for name in generators]):
        click.echo(path)
