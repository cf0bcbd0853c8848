"""The image to install when none is named: the one of the container that cfs runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import UsageError
from cfs_core.interfaces.transport import RunningImage
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.provider import TransportProvider


def ask(provider: TransportProvider) -> RunningImage | None:
    """Ask one transport for the image this process runs in.

    Raises:
        TypeError: it answers with something else.
    """
    found: object = provider.running_image() if provider.running_image is not None else None
    if found is not None and not isinstance(found, RunningImage):
        msg = f"returned {type(found).__name__}, not RunningImage"
        raise TypeError(msg)
    return found


def running_image(services: Services) -> RunningImage:
    """Return the image of the container that cfs runs in; a plugin that fails is told of, and passed over.

    Raises:
        UsageError, TransportError: as `find_running_image`.
    """
    registry = services.host.collect(families.TRANSPORTS)

    def guarded(provider: TransportProvider) -> RunningImage | None:
        return services.host.attempt(registry.owner(provider.name), "running_image", ask, provider)

    return find_running_image(registry, guarded)


def find_running_image(
    providers: Iterable[TransportProvider], ask: Callable[[TransportProvider], RunningImage | None] = ask
) -> RunningImage:
    """Ask each transport for the image this process runs in.

    Raises:
        UsageError: not in a container, or in one that does not tell its image.
        TransportError: the image is known, and the store that holds it is not here.
    """
    for provider in providers:
        found = ask(provider)
        if found is not None:
            return found
    msg = "no image is named, and this is not a container of one"
    raise UsageError(msg, hint="name it with --source-imgref REF, or run cfs inside the container to be installed")
