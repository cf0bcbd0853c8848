"""Policies that are wrong."""

from mutant import mutant

P = "policy.py"
ACCEPT = 'return PolicyVerdict(accepted=True, reason="all labels are as required", verified=verified)'
REFUSE = "return PolicyVerdict(accepted=False, reason="
JUDGE = "        del transport\n"

MUTANTS = (
    mutant(
        "says no always",
        "accepts_what_it_should",
        (P, "accepted=True", "accepted=False"),
        (P, ", verified=verified", ""),
    ),
    mutant(
        "says yes always",
        "refuses_what_it_should",
        (P, "if found != value:", "if False:"),
        also=("proves_nothing_of_what_it_refuses", "an_unreachable_source_is_no_yes"),
    ),
    mutant(
        "gives no reason",
        "refuses_what_it_should",
        (P, 'reason=f"the label {name} is {found!r:.80}, not {value!r:.80}"', 'reason=""'),
    ),
    mutant(
        "claims proof of what it refuses",
        "proves_nothing_of_what_it_refuses",
        (P, REFUSE, 'return PolicyVerdict(verified=("x",), accepted=False, reason='),
    ),
    mutant("lists no lines", "says_what_was_verified_in_words", (P, "verified = tuple(f", "verified = list(f")),
    mutant(
        "changes its mind",
        "judges_the_same_every_time",
        (P, JUDGE, JUDGE + '        self.count = getattr(self, "count", 0) + 1\n'),
        (P, 'reason="all labels are as required"', 'reason=f"verdict {self.count}"'),
    ),
    mutant(
        "fetches what it judges",
        "fetches_no_layer",
        (P, JUDGE, "        list(transport.iter_blob(image.reference, image.manifest.layers[0]))\n"),
    ),
    mutant(
        "takes silence for a yes",
        "an_unreachable_source_is_no_yes",
        (
            P,
            JUDGE,
            "        from cfs_core.plugin import TransportError\n        try:\n"
            "            transport.referrers(image.reference, image.manifest.digest)\n        except TransportError:\n"
            '            return PolicyVerdict(accepted=True, reason="nobody says otherwise")\n',
        ),
    ),
    mutant("overlooks typing errors", "unknown_settings_are_refused", (P, "        if unknown:", "        if False:")),
    mutant("prints its verdict", "judging_prints_nothing", (P, JUDGE, JUDGE + '        print("judging")\n')),
)
