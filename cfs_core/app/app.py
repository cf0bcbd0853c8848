"""The composition root: settings, plugins, logs, progress and host of one run, joined. Passed down, never global."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cfs_core.app.options import RunOptions
from cfs_core.errors import UsageError
from cfs_core.interfaces.command import CommandContext
from cfs_core.interfaces.context import PluginContext
from cfs_core.pluginhost import families
from cfs_core.report.logs import LEVELS, Logs
from cfs_core.report.progress import JsonProgress, SilentProgress
from cfs_core.system.environment import directory_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.config.settings import Settings
    from cfs_core.interfaces.command import Output
    from cfs_core.interfaces.fetcher import ImageLocation
    from cfs_core.interfaces.storage import StorageFormat
    from cfs_core.model.event import Event
    from cfs_core.pluginhost.families import Family
    from cfs_core.pluginhost.load import PluginHost
    from cfs_core.pluginhost.registry import PluginId
    from cfs_core.system.command import HostCommands

T = TypeVar("T")

DEFAULT_STORAGE = "composefs"
LATEST = (1 << 32) - 1
"""Seconds since 1970, in 2106: FAT ends a year later, and e2fsprogs takes its clock from 32 bits."""


class App(contextlib.AbstractContextManager["App"]):
    """The run. Everything costly is made when first asked for."""

    def __init__(self, environ: Mapping[str, str], options: RunOptions = RunOptions()) -> None:  # noqa: B008 - frozen
        self.environ = environ
        self.options = options
        self._warned: set[str] = set()
        self.stack = contextlib.ExitStack()
        self._logs: Logs | None = None
        self._settings: Settings | None = None
        self._host: PluginHost | None = None
        self._progress: SilentProgress | None = None
        self._commands: HostCommands | None = None
        self._scratch: Path | None = None

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.close()
        self.stack.close()

    def configure(self, **options: Any) -> None:  # noqa: ANN401 - the fields of RunOptions
        """Change options, by the names of `RunOptions`; what was made already stays as it is."""
        self.options = dataclasses.replace(self.options, **options)

    @property
    def logs(self) -> Logs:
        """The log on standard error."""
        if self._logs is None:
            asked = self.environ.get("CFS_LOG") or "warning"
            level = self.options.log_level or (asked if asked in LEVELS else "warning")
            self._logs = Logs(level=level, as_json=self.options.log_as_json)
            if asked not in LEVELS:
                self._logs.warning("setting.ignored", problem=f"CFS_LOG is {asked!r}; known: {', '.join(LEVELS)}")
        return self._logs

    @property
    def settings(self) -> Settings:
        """Settings of host and environment, and what `add_options` put above (image advice is added by the install)."""
        if self._settings is None:
            from cfs_core.config.settings import load

            self._settings = load(self.environ, file=self.options.config_file)
            for warning in self._settings.warnings:
                self.logs.warning("setting.ignored", problem=warning)
        return self._settings

    @property
    def host(self) -> PluginHost:
        """Installed plugins, loaded."""
        if self._host is None:
            from cfs_core.pluginhost.load import PluginHost

            disabled = (*self.options.disabled, *self.settings.value("plugins.disabled"))
            self._host = PluginHost(disabled=disabled)
            self._host.load_installed()
            for name in sorted(self._host.unknown):
                origin = self.settings.get("plugins.disabled").origin
                problem = f"{origin} switches off {name!r}, and no installed plugin or distribution is called that"
                self.logs.warning("setting.ignored", problem=problem)
            self._offer_hashers(self._host)
            self._report_tables()
            self.report_plugins()
        return self._host

    def _offer_hashers(self, host: PluginHost) -> None:
        """Let blocks be hashed by what plugins offer; nothing is asked or made before the first ones are."""
        from cfs_core.interfaces import block_hashing

        def offers() -> Iterator[block_hashing.Offer]:
            for name in host.collect(families.HASHERS).providers:
                yield block_hashing.Offer(name, functools.partial(self.make, families.HASHERS, name))

        def refuse(name: str, reason: str) -> None:
            self.logs.debug("hasher.refused", hasher=name, reason=reason)

        block_hashing.offer(offers, refuse)
        self.stack.callback(block_hashing.offer, tuple)

    def _report_tables(self) -> None:
        """Warn of tables of settings that no installed provider has."""
        from cfs_core.deploy.provider_settings import tables_of_nobody

        for problem in tables_of_nobody(self.settings, self._host) if self._host is not None else ():
            self.logs.warning("setting.ignored", problem=problem)

    def report_plugins(self) -> None:
        """Warn of what plugins did wrong, each once: ``plugin.skipped`` was not loaded, ``plugin.trouble`` was."""
        for trouble in self._host.trouble if self._host is not None and self.options.warn_of_plugins else ():
            if str(trouble) in self._warned:
                continue
            self._warned.add(str(trouble))
            facts: dict[str, object] = {"plugin": trouble.plugin.name, "distribution": trouble.plugin.distribution}
            facts |= {"version": trouble.plugin.version, "hook": trouble.hook, "problem": trouble.problem}
            event = "plugin.skipped" if trouble.hook is None and trouble.fatal else "plugin.trouble"
            self.progress.close()
            self.logs.warning(event, **facts)
            if trouble.cause is not None:
                self.logs.debug("plugin.cause", plugin=trouble.plugin.name, exc_info=trouble.cause)

    def blame(self, error: BaseException) -> PluginId | None:
        """Return the plugin that *error* came out of, None if it was none."""
        return self._host.blame(error) if self._host is not None else None

    def describe(self, owner: PluginId, error: BaseException) -> str:
        """Return what *error* says and where in *owner*'s code it came from."""
        return self.host.describe(owner, error)

    @property
    def commands(self) -> HostCommands:
        """The door to host commands."""
        if self._commands is None:
            from cfs_core.system.command import HostCommands

            self._commands = HostCommands(self.environ)
        return self._commands

    @property
    def progress(self) -> SilentProgress:
        """Bars, JSON lines or silence, as asked."""
        if self._progress is None:
            if self.options.progress_descriptor is not None:
                self._progress = JsonProgress(self.options.progress_descriptor)
            elif self.options.show_progress and os.isatty(2):
                from cfs_core.report.progress import TerminalProgress

                self._progress = TerminalProgress()
            else:
                self._progress = SilentProgress()
        return self._progress

    @property
    def scratch(self) -> Path:
        """A private directory that goes away with the run.

        Raises:
            HostError: TMPDIR is no place for one.
        """
        if self._scratch is None:
            from cfs_core.system.scratch import scratch_directory

            self._scratch = self.stack.enter_context(scratch_directory())
        return self._scratch

    @property
    def source_date_epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds.

        Raises:
            UsageError: not a number, or beyond what filesystems can hold.
        """
        text = self.environ.get("SOURCE_DATE_EPOCH")
        if not text:
            return None
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) > LATEST:
            msg = f"SOURCE_DATE_EPOCH must be seconds since 1970, at most {LATEST}, not {text!r:.40}"
            raise UsageError(msg, hint="set it to what `git log -1 --format=%ct` prints, or unset it")
        return int(text)

    def emit(self, event: Event) -> None:
        """Show an event to the log, to progress readers and to plugins that observe."""
        if event.warning:
            self.progress.close()
        self.logs.event(event)
        self.progress.event(event)
        self.host.notify(event)

    def context(
        self, provider: str, *, settings: Mapping[str, object] | None = None, seed: str | None = None
    ) -> PluginContext:
        """Return what *provider*'s factory is given."""
        return PluginContext(
            provider=provider,
            commands=self.commands,
            progress=self.progress,
            log=self.logs.bind(provider=provider),
            scratch=self.scratch,
            settings=settings or {},
            emit=self.emit,
            source_date_epoch=self.source_date_epoch,
            seed=seed,
            environ=self.environ,
            uid=os.getuid(),
        )

    def command_context(self, name: str, output: Output) -> CommandContext:
        """Return what the factory of the plugin's command *name* is given; its results go to *output*."""
        from cfs_core.examine.disk import opened_disk
        from cfs_core.examine.menus import boot_menus

        context = self._context_of(families.COMMANDS, name)
        return CommandContext(
            **{field.name: getattr(context, field.name) for field in dataclasses.fields(context)},
            output=output,
            boot_menus=functools.partial(boot_menus, self),
            open_disk=functools.partial(opened_disk, self),
        )

    def make(
        self,
        family: Family[Any],
        name: str,
        *,
        settings: Settings | None = None,
        seed: str | None = None,
    ) -> Any:  # noqa: ANN401 - typed by the callers below
        """Make the chosen provider of a family, with its table of *settings*.

        Raises:
            PluginError: see `PluginHost.make`.
            ConfigError: its table has a name that it does not declare, or a value of another kind.
        """
        return self.host.make(family, name, self._context_of(family, name, settings=settings, seed=seed))

    def _context_of(
        self,
        family: Family[Any],
        name: str,
        *,
        settings: Settings | None = None,
        seed: str | None = None,
        more: Mapping[str, object] | None = None,
    ) -> PluginContext:
        from cfs_core.deploy.provider_settings import settings_of

        section = settings_of(settings or self.settings, family, self.host.collect(family).get(name))
        return self.context(name, settings={**section, **(more or {})}, seed=seed)

    def add_options(self, options: Mapping[str, object]) -> None:
        """Put options of a command, by the names of the settings that they are, above all other settings."""
        from cfs_core.config.settings import options_layer

        self._settings = self.settings.with_layer(options_layer(options))

    def locate(self, text: str) -> ImageLocation:
        """Parse a reference, in the grammar of the transport that its scheme chooses.

        Raises:
            UsageError: no scheme, or one that no plugin has.
            PluginError: two plugins claim the scheme, or the plugin failed.
        """
        from cfs_core.interfaces.fetcher import Fetcher, ImageLocation
        from cfs_core.model.reference import split_scheme
        from cfs_core.pluginhost.schemes import owner_of

        scheme, _ = split_scheme(text)
        name = owner_of(scheme, self.host.collect(families.TRANSPORTS))
        more = {"authfile": str(self.options.authfile)} if self.options.authfile is not None else {}
        context = self._context_of(families.TRANSPORTS, name, more=more)
        fetcher = Fetcher(self.host.make(families.TRANSPORTS, name, context), context.retrier)
        self.stack.callback(fetcher.close)
        return ImageLocation(fetcher, fetcher.parse(text))

    def storage(self, name: str | None = None) -> StorageFormat:
        """Return a storage format: the one called *name*, of ``install.storage``, composefs, or the only one.

        What identifies and keeps images is composefs unless somebody says otherwise; what an install puts on a disk is
        chosen by `choose_storage`, which asks where there is a choice.

        Raises:
            PluginError: none is installed, or several without composefs are and nothing chooses one.
        """
        from cfs_core.deploy.choose import choose_storage

        registry = self.host.collect(families.STORAGE)
        chosen = name or self.settings.value("install.storage")
        if not chosen:
            chosen = (
                DEFAULT_STORAGE if DEFAULT_STORAGE in registry else choose_storage(self.settings, registry, {}).value
            )
        made: StorageFormat = self.make(families.STORAGE, chosen)
        return made

    def default_repository(self) -> Path:
        """Return where images are kept: ``--repo``, the setting, or the user's cache."""
        configured = self.settings.value("repo")
        if configured:
            return Path(configured)
        # The cache and not the data directory: all of it can be fetched again, and no disk that was made needs it.
        cache = directory_of(self.environ, "XDG_CACHE_HOME", ".cache")
        if cache is None:
            msg = "there is no HOME to keep images in, or it is not an absolute path"
            raise UsageError(msg, hint="name a repository with --repo PATH")
        return cache / "cfs" / "repo"
