"""Whatever a sample id holds, its file lies in the folder it was meant for, and is its own."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from motionsynth.file_names import file_name


@given(st.text())
@example("../../etc/passwd")
@example("/abs")
@example("..")
@example("")
@example("-rf")
@example("CON.txt")
@example("a\\b\x00c\n")
@example("\ud800")
@example("x" * 500)
def test_no_id_leaves_the_folder(sample_id: str) -> None:
    name = file_name(sample_id)
    assert name and "/" not in name and "\\" not in name and name not in (".", "..") and name.isprintable()
    assert not name.startswith((".", "-", "~")) and len(name.encode()) <= 120
    assert name.split(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1", "lpt9")


@given(st.lists(st.text("aA./_ x", max_size=5), unique=True, max_size=30))
def test_every_id_has_its_own_name_also_where_case_is_ignored(ids: list[str]) -> None:
    taken: set[str] = set()
    for i in ids:
        name = file_name(i, taken).lower()
        assert name not in taken
        taken.add(name)


def test_ordinary_ids_stay_as_they_are() -> None:
    for i in ("a01_s01_e00_v01", "S001C001P001R001A001", "syn-0f3a-c002-000001"):
        assert file_name(i) == i
    assert file_name("a/b") != file_name("a_b") == "a_b"
