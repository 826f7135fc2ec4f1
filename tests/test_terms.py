"""What the terms of sources allow: the strictest of them decides, and the refusal quotes it."""

from __future__ import annotations

import itertools

import pytest

from motionsynth.datasets import DATASETS
from motionsynth.errors import InputError
from motionsynth.terms import STRICTNESS, grant, known_source, spdx


def test_terms_and_what_they_allow_stand_together() -> None:
    for info in DATASETS.values():
        assert info.redistribution in STRICTNESS and info.terms.strip() and info.sensor
        # A licence is what allows it; without one nothing does.
        assert bool(info.licence) is (info.redistribution == "allowed") is info.may_redistribute
        assert not info.licence or spdx(info.licence) == info.licence
    named = {name: info.redistribution for name, info in DATASETS.items()}
    assert named["ui_prmd"] == "allowed" and named["nucla"] == named["sbu"] == "unstated"
    assert {r for n, r in named.items() if n.startswith("ntu")} == {"forbidden"}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["ui_prmd", "nucla", "ntu60"], 2)))
def test_the_strictest_source_decides(first: str, second: str) -> None:
    sources = [DATASETS[first], DATASETS[second]]
    strictest = max(sources, key=lambda i: STRICTNESS.index(i.redistribution))
    with pytest.raises(InputError) as e:
        grant("The clips", sources, [], licence="CC-BY-4.0")
    assert strictest.terms in str(e.value) and strictest.title in str(e.value) and "\n" not in str(e.value)
    if strictest.redistribution == "unstated":
        got = grant("The clips", sources, [], right="Both\nauthors agreed.")
        assert got.right == "Both authors agreed."
    else:
        with pytest.raises(InputError, match="whose terms forbid it"):
            grant("The clips", sources, [], right="I asked.")


def test_allowed_sources_bring_their_licence_or_take_another() -> None:
    assert grant("x", [DATASETS["ui_prmd"]], []).licence == "PDDL-1.0"
    assert grant("x", [DATASETS["ui_prmd"]], [], licence="cc-by-4.0").licence == "CC-BY-4.0"


def test_own_data_need_a_licence_also_beside_known_ones() -> None:
    for known in ([], [DATASETS["ui_prmd"]]):
        with pytest.raises(InputError, match="come from 'mine'.*--license SPDX"):
            grant("The clips", known, ["mine"])
        assert grant("The clips", known, ["mine"], licence="MIT").licence == "MIT"
    # Nor does a claim replace it: own data have no terms that a claim could be about.
    with pytest.raises(InputError, match="--license SPDX"):
        grant("The clips", [DATASETS["nucla"]], ["mine"], right="I asked.")


@pytest.mark.parametrize("wrong", ["my own", "CC-BY", "PDDL 1.0", "GPL-9.0"])
def test_what_is_no_licence(wrong: str) -> None:
    with pytest.raises(InputError, match="no SPDX licence identifier"):
        grant("x", [], ["mine"], licence=wrong)
    assert spdx("LicenseRef-lab") == "LicenseRef-lab"


def test_clips_of_ntu_are_known_by_their_names_whatever_the_dataset_is_called() -> None:
    ids = ["S001C001P001R001A050", "S018C002P008R001A106"]
    assert known_source("mine", ids) is DATASETS["ntu120"]
    assert known_source("mine", [*ids, "other"]) is None and known_source("mine") is None
    assert known_source("sbu", ids) is DATASETS["sbu"]
