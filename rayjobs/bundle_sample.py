"""Makes the bundled real sample, `motionsynth/datasets/sample/`, from the raw UI-PRMD files.

    python -m rayjobs.bundle_sample --raw path/to/ui_prmd

All 2,000 clips (20 classes, 10 people), made small in two ways: every second frame (15 per second) and
coordinates rounded to 1/1024 m, an error of at most 0.5 mm, far below the sensor's. A power of two leaves
most bits of a float32 zero, which zstd then removes: 6.3 MB in all, 15 MB without the rounding. Same raw
files and same pyarrow: the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from motionsynth.datasets import SAMPLE, get_dataset
from motionsynth.errors import InputError
from motionsynth.motion import Motion, MotionSet, invalid_reason
from motionsynth.skeleton import get_skeleton
from storage.dataset import write_dataset
from storage.header import Header
from storage.paths import Storage

FRAME_STEP = 2
GRID = 1024
"""Coordinates become multiples of 1 / GRID metres."""
ROWS_PER_SHARD = 500
NOTE = f"Reduced copy: every {FRAME_STEP}nd frame, coordinates rounded to 1/{GRID} m."


def reduce(motion: Motion) -> Motion:
    """Every `FRAME_STEP`-th frame, coordinates rounded to 1 / `GRID` m."""
    positions = np.round(motion.positions[:, ::FRAME_STEP] * GRID) / GRID
    return replace(motion, positions=positions.astype(np.float32), fps=motion.fps / FRAME_STEP)


def bundle(raw: Path, out: Path) -> int:
    """Write the sample as a prepared dataset; what lay in `out` is replaced, but for its licence.

    Args:
        raw: Folder of the raw UI-PRMD files.
        out: Folder of the sample.

    Returns:
        Its size in bytes.

    Raises:
        InputError: a raw file is missing or not valid.
    """
    info = get_dataset("ui_prmd")
    skeleton = get_skeleton(info.skeleton)
    motions = tuple(reduce(info.read(path)) for path in info.find(raw))
    for motion in motions:
        if reason := invalid_reason(motion, skeleton):
            raise InputError(
                f"Clip '{motion.sample_id}' cannot be bundled: {reason}; mend or remove its raw file."
            )
    whole = MotionSet(dataset=info.name, skeleton=skeleton, class_names=info.class_names, motions=motions)
    header = Header.of(
        whole,
        splits=tuple(split.to_dict() for split in info.splits),
        title=info.title,
        citation=info.citation,
        terms=info.terms,
        note=NOTE,
    )
    shutil.rmtree(out / "shards", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    write_dataset(Storage(out), "", whole, header, ROWS_PER_SHARD, replace=True)
    return sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rayjobs.bundle_sample", description="Make the bundled sample."
    )
    parser.add_argument("--raw", type=Path, required=True, help="folder of the raw UI-PRMD files")
    parser.add_argument(
        "--out", type=Path, default=SAMPLE, help="folder of the sample (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        size = bundle(options.raw, options.out)
    except InputError as e:
        print(e, file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{options.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
