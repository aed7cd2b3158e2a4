"""The signals' list, which everything else is indexed by."""

from __future__ import annotations

import numpy as np

from detector.evidence import EvidenceRule
from detector.rates import DEFAULT_RATES
from detector.signals import CHANNELS, FIRST_CHANNEL, LEVELS, SIGNALS, Outcomes, Signal


def test_the_out_of_domain_levels_come_first_and_every_signal_has_a_channel() -> None:
    assert [channel.level for channel in CHANNELS[: len(LEVELS)]] == list(LEVELS)
    assert {channel.signal for channel in CHANNELS[: len(LEVELS)]} == {Signal.OUT_OF_DOMAIN}
    assert [CHANNELS[place].signal for place in FIRST_CHANNEL] == list(SIGNALS)
    assert CHANNELS[FIRST_CHANNEL[0]].level == 0.05
    assert [channel.level for channel in CHANNELS[len(LEVELS) :]] == [None] * 3


def test_channels_are_named_as_people_name_them() -> None:
    assert [str(channel) for channel in CHANNELS] == [
        "out of domain at 0.05",
        "out of domain at 0.01",
        "out of domain at 0.002",
        "coverage",
        "perturbation",
        "boundary",
    ]


def test_weights_and_defaults_are_one_a_channel() -> None:
    assert len(EvidenceRule().weights) == len(DEFAULT_RATES.channels) == len(CHANNELS)
    assert len(DEFAULT_RATES.allowance) == len(SIGNALS)
    assert all(rate.mean < rate.allowance < rate.bound for rate in DEFAULT_RATES.channels)


def test_a_hit_that_was_certain_is_no_observation() -> None:
    outcomes = Outcomes(
        np.array([[True, True, False]]), np.array([[0.5, 1.0, 0.5]]), np.zeros((1, len(SIGNALS)))
    )
    assert outcomes.observed.tolist() == [[True, False, False]]
