"""Clips as a vector per frame, seen from the body: HumanML3D's 263 numbers for any skeleton and for several persons.

Guo et al., CVPR 2022 (HumanML3D), as Dong 2026 uses it. For 22 joints and one person the layout is theirs: root 4,
positions 63, rotations 126, velocities 66, contacts 4. Every part but the root's path is relative to the body's own
heading, so that a clip means the same wherever it happens and however it is turned.

Shape letters: B clips, M persons, T frames, V joints, N = V - 1 bones, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motionsynth.errors import InputError
from motionsynth.motion import sideways
from motionsynth.representation_parts import PARTS
from motionsynth.skeleton import Skeleton

FEET = ("left_ankle", "left_foot", "right_ankle", "right_foot")
CONTACT_STEP = 0.002**0.5
"""A foot that moves less than this from one frame to the next (metres) is on the ground, as in HumanML3D's script."""
SMOOTHING = 4.0
"""Standard deviation (frames) of the Gaussian over the body's sideways axis before its heading is read: sensors
shake, and whatever the heading shakes, everything seen from it shakes, too. Theirs is 20 at 20 frames a second."""


class Representation(nn.Module):
    """The codec between positions [B, M, T, V, 3] and features [B, T, D], and the features' mean and spread.

    Person 0's root is its turn (radians a frame), its step over the ground seen from its heading (metres a frame: x,
    z) and its height; every other person's root is where it is and how it is turned as person 0 sees it (x, z, height,
    cosine, sine). Steps and velocities lead to the next frame; the last frame repeats the one before.

    Args:
        skeleton: Of the clips.
        persons: M.
        rest: Mean bone directions, [N] of unit xyz (`Context.rest`): the pose in which all rotations are none.
        parts: Which of `PARTS`, in that order; "root" and "positions" are what `decode` reads.

    Raises:
        InputError: an unknown part, or one of the two that decoding needs is missing.
    """

    mean: Tensor
    std: Tensor
    rest: Tensor

    def __init__(
        self,
        skeleton: Skeleton,
        persons: int,
        rest: Sequence[Sequence[float]],
        parts: Sequence[str] = PARTS,
    ) -> None:
        super().__init__()
        if unknown := [p for p in parts if p not in PARTS]:
            raise InputError(f"Unknown part '{unknown[0]}' of a representation. Known: {', '.join(PARTS)}.")
        if not {"root", "positions"} <= set(parts):
            raise InputError(
                f"The representation has the parts {', '.join(parts) or 'none'}; it needs root and positions."
            )
        self.skeleton, self.persons = skeleton, persons
        self.feet = [skeleton.joints.index(j) for j in FEET if j in skeleton.joints]
        self.others = [v for v in range(skeleton.num_joints) if v != skeleton.root]
        n, v = len(self.others), skeleton.num_joints
        size = {"positions": 3 * n, "rotations": 6 * n, "velocities": 3 * v, "contacts": len(self.feet)}
        self.groups: dict[tuple[int, str], slice] = {}
        """Where the numbers of (person, group) lie among D: numbers of one group share a unit and a spread."""
        at = 0
        for m in range(persons):
            root = {"turn": 1, "step": 2, "height": 1} if m == 0 else {"place": 2, "height": 1, "facing": 2}
            for name, k in (root | {p: size[p] for p in PARTS if p in parts and p != "root"}).items():
                self.groups[m, name] = slice(at, at + k)
                at += k
        self.dims = at
        self.register_buffer("rest", torch.tensor(rest), persistent=False)
        self.register_buffer("mean", torch.zeros(at))
        self.register_buffer("std", torch.ones(at))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [B, M, T, V, 3], T of at least 2 -> features [B, T, D] in their own units, and the start [B, 3].

        The start is person 0's place on the ground (x, z; metres) and heading (radians) in frame 0, which the
        features leave open. A person who is zeros throughout has features of no meaning: mask them; gaps are to be
        filled first (`transfer.fill_absent`).
        """
        yaw = headings(x, self.skeleton)
        root = x[..., self.skeleton.root, :]
        parts: list[Tensor] = []
        for m in range(self.persons):
            here, angle = root[:, m], yaw[:, m]
            ground = here * here.new_tensor([1, 0, 1])
            local = turn(x[:, m] - ground[:, :, None], -angle[..., None])
            if m == 0:
                step = turn(_ahead(here), -angle)
                parts += [_wrap(_ahead(angle))[..., None], step[..., ::2], here[..., 1:2]]
            else:
                place = turn(here - root[:, 0], -yaw[:, 0])
                facing = angle - yaw[:, 0]
                parts += [
                    place[..., ::2],
                    here[..., 1:2],
                    torch.stack([facing.cos(), facing.sin()], -1),
                ]
            made = {
                "positions": lambda local=local: local[:, :, self.others],
                "rotations": lambda local=local: self._rotations(local),
                "velocities": lambda m=m, angle=angle: turn(_ahead(x[:, m]), -angle[..., None]),
                "contacts": lambda m=m: (_ahead(x[:, m])[:, :, self.feet].norm(dim=-1) < CONTACT_STEP).to(
                    x.dtype
                ),
            }
            parts += [make().flatten(2) for part, make in made.items() if (m, part) in self.groups]
        start = torch.stack([root[:, 0, 0, 0], root[:, 0, 0, 2], yaw[:, 0, 0]], -1)
        return torch.cat(parts, -1), start

    def decode(self, features: Tensor, start: Tensor | None = None) -> Tensor:
        """Features [B, T, D] in their own units -> positions [B, M, T, V, 3].

        Reads root and positions alone: the other parts say the same once more.

        Args:
            features: As `encode` gives them.
            start: As `encode` gives it, [B, 3]; none: at the origin, facing +z.
        """
        b, t, _ = features.shape
        part = lambda m, name: features[..., self.groups[m, name]]  # noqa: E731
        start = features.new_zeros(b, 3) if start is None else start
        yaw0 = _before(part(0, "turn")[..., 0], start[:, 2:])
        step = part(0, "step")
        walked = turn(torch.stack([step[..., 0], torch.zeros_like(step[..., 0]), step[..., 1]], -1), yaw0)
        x0, z0 = (_before(walked[..., c], start[:, i : i + 1]) for i, c in enumerate((0, 2)))
        out = []
        for m in range(self.persons):
            height = part(m, "height")[..., 0]
            if m == 0:
                ground, yaw = torch.stack([x0, torch.zeros_like(x0), z0], -1), yaw0
            else:
                place, facing = part(m, "place"), part(m, "facing")
                across = torch.stack([place[..., 0], torch.zeros_like(x0), place[..., 1]], -1)
                ground = out[0][1] + turn(across, yaw0)
                yaw = yaw0 + torch.atan2(facing[..., 1], facing[..., 0])
            joints = features.new_zeros(b, t, self.skeleton.num_joints, 3)
            joints[:, :, self.others] = part(m, "positions").unflatten(-1, (-1, 3))
            joints[:, :, self.skeleton.root, 1] = height
            out.append((turn(joints, yaw[..., None]) + ground[:, :, None], ground))
        return torch.stack([x for x, _ in out], 1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Mean and spread from training clips [B, M, T, V, 3]; the numbers of a group share one spread, as published.

        A person whom a clip never shows does not count.
        """
        features, _ = self.encode(x)
        there = (x != 0).flatten(2).any(-1)
        for (m, _), place in self.groups.items():
            seen = features[there[:, m]][..., place].flatten(0, 1)
            if len(seen) > 1:
                self.mean[place] = seen.mean(0)
                self.std[place] = seen.std(0).mean().clamp_min(1e-4)

    def normalise(self, features: Tensor) -> Tensor:
        """Features in units of their spread over the training clips, about their mean; [..., D] -> [..., D]."""
        return (features - self.mean) / self.std

    def restore(self, normalised: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return normalised * self.std + self.mean

    def of_person(self, there_BM: Tensor) -> Tensor:
        """1 for the features of persons who are there, else 0: bool [B, M] -> [B, 1, D]."""
        out = self.mean.new_zeros(len(there_BM), self.dims)
        for (m, _), place in self.groups.items():
            out[:, place] = there_BM[:, m, None].to(out)
        return out[:, None]

    def _rotations(self, local: Tensor) -> Tensor:
        """Of each bone against its parent's, the first two columns: [B, T, V, 3] -> [B, T, N, 6].

        A bone's rotation is the shortest arc from the rest pose, as HumanML3D's inverse kinematics takes it; it knows
        nothing of the twist about the bone, since positions do not.
        """
        child, parent = (list(side) for side in zip(*self.skeleton.bones, strict=True))
        direction = nn.functional.normalize(local[..., child, :] - local[..., parent, :], dim=-1)
        arc = shortest_arc(self.rest.to(local).expand_as(direction), direction)
        at = {v: i for i, v in enumerate(child)}
        still = torch.eye(3, dtype=local.dtype, device=local.device).expand_as(arc[..., 0, :, :])
        above = torch.stack([arc[..., at[p], :, :] if p in at else still for p in parent], -3)
        return (above.transpose(-1, -2) @ arc)[..., :2].transpose(-1, -2).flatten(-2)


def shortest_arc(a: Tensor, b: Tensor) -> Tensor:
    """The smallest rotations that turn unit vectors a into b, [..., 3] each -> [..., 3, 3].

    For opposite vectors it is one of the half turns that do.
    """
    axis, cosine = torch.linalg.cross(a, b), (a * b).sum(-1)[..., None, None]
    zero = torch.zeros_like(axis[..., 0])
    x, y, z = axis.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    arc = eye + skew + skew @ skew / (1 + cosine).clamp_min(1e-6)
    # A half turn about any axis square to a: 2 n n' - 1.
    least = nn.functional.one_hot(a.abs().argmin(-1), 3).to(a)
    n = nn.functional.normalize(torch.linalg.cross(a, least), dim=-1)
    return torch.where(cosine < -1 + 1e-6, 2 * n[..., :, None] * n[..., None, :] - eye, arc)


def _ahead(x: Tensor) -> Tensor:
    """Differences to the next frame, [B, T, ...] -> [B, T, ...]; the last is repeated."""
    d = x.diff(dim=1)
    return torch.cat([d, d[:, -1:]], 1)


def _before(steps: Tensor, start: Tensor) -> Tensor:
    """Sums of the steps before each frame: [B, T] from [B, 1]; the last step leads beyond the clip and is left out."""
    return torch.cat([start, start + steps[:, :-1].cumsum(1)], 1)


def headings(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Angle (radians) by which each body is turned from +z about the vertical: [B, M, T, V, 3] -> [B, M, T].

    The sideways axis is smoothed before it is normalised: where a lying body hides it, its neighbours decide.
    """
    across = sideways(x, skeleton)
    frames = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)
    weight = (-0.5 * ((frames[:, None] - frames) / SMOOTHING).square()).exp()
    across = (weight / weight.sum(1, keepdim=True)) @ across
    return torch.atan2(across[..., 2], -across[..., 0])


def turn(x: Tensor, angle: Tensor) -> Tensor:
    """Vectors [..., 3] turned about the vertical by angles [...] (radians), as `motion.rotate_y`."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[..., 0] + s * x[..., 2], x[..., 1], c * x[..., 2] - s * x[..., 0]], -1)


def _wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
