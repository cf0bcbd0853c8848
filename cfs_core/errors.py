"""Errors of cfs: each has a stable code, an exit status, a message and a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class CfsError(Exception):
    """Something cfs can explain.

    ``message`` says what is wrong with which value, ``hint`` what to do about it, ``facts`` are the
    machine-readable details that go into logs and ``--format json`` results; any name is one for a fact. ``code`` is
    the class's unless one that says more is given.
    """

    code: str = "internal"
    exit_status: int = 1
    advice: str | None = None
    """The hint of an error that was raised without one: what to do about any error of this class."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.advice if hint is None else hint
        self.facts = dict(facts or {})
        if code is not None:
            self.code = code


class UsageError(CfsError):
    """The command line contradicts itself or asks for something that does not exist."""

    code = "usage"
    exit_status = 2


class ConfigError(CfsError):
    """A settings file is unreadable, has an unknown key or a value of the wrong type."""

    code = "config"
    exit_status = 3
    advice = "`cfs config show` lists the settings in force and where each comes from"


class PluginError(CfsError):
    """A plugin that this run needs is missing, broken, withheld or breaks its contract."""

    code = "plugin"
    exit_status = 4


class RefusedError(CfsError):
    """The request is understood and would do harm: target in use, too small, not confirmed."""

    code = "refused"
    exit_status = 5


class TransportError(CfsError):
    """An image could not be fetched.

    ``transient`` says that another attempt may help, ``retry_after`` how many seconds the source asks to wait first.
    """

    code = "transport"
    exit_status = 6
    advice = "`--log-level debug` shows what was asked for and answered"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        facts: Mapping[str, object] | None = None,
        transient: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, facts=facts)
        self.transient = transient
        self.retry_after = retry_after


class NotFoundError(TransportError):
    """The transport works and has no such image, tag, manifest or blob."""

    code = "transport.not-found"


class UnauthorizedError(TransportError):
    """The source wants credentials and got none, or does not know these."""

    code = "transport.unauthorized"


class ForbiddenError(TransportError):
    """The credentials are known and do not allow this."""

    code = "transport.forbidden"


class RateLimitedError(TransportError):
    """The source asks to wait longer than this run is willing to."""

    code = "transport.rate-limited"


class TransferTimeoutError(TransportError):
    """The source went silent, or sends too slowly to ever end."""

    code = "transport.timeout"


class UnreachableError(TransportError):
    """No connection: wrong name, nobody listening, connection reset."""

    code = "transport.unreachable"


class TlsError(TransportError):
    """The connection is not trustworthy: certificate, host name or protocol."""

    code = "transport.tls"


class ServerError(TransportError):
    """The source failed on its side, or does not speak the protocol."""

    code = "transport.server"


class TruncatedError(TransportError):
    """A transfer ended early, again and again."""

    code = "transport.truncated"


class ContentTypeError(TransportError):
    """The answer is something else than what was asked for: a login page, a proxy's error text."""

    code = "transport.content-type"


class BlockedError(TransportError):
    """Configuration forbids this source."""

    code = "transport.blocked"


class ChangedError(TransportError):
    """The image was changed or removed while it was read."""

    code = "transport.changed"


class VerificationError(CfsError):
    """Bytes are not what their digest, size or signature says. Never retried silently."""

    code = "verification"
    exit_status = 7
    advice = "fetch it again; if it stays so, somebody changed it: do not use it"


class ImageError(CfsError):
    """The image itself is malformed, over a limit or not installable."""

    code = "image"
    exit_status = 8
    advice = "tell whoever made the image; `cfs image check` shows what else is wrong with it"


class LimitError(ImageError):
    """A named limit of what cfs reads from outside was exceeded."""

    code = "image.limit"
    advice = "nothing that is meant to be installed is that large; ask whoever made it"


class StorageError(CfsError):
    """A repository is damaged, locked, of an unknown format, or out of space."""

    code = "storage"
    exit_status = 9
    advice = "`cfs repo fsck` shows what is damaged"


class DiskError(CfsError):
    """A partition table or filesystem could not be made, read or checked."""

    code = "disk"
    exit_status = 10
    advice = "`cfs repo fsck --disk` shows what of a disk can be read; one that cannot is made again"


class DiskFullError(DiskError):
    """A volume, or the filesystem a disk image is written to, has too little room (facts ``needed``, ``available``)."""

    code = "disk.full"


class BootError(CfsError):
    """The result would not boot, did not boot, or its boot files are not what they should be."""

    code = "boot"
    exit_status = 11


class StateError(CfsError):
    """Deployment state on a target is missing, contradictory or damaged."""

    code = "state"
    exit_status = 12


class CommandError(CfsError):
    """A host command is missing or failed."""

    code = "command"
    exit_status = 13
    advice = "run the command by hand to see more, or install its package again"


class HostError(CfsError):
    """A file, directory or stream of this host cannot be used: not there, not allowed, no room, a broken device."""

    code = "host"
    exit_status = 14
