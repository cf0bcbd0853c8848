"""Results on standard output: text for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

import click

from cfs_core.cli.terminal import exact
from cfs_core.documents.values import plain
from cfs_core.errors import HostError, UsageError
from cfs_core.interfaces.command import OutputFormat
from cfs_core.system.foreign_text import printable

if TYPE_CHECKING:
    from cfs_core.model.plan import Finding

_RESULTS = "cfs.results"

F = TypeVar("F", bound=Callable[..., Any])


class ResultCommand(click.Command):
    """A command whose standard output holds what it says and nothing else: prints of others go to standard error."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the callback returns
        """Run the command."""
        ctx.meta[_RESULTS] = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return super().invoke(ctx)


class ResultGroup(click.Group):
    """A group of such commands."""

    command_class = ResultCommand


def results() -> TextIO | None:
    """Return the stream for results; None where standard output was closed before the start."""
    context = click.get_current_context(silent=True)
    stream: TextIO | None = context.meta.get(_RESULTS, sys.stdout) if context is not None else sys.stdout
    return stream


def on_terminal() -> bool:
    """Return whether results go to a terminal: names are then shown, and else written as they are."""
    stream = results()
    return stream is not None and stream.isatty()


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line of the result, or one for people on standard error.

    Raises:
        HostError: it cannot be written.
        BrokenPipeError: whoever read it is gone.
    """
    if err:
        click.echo(printable(str(text)), err=True)
        return
    with _written():
        stream = _opened()
        line = f"{text}\n"
        try:
            stream.write(line)
        except UnicodeEncodeError:  # a name that is no valid text
            stream.flush()
            stream.buffer.write(exact(line, stream.encoding))
        stream.flush()


@contextlib.contextmanager
def only_results() -> Iterator[None]:
    """Keep standard output for what `say` and `show_json` print; prints of others go to standard error."""
    click.get_current_context().meta.setdefault(_RESULTS, sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        yield


class CommandOutput:
    """The `Output` of a plugin's command. *asked* returns what ``--format`` says, once that is known."""

    def __init__(self, asked: Callable[[], str]) -> None:
        self._asked = asked

    @property
    def format(self) -> OutputFormat:
        """What ``--format`` asks for."""
        return OutputFormat(self._asked())

    def say(self, text: str) -> None:
        """Print a line of a result in text; what a terminal would obey in it is shown instead."""
        say(_visible(text))

    def show(self, value: object) -> None:
        """Print the result as the one JSON document."""
        show_json(value)

    def tell(self, text: str) -> None:
        """Print a line about what is going on to standard error; nothing where programs read the result."""
        if self.format is OutputFormat.TEXT:
            say(_visible(text), err=True)


def _visible(text: str) -> str:
    """Return *text* with every character that is not to be seen as its escape in Python."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class BinaryResults:
    """Standard output for bytes; what is written must be flushed. A terminal is shown them as text."""

    def __init__(self) -> None:
        self._buffer: BinaryIO | None = None

    def _opened(self) -> BinaryIO:
        if self._buffer is None:
            self._buffer = _opened().buffer
        return self._buffer

    def write(self, data: bytes) -> int:
        """Write all of *data*.

        Raises:
            HostError: it cannot be written.
            BrokenPipeError: whoever read it is gone.
        """
        with _written():
            return self._opened().write(data)

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            HostError: it cannot be written.
            BrokenPipeError: whoever read it is gone.
        """
        with _written():
            self._opened().flush()


def _opened() -> TextIO:
    stream = results()
    if stream is None:
        msg = "standard output is closed"
        raise HostError(msg, hint="results are written there; give it a file or a pipe")
    return stream


@contextlib.contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as cause:
        msg = f"standard output cannot be written: {cause.strerror}"
        raise HostError(msg, hint="results are written there; what has been written is not complete") from cause


class NamedPath(click.Path):
    """A path; the empty name, which a forgotten shell variable leaves, is not taken for the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click.Path
        """Check the name."""
        if os.fspath(value) == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


def progress_fd_option(command: F) -> F:
    """Add ``--progress-fd N``, which is kept in the run."""

    def keep(context: click.Context, _parameter: click.Parameter, value: int | None) -> None:
        if value is None:
            return
        import fcntl

        try:
            writable = fcntl.fcntl(value, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        except (OSError, OverflowError, ValueError):
            writable = False
        if not writable:
            msg = f"--progress-fd {value}: no such descriptor is open for writing"
            raise UsageError(msg, hint="open one in the shell, for example with 3>progress.jsonl --progress-fd 3")
        context.obj.configure(progress_descriptor=value)

    return click.option(
        "--progress-fd",
        type=int,
        metavar="N",
        callback=keep,
        expose_value=False,
        help="Write progress as JSON lines to this descriptor.",
    )(command)


def format_option(command: F) -> F:
    """Add ``--format text|json``."""
    option = click.option(
        "--format",
        "output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the result.",
    )
    return option(command)


def erofs_option(command: F) -> F:
    """Add ``--erofs VERSION``, which is ``version``."""
    return click.option(
        "--erofs",
        "version",
        type=click.Choice(["v0", "v1", "v2"]),
        default="v1",
        show_default=True,
        help="Version of EROFS images.",
    )(command)


def hash_option(command: F) -> F:
    """Add ``--hash ALGORITHM``, which is ``algorithm``."""
    return click.option(
        "--hash",
        "algorithm",
        type=click.Choice(["sha256", "sha512"]),
        default="sha512",
        show_default=True,
        help="Hash of fs-verity.",
    )(command)


def repo_option(command: F) -> F:
    """Add ``--repo PATH``."""
    option = click.option("--repo", "repo_path", type=NamedPath(path_type=Path), help="Repository to use.")
    return option(command)


def platform_option(command: F) -> F:
    """Add ``--architecture``."""
    text = "Architecture to choose (default: this machine's where there is a choice)."
    return click.option("--architecture", help=text)(command)


def authfile_option(command: F) -> F:
    """Add ``--authfile FILE``, which goes to the transport."""

    def keep(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.obj.configure(authfile=value)

    return click.option(
        "--authfile",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=keep,
        expose_value=False,
        help="Credentials for registries.",
    )(command)


def show_json(value: object) -> None:
    """Print one JSON document."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    say(text.encode("utf-8", "backslashreplace").decode())  # surrogates become what JSON writes for them


def table(rows: Sequence[tuple[str, ...]], headings: tuple[str, ...]) -> None:
    """Print left-aligned columns."""
    if not rows:
        return
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    for row in [headings, *rows]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_found(findings: Iterable[Finding]) -> None:
    """Print what an examination found, a line each, and what to do about it."""
    for found in findings:
        say(f"{found.code}: {found.where}: {found.message}")
        if found.hint:
            say(f"  hint: {found.hint}")
