"""Other people's arms, legs and trunks on real clips of a rare class: transfer between classes without a network.

One or two parts of a real clip's body move as those of a clip of a common class do, whoever that shows; the rest stays,
and with it the label. Mixing of body parts, as in Shap-Mix (Zhang et al., IJCAI 2024), which besides asks a recogniser
which parts matter and mixes the labels, too. Here the training clips may tell which parts a class shares with others
(`PartMixConfig.told`, `body_parts`); a class that shares none then takes parts of its own class's other clips.

Shape letters: A anchors, B clips, M persons, T frames, N bones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from motionsynth.augment import whole
from motionsynth.generators.base import Batch, Context, Generator, SampleRequest, request_rng, rigid_resample
from motionsynth.generators.body_parts import PARTS, free_parts, part_bones, told_apart
from motionsynth.generators.part_mix_config import PartMixConfig
from motionsynth.generators.transfer import AnchorClips, Body, fill_absent
from motionsynth.motion import Motion
from motionsynth.representation import headings, turn


class AnchorBodies(AnchorClips):
    """Training clips as bodies, and the way each is turned."""

    root: Tensor
    direction: Tensor
    length: Tensor
    heading: Tensor

    def __init__(self, context: Context, frames: int, lenders: int) -> None:
        super().__init__(context, lenders)
        self.frames, self.skeleton = frames, context.skeleton
        a, m, bones = len(self.ids), context.num_persons, len(self.skeleton.bones)
        # Half precision: a quarter of a millimetre at half a metre, far below any sensor's noise.
        self.register_buffer("root", torch.zeros(a, m, frames, 3, dtype=torch.float16))
        self.register_buffer("direction", torch.zeros(a, m, frames, bones, 3, dtype=torch.float16))
        self.register_buffer("length", torch.zeros(a, m, bones))
        self.register_buffer("heading", torch.zeros(a, m, frames))

    @torch.no_grad()
    def fit(self, clips: Batch) -> None:
        """Keep what sampling needs of the training clips."""
        at = self.among(clips.y)
        x = whole(fill_absent(clips.x[at]), self.frames)
        body = Body.split(x, self.skeleton)
        self.root.copy_(body.root)
        self.direction.copy_(body.direction)
        self.length.copy_(body.length)
        self.heading.copy_(headings(x, self.skeleton))

    def told_apart(self) -> Tensor:
        """How well each part tells each two classes apart, [P, K, K], by `body_parts`; half a minute for 60 classes."""
        every = torch.arange(len(self.ids), device=self.root.device)
        none = torch.zeros(len(every), self.length.shape[2], dtype=torch.bool, device=every.device)
        y = torch.cat([torch.full((len(m),), c) for c, m in enumerate(self.members)])
        return told_apart(self.mixed(every, every, none), y, self.skeleton, len(self.members))

    def mixed(self, at: Tensor, lender: Tensor, taken: Tensor) -> Tensor:
        """Clips of which some bones turn as another clip's do, each as seen from its own body.

        Args:
            at, lender: Anchors, [B].
            taken: bool [B, N], the bones that the lender gives.

        Returns:
            [B, M, frames, V, 3], metres; a person whom the lender lacks keeps all bones.
        """
        lent = self.direction[lender].float()
        lent = turn(lent, (self.heading[at] - self.heading[lender])[..., None])
        there = (self.length[lender] > 0).any(-1)[:, :, None, None, None]
        direction = torch.where(taken[:, None, None, :, None] & there, lent, self.direction[at].float())
        return Body(root=self.root[at].float(), direction=direction, length=self.length[at]).join(
            self.skeleton
        )


class PartMix(Generator):
    """See the module; registered as `part_mix`."""

    name = "part_mix"
    terms: Mapping[str, tuple[str, ...]] = {}
    fitted = ("anchors.",)
    sampling = ("most", "told", "others", "lenders")

    config: PartMixConfig
    bones: Tensor

    def __init__(self, config: PartMixConfig, context: Context) -> None:
        super().__init__(config, context)
        self.anchors = AnchorBodies(context, config.frames, config.lenders)
        self.register_buffer("bones", part_bones(context.skeleton), persistent=False)
        self.told: Tensor | None = None

    def losses(self, batch: Batch, group: str) -> dict[str, Tensor]:
        """None: there is nothing to train."""
        return {}

    def parameter_groups(self, stage: int) -> dict[str, list[nn.Parameter]]:
        """None: there is nothing to train."""
        return {}

    def prepare(self, clips: Batch) -> None:
        """Keep the training clips."""
        self.anchors.fit(clips)

    def free(self) -> list[list[int]]:
        """For each class the parts (places in `PARTS`) that may come from other classes' clips."""
        if not self.config.others:
            return [list(range(len(PARTS)))] * len(self.context.class_names)
        if self.told is None:
            self.told = self.anchors.told_apart()
        return free_parts(self.told, self.config.told, self.config.others)

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Motion]:
        """Clips of the class, as long as the training clip that each starts from, with parts of others."""
        if not requests:
            return []
        anchors = self.anchors
        anchors.check([r.label for r in requests])
        free = self.free()
        draws = [self._draw(r, free[r.label]) for r in requests]
        device = anchors.root.device
        at, lender = (torch.tensor([d[i] for d in draws], device=device) for i in range(2))
        taken = torch.stack([self.bones[d[2]].any(0) for d in draws])
        made = anchors.mixed(at, lender, taken).cpu().numpy()
        clips = []
        for request, (a, _, _), x in zip(requests, draws, made, strict=True):
            frames, persons = anchors.shapes[a]
            positions = rigid_resample(x[:persons], frames, self.context.skeleton)
            clips.append(self.to_motion(request, positions, anchors.ids[a]))
        return clips

    def _draw(self, request: SampleRequest, free: list[int]) -> tuple[int, int, list[int]]:
        """The clip that one starts from, the clip that lends, and which parts."""
        rng, anchors = request_rng(request), self.anchors
        at = int(rng.choice(anchors.members[request.label]))
        lenders = (free and anchors.lenders[request.label]) or [request.label]
        lender = int(rng.choice(anchors.members[lenders[rng.integers(len(lenders))]]))
        parts = free or list(range(len(PARTS)))
        size = min(len(parts), int(rng.integers(1, self.config.most + 1)))
        return at, lender, rng.choice(parts, size, replace=False).tolist()
