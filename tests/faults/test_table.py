"""The report on the faults."""

from tests.faults.table import Cost, table


def test_a_fault_of_several_runs_is_one_row() -> None:
    made = [Cost(fault="a", seconds=s, found="all", how="to go on") for s in (3.0, 1.5)]
    made.insert(1, Cost(fault="b", seconds=2.0, found="all", says="why"))
    assert table(made).splitlines()[2:] == [
        "| a | all | 1.5 to 3 s to go on | - |",
        "| b | all | 2 s | why |",
    ]
