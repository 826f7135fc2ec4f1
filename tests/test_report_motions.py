"""What a report measures on clips, against what it must be by construction."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from motionsynth.errors import InputError
from motionsynth.motion import Motion
from motionsynth.report import Run
from motionsynth.report.clips import BUDGET, MOST_PER_CLASS, player_data
from motionsynth.report.motions import nearest_training_clips, projections, violations
from motionsynth.stick_figure import level
from tests.tiny_report import CLASS_NAMES, MADE_PER_CLASS, run_in_memory


@pytest.fixture(scope="module")
def run() -> Run:
    return run_in_memory()


def with_clips(run: Run, clips: list[Motion]) -> Run:
    made = run.sets[0]
    return replace(run, sets=[replace(made, motions=replace(made.motions, motions=tuple(clips)))])


def copies(run: Run) -> list[Motion]:
    """The training clips themselves, as synthetic ones."""
    return [
        replace(m, source="synthetic", sample_id=f"copy-{m.sample_id}", generator="motion_gan")
        for m in run.sets[0].bed.train.motions
    ]


def test_a_copy_is_at_distance_zero_from_its_source(run: Run) -> None:
    made = with_clips(run, copies(run)).sets[0]
    for label in range(3):
        near = nearest_training_clips(made, label)
        assert near.distances.max() < 1e-5
        for clip, parent in zip(near.clips, near.parents, strict=True):
            found = made.bed.train.motions[parent].sample_id
            assert made.motions.motions[clip].sample_id == f"copy-{found}"


def test_another_view_of_a_take_is_no_floor(run: Run) -> None:
    bed = run.sets[0].bed
    made = replace(run.sets[0], bed=replace(bed, train=bed.full))
    near = nearest_training_clips(made, 0)
    # Every take is there from two views: the same body, turned, and so at distance zero but for rounding.
    assert len(near.floor) == (bed.full.labels == 0).sum() > 3
    assert near.floor.min() > 0.01


def test_copies_lie_where_their_sources_lie(run: Run) -> None:
    seen = list(projections(with_clips(run, copies(run)), "motion_gan"))
    assert [p.label for p in seen] == [0, 1, 2]
    for p in seen:
        assert len(p.seen) == 3 == len(p.synthetic) and len(p.unseen) > 0 and 0 < p.share <= 1
        np.testing.assert_allclose(p.synthetic, p.seen, atol=1e-5)


def test_tsne_keeps_copies_beside_their_sources_and_classes_apart(run: Run) -> None:
    both = replace(with_clips(run, copies(run)), projection="tsne")
    for p in projections(both, "motion_gan"):
        points = np.concatenate([p.seen, p.unseen])
        own = np.linalg.norm(p.synthetic - p.seen, axis=1)
        spread = np.linalg.norm(points - points.mean(0), axis=1).mean()
        assert np.isfinite(points).all() and (own < spread).all() and np.isnan(p.share)
    again = [p.synthetic for p in projections(both, "motion_gan")]
    assert all(
        np.array_equal(a, p.synthetic) for a, p in zip(again, projections(both, "motion_gan"), strict=True)
    )


def test_unknown_projections_and_missing_libraries_are_one_sentence(run: Run, monkeypatch) -> None:
    with pytest.raises(InputError, match="Unknown projection 'umap'. Known: pca, tsne"):
        next(projections(replace(run, projection="umap"), "motion_gan"))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(InputError, match="tsne needs scikit-learn, .*pip install 'motionsynth.tsne.'"):
        next(projections(replace(run, projection="tsne"), "motion_gan"))


def test_violations_tell_shaken_clips_from_real_ones(run: Run) -> None:
    noise = np.random.default_rng(0)
    shaken = [
        replace(m, positions=(m.positions + noise.normal(0, 0.3, m.positions.shape)).astype(np.float32))
        for m in copies(run)
    ]
    calm, wild = (violations(with_clips(run, clips), "motion_gan") for clips in (copies(run), shaken))
    assert [v.label for v in calm] == [0, 1, 2]
    assert all(
        c.synthetic < 0.1 < 0.5 < w.synthetic and c.real == w.real for c, w in zip(calm, wild, strict=True)
    )


def test_the_player_gets_the_clips_as_they_are(run: Run) -> None:
    data = player_data(run)
    assert [c["name"] for c in data["classes"]] == list(CLASS_NAMES)
    made = {f"{m.sample_id}": m for m in run.sets[0].motions.motions}
    skeleton = run.sets[0].bed.train.skeleton
    for entry in data["classes"]:
        assert len(entry["synthetic"]) == min(MOST_PER_CLASS, MADE_PER_CLASS) and 1 <= len(entry["real"]) <= 3
        for at in entry["synthetic"]:
            clip = data["clips"][at]
            assert clip["nearest"] in entry["real"] and clip["distance"] >= 0
            source = made[
                clip["title"].removeprefix(f"{clip['generator']}, ").removeprefix("interpolation, ")
            ]
            shape = clip["persons"], clip["frames"], skeleton.num_joints, 3
            packed = np.frombuffer(base64.b64decode(clip["data"]), "<i2").reshape(shape) * clip["scale"]
            whole = level(source.positions, skeleton)
            # First and last frame stay; a metre is packed to a tenth of a millimetre.
            np.testing.assert_allclose(packed[:, [0, -1]], whole[:, [0, -1]], atol=2e-4)
            assert (clip["frames"] - 1) / clip["fps"] == pytest.approx(
                (source.num_frames - 1) / source.fps, abs=1e-3
            )


def test_many_classes_stay_within_the_budget(run: Run) -> None:
    made = run.sets[0]
    names = tuple(f"class {i}" for i in range(400))

    def many(clips: tuple[Motion, ...]) -> tuple[Motion, ...]:
        own = [m for m in clips if m.label == 0][:2]
        return tuple(replace(m, label=i, label_name=n) for i, n in enumerate(names) for m in own)

    bed = replace(
        made.bed,
        train=replace(made.bed.train, class_names=names, motions=many(made.bed.train.motions)),
        rare=tuple(range(400)),
    )
    synthetic = replace(made.motions, class_names=names, motions=many(made.motions.motions))
    big = replace(
        run,
        result={**run.result, "class_names": list(names)},
        sets=[replace(made, bed=bed, motions=synthetic)],
    )
    data = player_data(big)
    assert sum(len(c["data"]) for c in data["clips"]) <= BUDGET * 1.05 and 50 < len(data["classes"]) < 400
