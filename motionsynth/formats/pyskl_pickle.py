"""pyskl's annotation pickle: a dict of `split` (name -> clip names) and `annotations` (one dict per clip).

Used by pyskl, mmaction2 and their descendants, for NTU RGB+D and for people's own data. Coordinates are
metres with y up for Kinect data. 2-D files (pixels) are refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.formats.restricted_pickle import read_pickle


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotation:
    """One clip.

    Attributes:
        name: `frame_dir` (or `filename`).
        label: Class index, from 0.
        keypoint: float32 [M, T, V, 3], metres; an absent person is zeros.
        subject, view: Optional fields of the same name, as text; "" where absent.
    """

    name: str
    label: int
    keypoint: np.ndarray
    subject: str = ""
    view: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PysklFile:
    """The content of one pickle.

    Attributes:
        annotations: The clips.
        split: Split name, for example `xsub_train`, to clip names.
        class_names: Optional key of the same name; empty where absent.
    """

    annotations: tuple[Annotation, ...]
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def read_pyskl_pickle(path: Path) -> PysklFile:
    """Read an annotation pickle without running any code in it.

    Raises:
        InputError: not such a pickle, damaged, malicious (the refused function is named), 2-D, or a clip is
            not [persons, frames, joints, 3].
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or "annotations" not in content:
        got = (
            f"a dict of {sorted(map(str, content))[:6]}"
            if isinstance(content, dict)
            else f"a {_kind(content)}"
        )
        raise InputError(
            f"Pickle '{path}' holds {got}; pyskl's format is a dict with 'annotations' (a list) and 'split' (a dict)."
        )
    annotations = content["annotations"]
    if not isinstance(annotations, (list, tuple)) or not annotations:
        raise InputError(
            f"Pickle '{path}' has 'annotations' without clips; it must be a list of dicts, one per clip."
        )
    clips = tuple(_annotation(a, i, path) for i, a in enumerate(annotations))
    seen: set[str] = set()
    for clip in clips:
        if clip.name in seen:
            raise InputError(f"Pickle '{path}' names two clips '{clip.name}'; frame_dir must be unique.")
        seen.add(clip.name)
    names = content.get("class_names") or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise InputError(
            f"Pickle '{path}' has 'class_names' that are not a list of texts; mend or remove it."
        )
    return PysklFile(annotations=clips, split=_split(content.get("split"), path), class_names=tuple(names))


def pyskl_pickle_bytes(content: PysklFile, dtype: str = "float32") -> bytes:
    """An annotation pickle that pyskl and plain `pickle.load` read, with numpy 1.x as well as 2.x.

    Args:
        content: Clips and splits.
        dtype: "float32", or "float16" as in pyskl's released files (half the size, 1 to 2 mm at 3 m).

    Raises:
        InputError: another dtype.
    """
    if dtype not in ("float16", "float32"):
        raise InputError(f"Unknown keypoint type '{dtype}'. Known: float16, float32.")
    annotations = []
    for a in content.annotations:
        keypoint = np.ascontiguousarray(a.keypoint, dtype)
        entry: dict[str, Any] = {
            "frame_dir": a.name,
            "label": int(a.label),
            "total_frames": keypoint.shape[1],
        }
        entry["keypoint"] = keypoint
        entry |= {k: v for k, v in (("subject", a.subject), ("view", a.view)) if v}
        annotations.append(entry)
    whole: dict[str, Any] = {
        "split": {k: list(v) for k, v in content.split.items()},
        "annotations": annotations,
    }
    if content.class_names:
        whole["class_names"] = list(content.class_names)
    # Protocol 3 names each function once, as plain text, so numpy 2's module name can be given as numpy 1.x
    # knows it, which numpy 2 still understands; pyskl itself runs on numpy 1.x only.
    data = pickle.dumps(whole, protocol=3)
    return data.replace(
        b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n", 1
    )


def write_pyskl_pickle(path: Path, content: PysklFile, dtype: str = "float32") -> None:
    """Write an annotation pickle to a file, which is replaced if it exists; see `pyskl_pickle_bytes`."""
    Path(path).write_bytes(pyskl_pickle_bytes(content, dtype))


def _kind(x: Any) -> str:
    return type(x).__name__


def _annotation(a: Any, index: int, path: Path) -> Annotation:
    where = f"Clip {index} of pickle '{path}'"
    if not isinstance(a, dict):
        raise InputError(f"{where} is a {_kind(a)}; it must be a dict with frame_dir, label and keypoint.")
    name = a.get("frame_dir", a.get("filename"))
    if not isinstance(name, str) or not name:
        raise InputError(f"{where} has no name; it needs the text 'frame_dir' (or 'filename').")
    where = f"Clip '{name}' of pickle '{path}'"
    label = a.get("label")
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise InputError(f"{where} has the label {label!r}; it must be an integer from 0.")
    if "keypoint" not in a:
        extra = " (the Kinetics form, whose poses lie in other files, is not read)" if "raw_file" in a else ""
        raise InputError(
            f"{where} has no 'keypoint'{extra}; it must be an array [persons, frames, joints, 3]."
        )
    x = a["keypoint"]
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu" or x.ndim != 4 or 0 in x.shape:
        got = f"shape {x.shape}, type {x.dtype}" if isinstance(x, np.ndarray) else f"a {_kind(x)}"
        raise InputError(f"{where} has a keypoint of {got}; it must be numbers [persons, frames, joints, 3].")
    if x.shape[3] == 2:
        raise InputError(
            f"{where} holds 2-D poses (keypoint {x.shape}); this project works on 3-D joints in metres: use the 3-D "
            "annotation file, or lift the poses first."
        )
    if x.shape[3] != 3:
        raise InputError(
            f"{where} has {x.shape[3]} numbers per joint (keypoint {x.shape}); it must be x, y and z."
        )
    if "total_frames" in a and a["total_frames"] != x.shape[1]:
        raise InputError(
            f"{where} says total_frames {a['total_frames']} but its keypoint has {x.shape[1]} frames."
        )
    fields = {}
    for key in ("subject", "view"):
        value = a.get(key, "")
        if not isinstance(value, (str, int)):
            raise InputError(f"{where} has {key} = {value!r}; it must be a text or an integer.")
        fields[key] = str(value)
    return Annotation(name=name, label=label, keypoint=x.astype(np.float32), **fields)


def _split(split: Any, path: Path) -> dict[str, tuple[str, ...]]:
    if split is None:
        return {}
    if not isinstance(split, dict):
        raise InputError(
            f"Pickle '{path}' has a 'split' that is a {_kind(split)}; it must be a dict of lists."
        )
    out = {}
    for name, clips in split.items():
        if isinstance(clips, np.ndarray):
            clips = clips.tolist()
        if (
            not isinstance(clips, Sequence)
            or isinstance(clips, (str, bytes))
            or not all(isinstance(c, str) for c in clips)
        ):
            raise InputError(f"Pickle '{path}' has a split '{name}' that is not a list of clip names.")
        out[str(name)] = tuple(clips)
    return out
