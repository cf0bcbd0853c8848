"""Only images whose reference names a digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import ConfigError, Digest, ImageError, Policy, PolicyVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.plugin import Fetcher, ResolvedImage


@dataclass(frozen=True, slots=True)
class DigestPinned(Policy):
    """``allowed`` None: any digest will do, as long as the reference names one."""

    allowed: frozenset[Digest] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Read the setting ``digests``.

        Raises:
            ConfigError: unknown setting, or not a list of digests.
        """
        if unknown := sorted(set(settings) - {"digests"}):
            msg = f"unknown setting policy.settings.digest-pinned.{unknown[0]}"
            raise ConfigError(msg, hint="known is digests")
        digests = settings.get("digests")
        if digests is None:
            return cls()
        if not isinstance(digests, list | tuple):
            msg = f"policy.settings.digest-pinned.digests is {digests!r}, not a list"
            raise ConfigError(msg)
        try:
            return cls(frozenset(Digest.parse(each) for each in digests))
        except ImageError as error:
            msg = f"policy.settings.digest-pinned.digests: {error}"
            raise ConfigError(msg, hint=error.hint) from error

    def judge(self, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
        """Accept what is named by digest, and is on the list if there is one."""
        del transport
        named = image.reference.digest
        if self.allowed is not None:
            found = next((each for each in (named, image.manifest.digest) if each in self.allowed), None)
            if found is None:
                reason = f"{image.manifest.digest} is not on the list of allowed digests"
                return PolicyVerdict(accepted=False, reason=reason)
            return _accepted(found)
        if named is None:
            reason = f"{image.reference} names no digest: write it with @{image.manifest.digest}"
            return PolicyVerdict(accepted=False, reason=reason)
        return _accepted(named)


def _accepted(digest: Digest) -> PolicyVerdict:
    return PolicyVerdict(accepted=True, reason=f"pinned to {digest}", verified=(f"pinned to {digest}",))
