"""Bring your own: any skeleton dataset as one pickle in pyskl's annotation format, no code needed.

The clips' class, name and joints come from `annotations`, the train and test lists from `split`; subject and
camera from optional fields `subject` and `view` of each annotation, else from the clip's name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from motionsynth.datasets.ntu import NAME
from motionsynth.errors import InputError
from motionsynth.formats.pyskl_pickle import Annotation, PysklFile, read_pyskl_pickle, write_pyskl_pickle
from motionsynth.motion import Motion, MotionSet
from motionsynth.skeleton import Skeleton
from motionsynth.splits import Split, halve_people, partition

logger = logging.getLogger(__name__)

_TRAIN = re.compile(r"^(?P<head>.*?)_?train_?(?P<tail>\d*)$")
_HELD_OUT = ("val", "test")
_DEFAULTS = {
    "subject": r"^S\d{3}C\d{3}P(\d{3})R\d{3}A\d{3}$",
    "view": r"^S\d{3}C(\d{3})P\d{3}R\d{3}A\d{3}$",
}
"""NTU file names; used when all clips of a pickle have one."""


def pyskl_motions(
    path: Path,
    skeleton: Skeleton,
    class_names: Sequence[str] | None = None,
    subject_pattern: str | None = None,
    view_pattern: str | None = None,
    fps: float = 30.0,
) -> tuple[MotionSet, tuple[Split, ...]]:
    """All clips of a pickle, and the splits that its lists define.

    Args:
        path: The pickle. The dataset is named after the file.
        skeleton: The joints, in the order of the pickle's joint axis.
        class_names: Name per label; default: the pickle's own `class_names`, else "class 0", "class 1", ...
        subject_pattern: Regular expression with one group, searched in each clip's name, whose group is the
            subject; wins over the field `subject`. Default: the field, else NTU's names.
        view_pattern: The same for the camera.
        fps: Frames per second of every clip; the format does not say.

    Returns:
        The clips, in file order, and one `Split` by clip name per pair of lists: `xsub_train` with `xsub_val`
        (or `xsub_test`) becomes "xsub", `train1` with `test1` "split1", `train` with `val` "default". Without any list
        people are halved (`splits.halve_people`).

    Raises:
        InputError: the pickle cannot be read (see `read_pyskl_pickle`), a clip does not fit the skeleton or
            the class names, a pattern does not fit a clip, the lists do not pair up, or there are neither lists nor
            subjects.
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"Frames per second must be a positive number; got {fps}.")
    content = read_pyskl_pickle(path)
    clips = content.annotations
    names = _class_names(content, class_names, path)
    for clip in clips:
        if clip.keypoint.shape[2] != skeleton.num_joints:
            raise InputError(
                f"Clip '{clip.name}' of pickle '{path}' has {clip.keypoint.shape[2]} joints; skeleton "
                f"'{skeleton.name}' has {skeleton.num_joints}: give the skeleton that these poses were recorded with."
            )
    subjects = _identity(clips, "subject", subject_pattern, path)
    views = _identity(clips, "view", view_pattern, path)
    dataset = Path(path).stem
    motions = tuple(
        Motion(
            positions=clip.keypoint,
            fps=fps,
            skeleton=skeleton.name,
            label=clip.label,
            label_name=names[clip.label],
            sample_id=clip.name,
            dataset=dataset,
            subject=subject,
            view=view,
        )
        for clip, subject, view in zip(clips, subjects, views, strict=True)
    )
    halves = None if content.split else halve_people(subjects, [clip.label for clip in clips])
    splits = (halves,) if halves else _splits(content, path)
    return MotionSet(dataset=dataset, skeleton=skeleton, class_names=names, motions=motions), splits


def pyskl_file(motions: MotionSet, splits: Sequence[Split] = ()) -> PysklFile:
    """Clips, real or synthetic, as pyskl and `pyskl_motions` know them.

    Args:
        motions: The clips.
        splits: Written as `<name>_train` and `<name>_val` lists of clip names.

    Raises:
        InputError: a split has an empty side.
    """
    lists: dict[str, tuple[str, ...]] = {}
    for split in splits:
        for side, indices in zip(("train", "val"), partition(motions, split), strict=True):
            lists[f"{split.name}_{side}"] = tuple(motions.motions[i].sample_id for i in indices)
    annotations = tuple(
        Annotation(name=m.sample_id, label=m.label, keypoint=m.positions, subject=m.subject, view=m.view)
        for m in motions.motions
    )
    return PysklFile(annotations=annotations, split=lists, class_names=motions.class_names)


def write_pyskl(path: Path, motions: MotionSet, splits: Sequence[Split] = (), dtype: str = "float32") -> None:
    """Write clips to a file, which is replaced if it exists; see `pyskl_file` and `pyskl_pickle_bytes`."""
    write_pyskl_pickle(path, pyskl_file(motions, splits), dtype)


def _class_names(content: PysklFile, given: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    top = max(content.annotations, key=lambda a: a.label)
    names = tuple(given if given is not None else content.class_names)
    if not names and given is None:
        return tuple(f"class {k}" for k in range(top.label + 1))
    if top.label >= len(names):
        raise InputError(
            f"Clip '{top.name}' of pickle '{path}' has label {top.label}, but there are only {len(names)} class names; "
            f"give one name for each label from 0 to {top.label}."
        )
    if len(set(names)) != len(names):
        raise InputError(f"The class names of pickle '{path}' are not unique; give each class its own name.")
    return names


def _identity(clips: Sequence[Annotation], field: str, pattern: str | None, path: Path) -> list[str]:
    """One text per clip, from the pattern, the field or NTU's names; all "" if there is none of them."""
    if pattern is None:
        values = [getattr(clip, field) for clip in clips]
        if all(values):
            return values
        if any(values):
            lacking = clips[values.index("")].name
            raise InputError(
                f"Clip '{lacking}' of pickle '{path}' lacks the field '{field}' that others have; give it to every "
                f"clip, or give a {field} pattern."
            )
        if not all(re.fullmatch(NAME, clip.name) for clip in clips):
            return values
        pattern = _DEFAULTS[field]
    try:
        compiled = re.compile(pattern)
    except re.error as e:
        raise InputError(
            f"The {field} pattern '{pattern}' is not a regular expression ({e}); mend it."
        ) from None
    if compiled.groups != 1:
        raise InputError(
            f"The {field} pattern '{pattern}' has {compiled.groups} groups; put one pair of parentheses around the "
            f"{field} (and write others as (?:...))."
        )
    found = []
    for clip in clips:
        match = compiled.search(clip.name)
        if match is None or not match[1]:
            raise InputError(
                f"The {field} pattern '{pattern}' does not find a {field} in the clip name '{clip.name}' of pickle "
                f"'{path}'; mend the pattern."
            )
        found.append(match[1])
    return found


def _splits(content: PysklFile, path: Path) -> tuple[Split, ...]:
    known = {clip.name for clip in content.annotations}
    splits, used = [], set()
    for train in content.split:
        if (match := _TRAIN.match(train)) is None:
            continue
        head, tail = match["head"], match["tail"]
        held_out = _held_out(content.split, train)
        if held_out is None:
            continue
        used |= {train, held_out}
        name = head + tail if head else f"split{tail}" if tail else "default"
        splits.append(_split(name, content, train, held_out, known, path))
    if unpaired := sorted(set(content.split) - used):
        logger.warning(
            "Pickle '%s': the lists %s have no partner and are not used.", path, ", ".join(unpaired)
        )
    if not splits:
        has = f"only the lists {', '.join(sorted(content.split))}" if content.split else "no lists"
        # Without any list a subject would do.
        subject = (
            ""
            if content.split
            else "; or name the subject of each clip (--subject-pattern), and people are halved"
        )
        raise InputError(
            f"Pickle '{path}' has {has} in 'split'; it needs a pair such as xsub_train and xsub_val, train and val, or "
            f"train1 and test1, each a list of clip names{subject}."
        )
    return tuple(splits)


def _held_out(split: Mapping[str, Sequence[str]], train: str) -> str | None:
    """The partner of a training list. pyskl's `val` is what it reports on, so `test` wins where both "
    "exist."""
    at = train.rindex("train")
    names = [train[:at] + word + train[at + len("train") :] for word in reversed(_HELD_OUT)]
    return next((n for n in names if n in split), None)


def _split(name: str, content: PysklFile, train: str, held_out: str, known: set[str], path: Path) -> Split:
    lists = {}
    for side in (train, held_out):
        # A list may name clips that the file lacks: unusable ones are dropped after the lists are made.
        lists[side] = tuple(dict.fromkeys(c for c in content.split[side] if c in known))
        if not lists[side]:
            example = f"; it begins with '{content.split[side][0]}'" if content.split[side] else ""
            raise InputError(
                f"Split list '{side}' of pickle '{path}' names no clip of the file{example}: list the clips' frame_dir."
            )
        if lost := len(set(content.split[side])) - len(lists[side]):
            logger.warning("Pickle '%s': %d names of list '%s' are not in the file.", path, lost, side)
    return Split(
        name=name,
        by="sample_id",
        train=lists[train],
        test=lists[held_out],
        note=f"The lists {train} and {held_out} of {Path(path).name}.",
    )
