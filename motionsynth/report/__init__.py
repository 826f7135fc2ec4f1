"""A run as one HTML file: what was gained, on which classes, and what the synthetic motions look like.

    html = render(Run(result=..., records=..., sets=..., about=...))

The file needs no network: style, script, three.js and the clips are inside. `rayjobs.report` reads a run from storage.
"""

from motionsynth.report.page import render
from motionsynth.report.run import GeneratedSet, Run

__all__ = ["GeneratedSet", "Run", "render"]
