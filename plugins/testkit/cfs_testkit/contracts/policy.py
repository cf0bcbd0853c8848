"""The contract of policies: they say no when in doubt, say why, and do not fetch what they judge."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from cfs_core.plugin import CfsError, ConfigError, Policy, PolicyVerdict
from cfs_core.testing import families
from cfs_testkit.contracts.base import Contract
from cfs_testkit.memory_transport import MemoryFetcher

if TYPE_CHECKING:
    from cfs_core.plugin import PluginContext


class PolicyContract(Contract):
    """What a policy must do. Give `acceptable` and `unacceptable`."""

    family = families.POLICIES

    @pytest.fixture
    def acceptable(self) -> MemoryFetcher:
        """Return a transport with an image that the policy, with its settings, accepts."""
        pytest.fail("give a fixture `acceptable`")

    @pytest.fixture
    def unacceptable(self) -> MemoryFetcher:
        """Return a transport with an image that it refuses."""
        pytest.fail("give a fixture `unacceptable`")

    def verdict(self, made: Policy, transport: MemoryFetcher) -> PolicyVerdict:
        """Ask as core does: an error means no."""
        image = transport.resolved()
        transport.fetched.clear()
        try:
            return made.judge(image, transport)
        except CfsError as error:
            return PolicyVerdict(accepted=False, reason=error.message)

    def test_accepts_what_it_should(self, made: Policy, acceptable: MemoryFetcher) -> None:
        """A fit image is accepted, with a reason that people can read."""
        verdict = self.verdict(made, acceptable)
        assert isinstance(verdict, PolicyVerdict)
        assert verdict.accepted is True, verdict.reason
        assert verdict.reason.strip()

    def test_refuses_what_it_should(self, made: Policy, unacceptable: MemoryFetcher) -> None:
        """An unfit image is refused, with a reason that people can read."""
        verdict = self.verdict(made, unacceptable)
        assert isinstance(verdict, PolicyVerdict)
        assert verdict.accepted is False
        assert verdict.reason.strip()

    def test_proves_nothing_of_what_it_refuses(self, made: Policy, unacceptable: MemoryFetcher) -> None:
        """What was verified is listed for accepted images only: it goes into the installed system's records."""
        assert self.verdict(made, unacceptable).verified == ()

    def test_says_what_was_verified_in_words(self, made: Policy, acceptable: MemoryFetcher) -> None:
        """What was verified is a tuple of lines."""
        verified = self.verdict(made, acceptable).verified
        assert isinstance(verified, tuple)
        assert all(text.strip() and "\n" not in text for text in verified)

    def test_judges_the_same_every_time(
        self, made: Policy, acceptable: MemoryFetcher, unacceptable: MemoryFetcher
    ) -> None:
        """The same image has the same verdict, whatever was judged in between."""
        first = [self.verdict(made, transport) for transport in (acceptable, unacceptable)]
        again = [self.verdict(made, transport) for transport in (unacceptable, acceptable)]
        assert first == again[::-1]

    def test_fetches_no_layer(self, made: Policy, acceptable: MemoryFetcher, unacceptable: MemoryFetcher) -> None:
        """A verdict comes before the layers are fetched, and does not fetch them."""
        for transport in (acceptable, unacceptable):
            self.verdict(made, transport)
            assert not set(transport.fetched) & set(transport.image.layers)

    def test_an_unreachable_source_is_no_yes(self, made: Policy, unacceptable: MemoryFetcher) -> None:
        """If signatures or attestations cannot be fetched, the answer is no."""
        image = unacceptable.resolved()
        unacceptable.transport.reachable = False
        try:
            verdict = made.judge(image, unacceptable)
        except CfsError:
            return
        assert verdict.accepted is False

    def test_unknown_settings_are_refused(
        self, offered: Any, context: PluginContext, acceptable: MemoryFetcher
    ) -> None:
        """A setting with a typing error is ConfigError: a rule that is not applied must not look applied."""
        wrong = dataclasses.replace(context, settings={**context.settings, "no-such-setting": True})
        with pytest.raises(ConfigError):
            offered.factory(wrong).judge(acceptable.resolved(), acceptable)

    def test_judging_prints_nothing(
        self, made: Policy, acceptable: MemoryFetcher, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Standard output is for results of cfs."""
        capfd.readouterr()
        self.verdict(made, acceptable)
        assert capfd.readouterr().out == ""
