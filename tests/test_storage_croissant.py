"""Croissant metadata: valid by mlcroissant, and every column of the schema described."""

from __future__ import annotations

import sys

import pytest

from motionsynth.errors import InputError
from motionsynth.motion import MotionSet
from storage.croissant import CONTEXT, MEANING, File, check_croissant, croissant
from storage.header import Header
from storage.schema import arrow_schema

FILES = [File(key="data/a.parquet", bytes=12, sha256="0" * 64)]


def metadata(tiny_set: MotionSet) -> dict:
    return croissant(
        Header.of(tiny_set),
        FILES,
        name="Tiny",
        description="Clips.",
        licence="https://spdx.org/licenses/MIT.html",
        cite="Us.",
        version="1.0.0",
        url="https://example.org/tiny",
        date="2026-11-25",
        biases="Few people.",
    )


def test_it_is_valid_without_a_warning(tiny_set: MotionSet) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    assert check_croissant(metadata(tiny_set)) is True
    read = mlcroissant.Dataset(metadata(tiny_set)).metadata
    assert not read.issues.errors and not read.issues.warnings
    assert read.data_biases == ["Few people."] or read.data_biases == "Few people."
    fields = {f.name: f for f in read.record_sets[0].fields}
    assert fields["motion"].array_shape_tuple == (-1, -1, 20, 3) and "label" in fields


@pytest.mark.parametrize("damage", ["type", "source", "url"])
def test_what_mlcroissant_refuses_is_refused(tiny_set: MotionSet, damage: str) -> None:
    pytest.importorskip("mlcroissant")
    broken = metadata(tiny_set)
    match damage:
        case "type":
            broken["recordSet"][0]["field"][0].pop("dataType")
        case "source":
            broken["recordSet"][0]["field"][0]["source"]["fileSet"] = {"@id": "nothing"}
        case "url":
            broken["distribution"][1].pop("contentUrl")
    with pytest.raises(InputError, match="Croissant metadata is not valid") as e:
        check_croissant(broken)
    assert "\n" not in str(e.value)


def test_without_the_library_it_says_that_it_was_not_checked(
    tiny_set: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    assert check_croissant(metadata(tiny_set)) is False


def test_every_column_has_a_meaning_and_the_context_is_one_vocabulary(tiny_set: MotionSet) -> None:
    assert list(MEANING) == arrow_schema(Header.of(tiny_set)).names
    assert CONTEXT["arrayShape"] == "cr:arrayShape"
