"""``cfs image``: digests, pulling, looking into images."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfs_core.cli.check import check
from cfs_core.cli.output import (
    BinaryResults,
    NamedPath,
    ResultGroup,
    authfile_option,
    erofs_option,
    format_option,
    hash_option,
    on_terminal,
    platform_option,
    repo_option,
    say,
    show_json,
    table,
)
from cfs_core.documents import images as documents
from cfs_core.errors import StorageError, UsageError
from cfs_core.model.deployment import FormatOptions, FormatVersion
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.app.app import App
    from cfs_core.interfaces.storage import Repository
    from cfs_core.model.tree import Directory

F = TypeVar("F", bound="Callable[..., Any]")


def wanted_platform(architecture: str | None) -> Platform | None:
    """Return what ``--architecture`` asks for; None takes an image without a choice as it is."""
    return Platform("linux", architecture) if architecture else None


def identity_options(command: F) -> F:
    """Add the options that decide an identity."""
    for option in reversed(
        [
            # Not what settings say of new repositories: one command line is to print one digest, on every machine.
            erofs_option,
            hash_option,
            click.option("--bootable", is_flag=True, help="The form that is deployed: /boot emptied, files labelled."),
            click.option("--canonical", is_flag=True, help="The form of an OCI image: root metadata from /usr."),
            click.option("--as-is", is_flag=True, help="No change at all (default for dump files)."),
            click.option("--keep-user-xattrs", is_flag=True, help="Keep user.* attributes in canonical forms."),
        ]
    ):
        command = option(command)
    return authfile_option(platform_option(command))


@click.group(cls=ResultGroup)
def image() -> None:
    """Digests, pulling, looking into images.

    SOURCE is a reference (oci:DIR[:TAG], oci-archive:FILE, docker://…), dir:PATH or dump:FILE.
    """


@contextmanager
def _tree(app: App, source: str, choices: dict[str, Any]) -> Iterator[tuple[Directory, FormatOptions]]:
    from cfs_core.deploy.limits import image_limits
    from cfs_core.image.source import Form, Source, open_tree

    asked = [form for form in Form if choices[form.value.replace("-", "_")]]
    if len(asked) > 1:
        msg = f"--{asked[0].value} and --{asked[1].value} contradict each other"
        raise UsageError(msg, hint="give one of them")
    options = FormatOptions(
        version=FormatVersion(choices["version"]),
        algorithm=HashAlgorithm(choices["algorithm"]),
        keep_user_xattrs=choices["keep_user_xattrs"],
    )
    with open_tree(
        Source.parse(source, app.locate),
        asked[0] if asked else None,
        storage=app.storage(),
        options=options,
        platform=wanted_platform(choices["architecture"]),
        progress=app.progress,
        emit=app.emit,
        limits=image_limits(app.settings),
    ) as tree:
        yield tree, options


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


@image.command()
@click.argument("source")
@identity_options
@click.pass_obj
def digest(app: App, /, source: str, **choices: Any) -> None:  # noqa: ANN401 - the options of identity_options
    """Print the fs-verity digest of SOURCE's image.

    A directory that holds /usr is taken as the root of a system and measured in canonical form, as an OCI image is;
    any other directory is measured as it is.

    \b
    Examples:
      cfs image digest oci:./debian:latest --bootable
      cfs image digest dir:/usr --hash sha256 --erofs v0
    """
    with _tree(app, source, choices) as (tree, options):
        say(app.storage().write_image(tree, _Nowhere(), options))  # type: ignore[arg-type]


@image.command()
@click.argument("source")
@click.argument("out", type=NamedPath(dir_okay=False, path_type=Path))
@identity_options
@click.pass_obj
def erofs(app: App, /, source: str, out: Path, **choices: Any) -> None:  # noqa: ANN401 - the options of identity_options
    """Write SOURCE's EROFS image to OUT and print its digest.

    \b
    Example:
      cfs image erofs oci:./debian:latest debian.erofs --erofs v1
    """
    from cfs_core.system.atomic import atomic_file

    if not out.parent.is_dir():
        msg = f"there is no directory {out.parent}"
        raise UsageError(msg, hint="make it first")
    with _tree(app, source, choices) as (tree, options):
        with atomic_file(out) as file:
            identity = app.storage().write_image(tree, file, options)
        say(identity)


@image.command()
@click.argument("source")
@identity_options
@click.pass_obj
def dump(app: App, /, source: str, **choices: Any) -> None:  # noqa: ANN401 - the options of identity_options
    """Print SOURCE as a dump file (composefs-dump(5)).

    \b
    Example:
      cfs image dump oci:./debian:latest > debian.dump
    """
    with _tree(app, source, choices) as (tree, options):
        out = BinaryResults()
        app.storage().write_dump(tree, out, options)  # type: ignore[arg-type]
        out.flush()


@contextmanager
def open_repository(app: App, path: Path | None, *, create: bool = False) -> Iterator[Repository]:
    """Open ``--repo``, or the configured repository.

    Raises:
        StorageError: not there (unless *create*), not a repository, or one that others can write to.
    """
    where = path or app.default_repository()
    if not create and not where.exists():
        msg = f"there is no repository at {where}"
        raise StorageError(msg, hint="make one with `cfs repo init`, or pull an image")
    from cfs_core.deploy import pull as ways
    from cfs_core.deploy.storage import storage_at
    from cfs_core.deploy.trust import check_trust

    storage = storage_at(app, where) or app.storage()
    if not create:
        check_trust(app.settings, where)
    with ways.open_repository(app, storage, where) if create else storage.open(where) as repository:
        yield repository


@image.command()
@click.argument("reference")
@authfile_option
@click.option("--name", help="Tag in the repository; the reference by default.")
@repo_option
@platform_option
@format_option
@click.pass_obj
def pull(
    app: App, reference: str, name: str | None, repo_path: Path | None, architecture: str | None, output: str
) -> None:
    """Fetch an image into a repository. Policies that settings require judge it first.

    \b
    Example:
      cfs image pull oci:./debian:latest --name debian
    """
    from cfs_core.deploy import pull as ways
    from cfs_core.deploy.judge import judge
    from cfs_core.image.pull import tag_of
    from cfs_core.image.resolve import resolve

    transport, parsed = app.locate(reference)
    resolved = resolve(transport, parsed, wanted_platform(architecture))
    judged = judge(resolved, transport, app)
    with open_repository(app, repo_path, create=True) as repository:
        tree, fetched = ways.pull(judged, repository, app, verify=True)
        committed = repository.commit(tree, resolved, name=name or tag_of(reference))
    app.progress.close()
    if output == "json":
        show_json(documents.pulled(committed, fetched, judged.verified))
    else:
        say(f"{committed.manifest_digest}  {committed.id}")


@image.command("list")
@repo_option
@format_option
@click.pass_obj
def list_images(app: App, repo_path: Path | None, output: str) -> None:
    """List the images of a repository.

    \b
    Example:
      cfs image list --format json
    """
    with open_repository(app, repo_path) as repository:
        found = repository.images()
    if output == "json":
        show_json([documents.listed(each) for each in found])
        return
    rows = [(item.name, str(item.manifest_digest)[:19], (item.id or "-")[:16], item.architecture) for item in found]
    table(rows, ("NAME", "MANIFEST", "IMAGE ID", "ARCHITECTURE"))


@image.command()
@click.argument("name")
@repo_option
@click.pass_obj
def inspect(app: App, name: str, repo_path: Path | None) -> None:
    """Print what a repository knows of an image (tag, manifest digest or image id) as JSON.

    \b
    Example:
      cfs image inspect debian
    """
    with open_repository(app, repo_path) as repository:
        stored, manifest, config = repository.resolved(name)
    show_json(documents.inspected(stored, manifest, config))


@image.command("ls")
@click.argument("name")
@click.argument("path", default="/")
@repo_option
@click.pass_obj
def list_files(app: App, name: str, path: str, repo_path: Path | None) -> None:
    """List a directory of an image as it will be deployed.

    \b
    Example:
      cfs image ls debian /usr/lib/modules
    """
    from cfs_core.cli.listing import listing
    from cfs_core.system.foreign_text import one_line

    with open_repository(app, repo_path) as repository:
        shown = one_line if on_terminal() else str
        for line in listing(_deployed(repository, name), path):
            say(shown(line))


@image.command()
@click.argument("name")
@click.argument("path")
@repo_option
@click.pass_obj
def cat(app: App, name: str, path: str, repo_path: Path | None) -> None:
    """Print a file of an image.

    \b
    Example:
      cfs image cat debian /etc/os-release
    """
    import shutil

    from cfs_core.image.reader import ImageReader

    with open_repository(app, repo_path) as repository:
        out = BinaryResults()
        content = ImageReader(_deployed(repository, name), repository.content).content(path)
        if content is None:
            msg = f"{path} is not a file of {name}"
            raise UsageError(msg, hint=f"look with `cfs image ls {name} {path.rpartition('/')[0] or '/'}`")
        with content.open() as file:
            shutil.copyfileobj(file, out)
        out.flush()


def _deployed(repository: Repository, name: str) -> Directory:
    stored, _, _ = repository.resolved(name)
    if stored.id is None:
        msg = f"{name} has no image in this repository"
        raise StorageError(msg, hint="pull it again")
    return repository.open_tree(stored.id)


@image.command()
@click.argument("names", nargs=-1, required=True)
@repo_option
@click.pass_obj
def rm(app: App, names: tuple[str, ...], repo_path: Path | None) -> None:
    """Remove images by name; `cfs repo gc` then frees their space.

    \b
    Example:
      cfs image rm debian
    """
    with open_repository(app, repo_path) as repository:
        for name in names:
            repository.remove(name)


@image.command()
@click.argument("source")
@click.argument("destination")
@click.option("--architecture", help="Copy only this architecture of an index; everything by default.")
@authfile_option
@click.pass_obj
def copy(app: App, source: str, destination: str, architecture: str | None) -> None:
    """Copy an image from one place to another, byte for byte. Policies that settings require judge it first.

    \b
    Example:
      cfs image copy docker://localhost:5000/debian:latest oci:./debian:latest
    """
    from cfs_core.deploy import pull as ways
    from cfs_core.deploy.judge import judged_for_copy

    origin, reference = app.locate(source)
    target, name = app.locate(destination)
    platform = wanted_platform(architecture)
    judged = judged_for_copy(reference, origin, app, platform)
    say(ways.copy(judged, target, name, app))


image.add_command(check)
