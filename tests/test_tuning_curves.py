"""The picture of a study is really rendered and looked at."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from motionsynth.errors import InputError
from tests.tiny_studies import random_trials, rung, stored, trial
from tuning.curves import response_curves, running_median

Image = pytest.importorskip("PIL.Image")


def share(v: dict) -> float:
    return 0.7 - abs(v["synthetic_share"] - 0.4)


def drawn(study, dpi: int = 60) -> np.ndarray:
    buffer = BytesIO()
    response_curves(study, buffer, dpi=dpi)
    return np.asarray(Image.open(BytesIO(buffer.getvalue())).convert("RGB")).astype(int)


def blue(image: np.ndarray) -> np.ndarray:
    """Pixels of finished trials: nothing else is coloured but the best, text and lines are nearly grey."""
    return image[..., 2] - image[..., 0] > 55


def red(image: np.ndarray) -> np.ndarray:
    """Pixels of the best trial."""
    return image[..., 0] - image[..., 2] > 90


def grey(image: np.ndarray) -> np.ndarray:
    """Pixels of hollow dots and the line of the default."""
    return np.abs(image - [0x8B, 0x95, 0xA1]).max(-1) < 12


def test_a_running_median_is_in_order_and_does_not_see_outliers() -> None:
    x = np.arange(30.0)[::-1].copy()
    y = 2 * x
    y[7] = 1e6
    at, found = running_median(x, y)
    assert (np.diff(at) > 0).all() and len(at) == 21
    assert found == pytest.approx(2 * at, abs=2)
    assert len(running_median(x[:7], y[:7])[0]) == 0


def test_every_axis_has_a_panel_with_its_dots_and_the_best(tmp_path: Path) -> None:
    four = drawn(stored(tmp_path / "4", random_trials(30, share)))
    quarter = four.shape[1] // 4
    for i in range(4):
        panel = four[:, i * quarter : (i + 1) * quarter]
        assert blue(panel).sum() > 50 and red(panel).sum() > 5
    few = drawn(stored(tmp_path / "few", random_trials(5, share)))
    assert blue(few).sum() < 0.5 * blue(four).sum()


def test_trials_that_stopped_are_hollow_and_none_is_best_before_one_has_finished(tmp_path: Path) -> None:
    trials = [trial(i, [rung(0.5 + i / 100, 0.33)], {"synthetic_share": 0.1 + i / 100}) for i in range(12)]
    stopped = drawn(stored(tmp_path / "stopped", trials), dpi=150)
    assert not blue(stopped).any() and not red(stopped).any()
    for t in trials:
        t["rungs"].append(rung(t["rungs"][0]["rare_recall"]))
    finished = drawn(stored(tmp_path / "finished", trials), dpi=150)
    assert blue(finished).sum() > 500 and grey(stopped).sum() > 1.3 * grey(finished).sum()


def test_the_zero_of_a_weight_has_a_place_of_its_own(tmp_path: Path) -> None:
    """Dots at 0 stand left of all others; without such a place they could not be drawn on a logarithmic axis."""

    def leftmost(value: float) -> int:
        study = stored(
            tmp_path / str(value), [trial(i, [rung(0.5)], {"loss_weights.flow": value}) for i in range(3)]
        )
        image = drawn(study, dpi=100)
        panel = image[: -image.shape[0] // 5, : image.shape[1] // 4]
        at = blue(panel) | red(panel)
        return int(np.flatnonzero(at.any(0))[0])

    assert leftmost(0.0) + 5 < leftmost(0.01) < leftmost(1.0)


def test_many_axes_wrap_and_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    axes = [
        {"name": f"a{i}", "kind": "linear", "default": 0.5, "low": 0.0, "high": 1.0, "choices": None}
        for i in range(6)
    ]
    values = {a["name"]: 0.3 for a in axes}
    wrapped = drawn(stored(tmp_path / "6", [trial(0, [rung(0.5)], values)], axes=axes))
    assert wrapped.shape[0] > 0.4 * wrapped.shape[1]
    with pytest.raises(InputError, match="nothing to draw"):
        drawn(stored(tmp_path / "0", [trial(0, [])]))
