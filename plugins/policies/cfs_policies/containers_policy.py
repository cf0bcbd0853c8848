"""What policy.json demands of an image; every requirement of the list that applies must be met, any error means no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import Policy, PolicyVerdict
from cfs_policies.documents import DocumentError
from cfs_policies.lookaside import signatures
from cfs_policies.names import intended_name
from cfs_policies.policy_json import load_policy
from cfs_policies.scopes import scopes, transport_name
from cfs_policies.sigstore import attached, load_keys, verify
from cfs_policies.simple_signing import ATOMIC, COSIGN, Keyring, SignatureInvalidError, parse_claim

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.plugin import CommandRunner, Fetcher, ResolvedImage
    from cfs_policies.places import Places
    from cfs_policies.policy_json import Identity, PolicyFile, Requirement
    from cfs_policies.simple_signing import Claim


class ContainersPolicy(Policy):
    """Reads policy.json anew for each judgement."""

    def __init__(self, places: Places, commands: CommandRunner, scratch: Path) -> None:
        self._places = places
        self._commands = commands
        self._scratch = scratch

    def judge(self, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
        """Decide by the most specific scope of policy.json.

        Raises:
            CfsError: the policy or a signature cannot be read; that means no as well.
        """
        scope, requirements = _applicable(load_policy(self._places.policy), image)
        verified: list[str] = []
        for requirement in requirements:
            verdict = self._meet(requirement, image, transport)
            if not verdict.accepted:
                return PolicyVerdict(accepted=False, reason=f"{self._places.policy}, {scope}: {verdict.reason}")
            verified += verdict.verified
        return PolicyVerdict(accepted=True, reason=f"{self._places.policy}, {scope}", verified=tuple(verified))

    def _meet(self, requirement: Requirement, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
        match requirement.kind:
            case "insecureAcceptAnything":
                return PolicyVerdict(accepted=True, reason="anything is accepted")
            case "signedBy":
                return self._signed_by(requirement, image)
            case "sigstoreSigned":
                return _sigstore_signed(requirement, image, transport)
            case _:
                return PolicyVerdict(accepted=False, reason="such images are rejected")

    def _signed_by(self, requirement: Requirement, image: ResolvedImage) -> PolicyVerdict:
        named = intended_name(image.canonical)
        if transport_name(image.canonical) != "docker" or named is None or requirement.keys is None:
            return PolicyVerdict(accepted=False, reason=f"{image.canonical.scheme}: has no signatures")
        refused = []
        with Keyring(requirement.keys.read(), self._commands, self._scratch) as keyring:
            for number, signature in enumerate(signatures(named, image.manifest.digest, self._places), 1):
                try:
                    payload, fingerprint = keyring.verify(signature)
                    claim = parse_claim(payload, ATOMIC)
                    _check_claim(claim, image, requirement.identity)
                except SignatureInvalidError as error:
                    refused.append(f"signature {number}: {error}")
                    continue
                return _accepted(f"signed by OpenPGP key {fingerprint} as {claim.reference}")
        return _unsigned(refused)


def _sigstore_signed(requirement: Requirement, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
    keys = load_keys(requirement.keys.read() if requirement.keys else [])
    refused = []
    for number, (payload, signature) in enumerate(attached(image, transport), 1):
        try:
            name = verify(payload, signature, keys)
            claim = parse_claim(payload, COSIGN)
            _check_claim(claim, image, requirement.identity)
        except SignatureInvalidError as error:
            refused.append(f"signature {number}: {error}")
            continue
        return _accepted(f"signed by sigstore key {name} as {claim.reference}")
    return _unsigned(refused)


def _applicable(policy: PolicyFile, image: ResolvedImage) -> tuple[str, tuple[Requirement, ...]]:
    name = transport_name(image.canonical)
    table = policy.transports.get(name)
    if table is not None:
        for scope in scopes(image.canonical):
            if scope in table:
                return f"transport {name} scope {scope!r}", table[scope]
    return "default", policy.default


def _check_claim(claim: Claim, image: ResolvedImage, identity: Identity) -> None:
    if claim.digest != str(image.manifest.digest):
        msg = f"it is for {claim.digest:.80}, not for this manifest"
        raise SignatureInvalidError(msg)
    try:
        accepted = identity.accepts(intended_name(image.canonical), claim.reference)
    except DocumentError as error:
        raise SignatureInvalidError(str(error)) from error
    if not accepted:
        msg = f"it is for an image named {claim.reference!r:.200}"
        raise SignatureInvalidError(msg)


def _accepted(proof: str) -> PolicyVerdict:
    return PolicyVerdict(accepted=True, reason=proof, verified=(proof,))


def _unsigned(refused: list[str]) -> PolicyVerdict:
    reason = "no acceptable signature: " + ("; ".join(refused[:5]) if refused else "there is none")
    return PolicyVerdict(accepted=False, reason=reason)
