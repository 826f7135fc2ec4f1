"""The parts of `motionsynth.representation`, apart from it because configs name them and are cheap to import."""

from __future__ import annotations

PARTS = ("root", "positions", "rotations", "velocities", "contacts")
