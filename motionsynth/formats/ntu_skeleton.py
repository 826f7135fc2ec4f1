"""NTU RGB+D `.skeleton` text files: Kinect v2 bodies whose ids come and go, and the field's choice of two.

The text holds, line by line: the number of frames; then per frame the number of bodies (may be 0), and per
body one line that starts with its id, one line with the number of joints (25) and one line of 12 numbers per
joint, the first three being x, y, z in metres, y up, right-handed, in the camera's frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionsynth.errors import InputError

NUM_JOINTS = 25
NUMBERS_PER_JOINT = 12
MIN_FRAMES = 12
"""Tracks seen in fewer frames are noise when there are others (the field drops those of 11 or fewer)."""
SPREAD = 0.8
"""A frame looks like furniture and not like a person when the joints' x extent exceeds this times their y "
"extent."""
SPREAD_SHARE = 0.69754
"""A track with at least this share of such frames is dropped when there are others."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Track:
    """One body id of one file.

    Attributes:
        body_id: The id, as text (72057594037931101 does not fit a float).
        frames: int64 [n], ascending: the frames in which the body was seen.
        positions: float32 [n, 25, 3], metres.
    """

    body_id: str
    frames: np.ndarray
    positions: np.ndarray


def read_ntu_skeleton(path: Path) -> np.ndarray:
    """The one or two persons that the field uses of a file: see `select_bodies`.

    Returns:
        float32 [M, T, 25, 3], metres, M = 1 or 2; a person absent in a frame is zeros.

    Raises:
        InputError: the file is not a complete `.skeleton` file of 25 joints, or holds no body.
    """
    tracks = read_tracks(path)
    if not tracks:
        raise InputError(
            f"Skeleton file '{path}' holds no body in any frame: the Kinect lost the person; leave this clip out."
        )
    return select_bodies(tracks)


def read_tracks(path: Path) -> list[Track]:
    """Every body of a file, in order of appearance; empty if there is none.

    Raises:
        InputError: the file cannot be read, is empty, truncated, or has another number of joints.
    """
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError as e:
        raise InputError(f"Skeleton file '{path}' cannot be read ({e.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"Skeleton file '{path}' is not text; unpack the download first.") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"Skeleton file '{path}' is empty; unpack the download again.")
    return _Lines(lines, path).tracks()


class _Lines:
    """A cursor over the lines of a file that knows where it is when something is wrong."""

    def __init__(self, lines: list[str], path: Path) -> None:
        self.lines, self.path, self.at = lines, path, 0

    def tracks(self) -> list[Track]:
        frames: dict[str, list[int]] = {}
        bodies: dict[str, list[np.ndarray]] = {}
        num_frames = self.count("frames")
        for frame in range(num_frames):
            for _ in range(self.count(f"bodies of frame {frame + 1} of {num_frames}")):
                words = self.take(1, f"a body of frame {frame + 1} of {num_frames}")[0].split()
                body = words[0] if words else ""
                joints = self.joints(frame, num_frames)
                # An id listed twice in one frame would put two places into one instant: the first one counts.
                if frames.setdefault(body, [])[-1:] != [frame]:
                    frames[body].append(frame)
                    bodies.setdefault(body, []).append(joints)
        if self.at != len(self.lines):
            raise InputError(
                f"Skeleton file '{self.path}' goes on after its {num_frames} frames (line {self.at + 1}); it is "
                "damaged, unpack the download again."
            )
        return [
            Track(body_id=b, frames=np.array(frames[b], np.int64), positions=np.stack(bodies[b]))
            for b in frames
        ]

    def take(self, n: int, what: str) -> list[str]:
        if self.at + n > len(self.lines):
            raise InputError(
                f"Skeleton file '{self.path}' ends at line {len(self.lines)} within {what}; it is truncated, unpack "
                "the download again."
            )
        self.at += n
        return self.lines[self.at - n : self.at]

    def count(self, what: str) -> int:
        line = self.take(1, f"the number of {what}")[0]
        # isdecimal alone would let int() read digits of other alphabets; the file is ASCII by now.
        if not line.strip().isdecimal() or len(line) > 12:
            raise InputError(
                f"Skeleton file '{self.path}' has {line[:40]!r} in line {self.at} where the number of {what} is "
                "expected; it is not an NTU .skeleton file or is damaged."
            )
        return int(line)

    def joints(self, frame: int, num_frames: int) -> np.ndarray:
        n = self.count(f"joints in frame {frame + 1} of {num_frames}")
        if n != NUM_JOINTS:
            raise InputError(
                f"Skeleton file '{self.path}' has {n} joints in line {self.at}; NTU bodies have {NUM_JOINTS}."
            )
        rows = [line.split() for line in self.take(n, f"the joints of frame {frame + 1} of {num_frames}")]
        first = self.at - n + 1
        for i, row in enumerate(rows):
            if len(row) != NUMBERS_PER_JOINT:
                raise InputError(
                    f"Skeleton file '{self.path}' has {len(row)} numbers in line {first + i}; a joint has "
                    f"{NUMBERS_PER_JOINT} (x y z, depth x y, colour x y, orientation w x y z, state)."
                )
        try:
            return np.array([row[:3] for row in rows], np.float32)
        except ValueError as e:
            raise InputError(
                f"Skeleton file '{self.path}' has a coordinate in lines {first}-{self.at} that is no number ({e})."
            ) from None


def select_bodies(tracks: list[Track]) -> np.ndarray:
    """The field's choice of persons (Shahroudy et al. 2016; as in the preprocessing of pyskl and CTR-GCN).

    While several tracks are left: those of fewer than `MIN_FRAMES` frames go, then those that are wider than
    tall in `SPREAD_SHARE` of their frames. The rest are sorted by motion (sum of the variances of x, y and z
    over the frames that look like a person) and packed, most motion first, into two slots in which tracks do
    not overlap in time; what fits neither is dropped. Frames empty at both ends are cut; if slot 0 is empty
    in the first frame left, the slots swap.

    Unlike the published scripts, a track stays at the frames in which it was seen: they close its gaps, and
    drop frames without bodies, which makes the motion jump.

    Args:
        tracks: At least one.

    Returns:
        float32 [M, T, 25, 3], M = 1 or 2.
    """
    tracks = _unless_all(tracks, [len(t.frames) >= MIN_FRAMES for t in tracks])
    person_like = [_person_like(t.positions) for t in tracks]
    tracks = _unless_all(tracks, [(~ok).mean() < SPREAD_SHARE for ok in person_like])
    slots: list[list[Track]] = [[], []]
    for track in sorted(tracks, key=_motion, reverse=True):
        for slot in slots:
            if (
                not slot
                or track.frames[0] > max(t.frames[-1] for t in slot)
                or (track.frames[-1] < min(t.frames[0] for t in slot))
            ):
                slot.append(track)
                break
    used = [slot for slot in slots if slot]
    length = 1 + max(int(t.frames[-1]) for slot in used for t in slot)
    out = np.zeros((len(used), length, NUM_JOINTS, 3), np.float32)
    for person, slot in zip(out, used, strict=True):
        for track in slot:
            person[track.frames] = track.positions
    seen = np.flatnonzero(out.any((0, 2, 3)))
    if len(seen):
        out = out[:, seen[0] : seen[-1] + 1]
    if len(out) == 2 and not out[0, 0].any() and out[1, 0].any():
        out = out[::-1]
    return np.ascontiguousarray(out)


def _unless_all(tracks: list[Track], good: list[bool]) -> list[Track]:
    """The good ones; if none is, the one with most motion, since noise beats an empty clip."""
    return [t for t, ok in zip(tracks, good, strict=True) if ok] or [max(tracks, key=_motion)]


def _person_like(positions: np.ndarray) -> np.ndarray:
    """bool [n]: frames whose x extent is at most `SPREAD` times the y extent."""
    extent = positions.max(1) - positions.min(1)
    return extent[:, 0] <= SPREAD * extent[:, 1]


def _motion(track: Track) -> float:
    def spread(x: np.ndarray) -> float:
        return float(x.reshape(-1, 3).var(0, dtype=np.float64).sum())

    ok = _person_like(track.positions)
    # Where only some frames look like a person, the others must not win the body a better place.
    return min(spread(track.positions), spread(track.positions[ok])) if ok.any() else spread(track.positions)
