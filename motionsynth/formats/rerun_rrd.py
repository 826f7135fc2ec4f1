"""Rerun recordings (.rrd): joints and bones of every person over time, for `rerun FILE.rrd` or app.rerun.io.

person_0/joints    Points3D, with the joints' names
person_0/bones     LineStrips3D
about              what the clip is
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from motionsynth.errors import InputError
from motionsynth.motion import Motion, present
from motionsynth.skeleton import Skeleton

TIMELINE = "time"
COLOURS = ((217, 89, 51), (51, 128, 217))


def rrd_bytes(motion: Motion, skeleton: Skeleton) -> bytes:
    """A clip as the content of an .rrd file: one frame per time stamp of the timeline `time`, seconds.

    Raises:
        InputError: rerun-sdk is not installed, or the joint count is wrong.
    """
    rr = _rerun()
    x = motion.positions
    if x.shape[2] != skeleton.num_joints:
        raise InputError(
            f"Clip '{motion.sample_id}' has {x.shape[2]} joints; skeleton '{skeleton.name}' has {skeleton.num_joints}."
        )
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"motionsynth/{motion.dataset}/{motion.sample_id}")
    recording = rr.RecordingStream("motionsynth", recording_id=name, send_properties=False)
    memory = recording.memory_recording()
    recording.log("/", rr.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    about = f"{motion.label_name} ({motion.source}, {motion.dataset}, {motion.sample_id})"
    recording.log("about", rr.TextDocument(about), static=True)
    seconds = np.arange(motion.num_frames) / motion.fps
    for m, (person, there) in enumerate(zip(x, present(x), strict=True)):
        colour = COLOURS[m % len(COLOURS)]
        look = rr.Points3D.from_fields(
            colors=[colour], radii=[0.02], labels=list(skeleton.joints), show_labels=False
        )
        recording.log(f"person_{m}/joints", look, static=True)
        recording.log(
            f"person_{m}/bones", rr.LineStrips3D.from_fields(colors=[colour], radii=[0.008]), static=True
        )
        # Nothing is there in a frame in which the person is absent.
        joints = [frame if seen else frame[:0] for frame, seen in zip(person, there, strict=True)]
        time = [rr.TimeColumn(TIMELINE, duration=seconds)]
        points = rr.Points3D.columns(positions=np.concatenate(joints))
        recording.send_columns(f"person_{m}/joints", time, points.partition([len(j) for j in joints]))
        child, parent = np.array(skeleton.bones).T
        strips = [
            np.stack([f[child], f[parent]], 1) if len(f) else np.zeros((0, 2, 3), np.float32) for f in joints
        ]
        lines = rr.LineStrips3D.columns(strips=np.concatenate(strips))
        recording.send_columns(f"person_{m}/bones", time, lines.partition([len(s) for s in strips]))
    return memory.drain_as_bytes()


def _rerun() -> Any:
    try:
        import rerun
    except ImportError:
        raise InputError(
            "Rerun recordings need the package rerun-sdk, which is not installed: pip install 'motionsynth[rerun]'."
        ) from None
    return rerun
