"""The command ``cfs``: makes the run, hands it down, turns errors into messages and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cfs_core import __version__
from cfs_core.app.app import App
from cfs_core.cli.groups import LazyGroup, PipeBrokenError
from cfs_core.cli.host_faults import host_fault
from cfs_core.cli.output import progress_fd_option
from cfs_core.cli.terminal import safe_terminals
from cfs_core.errors import CfsError, HostError, PluginError
from cfs_core.report.logs import LEVELS
from cfs_core.system.foreign_text import printable, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

INTERRUPTED = 130
BROKEN_PIPE = 141
"""Whoever read the result is gone: as a shell tells of a program that SIGPIPE ended."""

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMANDS = {
    "install": "cfs_core.cli.install:install",
    "status": "cfs_core.cli.status:status",
    "upgrade": "cfs_core.cli.upgrade:upgrade",
    "switch": "cfs_core.cli.upgrade:switch",
    "rollback": "cfs_core.cli.upgrade:rollback",
    "deployments": "cfs_core.cli.deployments:deployments",
    "kargs": "cfs_core.cli.kargs:kargs",
    "config-diff": "cfs_core.cli.kargs:config_diff",
    "usr-overlay": "cfs_core.cli.kargs:usr_overlay",
    "edit": "cfs_core.cli.kargs:edit",
    "gc": "cfs_core.cli.deployments:gc",
    "fsck": "cfs_core.cli.fsck:fsck",
    "finalize": "cfs_core.cli.upgrade:finalize",
    "boot": "cfs_core.cli.boot:boot",
    "image": "cfs_core.cli.image:image",
    "repo": "cfs_core.cli.repo:repo",
    "plugins": "cfs_core.cli.plugins:plugins",
    "config": "cfs_core.cli.config:config",
    "completion": "cfs_core.cli.completion:completion",
}

SUMMARIES = {
    "install": "Install an image to a disk.",
    "status": "Show deployments: image, boot entries, what was verified.",
    "upgrade": "Stage the next version of what this machine follows.",
    "switch": "Stage another image, and follow that one.",
    "rollback": "Make the previous deployment start next.",
    "deployments": "List deployments, pin or remove one.",
    "kargs": "Show and change kernel arguments.",
    "config-diff": "Show what differs in /etc from the image.",
    "usr-overlay": "Make /usr writable until the next start.",
    "edit": "Change what this machine follows.",
    "gc": "Free what nothing on this machine needs.",
    "fsck": "Check this machine, and mend what can be.",
    "finalize": "Make what is staged the default (at shutdown).",
    "boot": "Tell what became of a boot (from units).",
    "image": "Digests, pulling, looking into images.",
    "repo": "Make, check and clean repositories.",
    "plugins": "Show plugins and what is wrong with them.",
    "config": "Show settings and where they come from.",
    "completion": "Print shell completion code.",
}


def _kept(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that keeps an option in the run, before the commands of plugins are looked up."""

    def keep(context: click.Context, _parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - the option's type
        context.obj.configure(**{field: value})

    return keep


def _disable(context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Keep what is switched off, if there is such a plugin.

    Raises:
        UsageError: there is none.
    """
    if value:
        from cfs_core.cli.suggest import refuse_unknown_plugins

        refuse_unknown_plugins(value)
    context.obj.configure(disabled=value)


@click.group(cls=LazyGroup, commands_by_name=COMMANDS, summaries=SUMMARIES, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="cfs", message="%(prog)s %(version)s")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_kept("config_file"),
    help="Settings file.",
)
@click.option(
    "--disable-plugin",
    multiple=True,
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_disable,
    help="Do not load this plugin.",
)
@click.option(
    "--log-level",
    type=click.Choice(sorted(LEVELS)),
    is_eager=True,
    expose_value=False,
    callback=_kept("log_level"),
    help="What is logged to standard error.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    is_eager=True,
    expose_value=False,
    callback=lambda context, _parameter, value: context.obj.configure(log_as_json=value == "json"),
    help="Form of the log.",
)
@progress_fd_option
@click.option(
    "--no-progress",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _parameter, value: context.obj.configure(show_progress=not value),
    help="No progress bars.",
)
def cli() -> None:
    """Install bootable container images with composefs-native storage.

    \b
    Example:
      cfs install to-disk --source-imgref oci:./debian:latest disk.img
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    A subclass because CPython ends the process by SIGINT, whatever was caught, once a bare KeyboardInterrupt has left
    code that it compiled from a string (a dataclass being made).
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    try:
        status = run(argv)
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status if _delivered() else status or HostError.exit_status)


def _delivered() -> bool:
    """Write what standard output still holds; if it cannot be, keep the interpreter from trying again and telling."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the rest of the process
        return False
    return True


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (see docs/reference/errors)."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # what nohup wants
            signal.signal(number, _interrupt)
    with safe_terminals(), App(os.environ) as app:
        try:
            try:
                result: Any = cli.main(args=argv, prog_name="cfs", standalone_mode=False, obj=app)
            finally:  # before an error: that is what ends the output
                app.report_plugins()
        except CfsError as error:
            show(error, app)
            return error.exit_status
        except click.exceptions.Abort:
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except PipeBrokenError as error:
            return BROKEN_PIPE if _reader_gone() else _unexpected(error.__cause__ or error, app)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the last door: whose fault is it?
            return _unexpected(error, app)
        return result if isinstance(result, int) else 0


def _reader_gone() -> bool:
    """Say whether nobody reads standard output any more."""
    import select

    watch = select.poll()
    watch.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _unexpected(error: BaseException, app: App) -> int:
    """Tell a fault of a plugin from one of cfs, and report it as such."""
    owner = app.blame(error)
    if isinstance(error, OSError) and (fault := host_fault(error, owner)) is not None:
        fault.__cause__ = error
        show(fault, app)
        return fault.exit_status
    if owner is None and isinstance(error, SystemExit):  # click ends shell completion this way
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if owner is None:
        wrapped = CfsError(f"unexpected {what}", hint="this is a fault of cfs; --log-level debug shows where")
    else:
        hint = f"report it to the authors of {owner.distribution}; --log-level debug shows where"
        wrapped = PluginError(
            f"the plugin {owner} failed: {app.describe(owner, error)}", hint=hint, facts={"plugin": owner.name}
        )
    wrapped.__cause__ = error
    show(wrapped, app)
    return wrapped.exit_status


def show(error: CfsError, app: App) -> None:
    """Print what went wrong and what to do."""
    app.progress.close()
    app.logs.debug("run.failed", code=error.code, exc_info=error, facts=error.facts)
    click.echo(f"{click.style('error', fg='red', bold=True)}: {_shown(error.message)} [{error.code}]", err=True)
    if error.hint:
        click.echo(f"{click.style('hint', fg='cyan')}: {_shown(error.hint)}", err=True)


def _shown(text: str) -> str:
    return printable(without_secrets(text))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the clean-up that follows is not interrupted again
    raise Interrupted
