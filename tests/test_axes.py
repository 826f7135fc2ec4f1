"""Own data of other axes and units: turned without exchanging left and right, and noticed where nobody said so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from motionsynth.axes import UNITS, UP, check_axes, doubts, to_metres_y_up, torso
from motionsynth.errors import InputError
from motionsynth.skeleton import get_skeleton
from tests.tiny_motion import make_tiny_set

KINECT20 = get_skeleton("kinect20")
WALKS = [m.positions for m in make_tiny_set().motions[:8]]


def given_as(positions: np.ndarray, up: str, unit: str) -> np.ndarray:
    """What `to_metres_y_up` should make into `positions`."""
    return (positions @ np.array(UP[up], float)) / UNITS[unit]


@pytest.mark.parametrize(("up", "unit"), list(itertools.product(UP, UNITS)))
def test_what_is_turned_comes_back_and_its_up_points_up(up: str, unit: str) -> None:
    odd = given_as(WALKS[0], up, unit)
    axis = "xyz".index(up[-1])
    high, low = (odd[..., KINECT20.index(j), axis].mean() for j in ("head", "pelvis"))
    assert (high - low) * (-1 if up.startswith("-") else 1) > 0
    made = to_metres_y_up(odd, up, unit)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, WALKS[0], atol=1e-5)
    # Right-handed stays right-handed.
    assert np.linalg.det(np.array(UP[up])) == pytest.approx(1)
    assert not to_metres_y_up(np.zeros((1, 2, 20, 3)), up, unit).any()


@pytest.mark.parametrize(("up", "unit"), list(itertools.product(UP, UNITS)))
def test_wrong_axes_and_units_are_noticed_with_their_cure(up: str, unit: str) -> None:
    said = " ".join(doubts([torso(given_as(x, up, unit), KINECT20) for x in WALKS]))
    assert (f"give --up {up}." in said) == (up != "y")
    assert (f"give --unit {unit}." in said) == (unit != "m")
    assert (said == "") == ((up, unit) == ("y", "m"))


def test_some_lying_people_absences_and_broken_frames_raise_no_doubt() -> None:
    lying = [given_as(x, "z", "m") for x in WALKS[:3]]
    assert doubts([torso(x, KINECT20) for x in (*lying, *WALKS[3:])]) == []
    broken = WALKS[0].copy()
    broken[:, :5], broken[:, 6:8] = 0, np.nan
    np.testing.assert_allclose(torso(broken, KINECT20), torso(WALKS[0], KINECT20), atol=0.02)
    assert doubts([torso(np.zeros_like(broken), KINECT20)]) == doubts([]) == []
    assert doubts([torso(3 * x, KINECT20) for x in WALKS])[0].endswith("which is no person's.")


def test_unknown_axes_and_units_name_those_there_are() -> None:
    with pytest.raises(InputError, match="--up is 'w'; allowed: y, -y, z"):
        check_axes("w", "m")
    with pytest.raises(InputError, match="--unit is 'ft'; allowed: m, cm, mm"):
        check_axes("y", "ft")
