"""ST-GCN++ (Duan et al., PYSKL, ACM MM 2022): the field's reference among graph convolutions, and a feature extractor.

Ten blocks of a graph convolution over the skeleton and a temporal convolution in six branches; one such trunk per
stream (joints, bones, or the motion of either). Each stream learns from a loss of its own, as published; here they
share the batches, and their logits are averaged, which one linear layer over their concatenated features does (the
published fusion adds softmax scores). Published clips are first centred and turned (PreNormalize3D); ours already are.

The layers are those of the paper. How they are computed is not, for the sake of CPUs: channels lie last, so that every
1x1 convolution is one matrix product; the five 1x1 convolutions in front of the temporal branches are one, with one
batch normalisation; joints are gathered along the graph before their channels are mixed, never after, since channels
only ever grow; absent persons are left out. `python -m benchmarks.stgcn` compares with the plain way,
`tests/reference_stgcn.py`: a step takes 0.4 to 0.5 of its time at the published size, 0.6 at the
registered one (docs/results.md).

Shape letters: P persons of all clips, T frames, V joints, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motionsynth.errors import InputError
from motionsynth.recognisers.base import Recogniser, RecogniserInfo
from motionsynth.skeleton import Skeleton

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
DILATIONS = (1, 2, 3, 4)
STAGES = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (2, 1), (4, 2), (4, 1), (4, 1))
"""Width, as a multiple of the first block's, and temporal stride of each block."""


def spatial_graph(skeleton: Skeleton) -> Tensor:
    """float32 [3, V, V]: itself, inwards (child to parent) and outwards; entry [k, v, w] weighs v's share in w.

    The inward matrix has 1 at [parent, child] and, like the outward one, columns that sum to 1 (or to 0 where empty).
    """
    v = skeleton.num_joints
    inward = torch.zeros(v, v)
    for child, parent in skeleton.bones:
        inward[parent, child] = 1
    ways = torch.stack([torch.eye(v), inward, inward.T])
    return ways / ways.sum(1, keepdim=True).clamp_min(1)


def branch_widths(channels: int) -> tuple[int, ...]:
    """Channels of the six temporal branches; the first takes what six equal parts leave."""
    part = channels // 6
    return (channels - 5 * part, *[part] * 5)


def rows_of(x: Tensor) -> Tensor:
    """[..., C] -> [R, C]. What is changed in place must be rows: where it is a view, autograd copies the gradient."""
    return x.reshape(-1, x.shape[-1])


def mix(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)` on rows [R, C], the bias added in place."""
    y = x @ layer.weight.t()
    # Under autocast y is bfloat16, and an addition of two types is slow.
    return y.add_(layer.bias.to(y.dtype))


class Shortcut(nn.Module):
    """Residual of another width or length: 1x1 convolution of every `stride`-th frame, and BN."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.point, self.norm = nn.Linear(channels, out), nn.BatchNorm1d(out)

    def forward(self, x_VTPC: Tensor) -> Tensor:
        """See the class."""
        x = x_VTPC[:, :: self.stride]
        return self.norm(mix(self.point, rows_of(x))).view(*x.shape[:3], -1)


def shortcut(channels: int, out: int, stride: int = 1) -> nn.Module:
    """Identity where it fits."""
    return nn.Identity() if (channels, stride) == (out, 1) else Shortcut(channels, out, stride)


class GraphConvolution(torch.autograd.Function):
    """sum_k A_k' x W_k' + b as four matrix products each way: [V, R, C] -> [V, R, C'] for R person-frames.

    By hand, because automatic differentiation copies what the three products per subset read and write.
    """

    @staticmethod
    def forward(ctx: Any, x_VRC: Tensor, graph_KVV: Tensor, weight_KOC: Tensor, bias_VO: Tensor) -> Tensor:
        """`graph_KVV[k, v, w]` weighs v's share in w."""
        v, r, c = x_VRC.shape
        ways = graph_KVV.transpose(1, 2).reshape(-1, v)
        gathered = (ways @ x_VRC.reshape(v, -1)).view(3, v * r, c)
        # Under autocast the product above is bfloat16, and so is all that meets it.
        x, ways, weights, bias = (z.to(gathered.dtype) for z in (x_VRC, ways, weight_KOC, bias_VO))
        y = bias[:, None].expand(-1, r, -1).reshape(v * r, -1)
        for g, weight in zip(gathered, weights, strict=True):
            y.addmm_(g, weight.t())
        ctx.save_for_backward(x, ways, weights, gathered)
        return y.view(v, r, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the four inputs."""
        x, ways, weights, gathered = ctx.saved_tensors
        v, r, c = x.shape
        grad = grads[0].reshape(v * r, -1)
        to_weight = torch.stack([grad.t() @ g for g in gathered])
        to_gathered = torch.empty_like(gathered)
        for g, weight in zip(to_gathered, weights, strict=True):
            torch.mm(grad, weight, out=g)
        to_gathered = to_gathered.view(-1, r * c)
        to_ways = to_gathered @ x.reshape(v, -1).t()
        to_x = (ways.t() @ to_gathered).view(v, r, c) if ctx.needs_input_grad[0] else None
        return to_x, to_ways.view(3, v, v).transpose(1, 2), to_weight, grads[0].sum(1)  # pyright: ignore


class Spatial(nn.Module):
    """Graph convolution: [V, T, P, C] -> [V, T, P, C']. The graph itself is learnt, from the skeleton's on."""

    def __init__(self, channels: int, out: int, graph_KVV: Tensor) -> None:
        super().__init__()
        self.graph = nn.Parameter(graph_KVV.clone())
        self.point, self.norm = nn.Linear(channels, 3 * out), nn.BatchNorm1d(out)
        self.residual = shortcut(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        bias_VC = self.graph.sum(1).t() @ self.point.bias.view(3, -1)
        weight = self.point.weight.view(3, -1, x.shape[-1])
        y = GraphConvolution.apply(x.flatten(1, 2), self.graph, weight, bias_VC)
        rows = self.norm(y.view(-1, y.shape[-1]))
        return rows.add_(rows_of(self.residual(x))).relu_().view(*x.shape[:3], -1)


class Temporal(nn.Module):
    """Six branches over time: [V, T, P, C] -> rows [V T / stride P, C]."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.widths = branch_widths(channels)
        self.point, self.norm = (
            nn.Linear(channels, sum(self.widths[:5])),
            nn.BatchNorm1d(sum(self.widths[:5])),
        )
        self.dilated = nn.ModuleList(
            nn.Conv2d(w, w, (3, 1), (stride, 1), (d, 0), (d, 1))
            for w, d in zip(self.widths, DILATIONS, strict=False)
        )
        self.pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        self.straight = nn.Linear(channels, self.widths[5])
        self.joint_norm = nn.BatchNorm1d(channels)
        self.merge, self.merge_norm = nn.Linear(channels, channels), nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; the last BN's output, before residual and ReLU."""
        v, t, p, _ = x.shape
        rows = self.norm(mix(self.point, rows_of(x))).relu_()
        # Seen as [V, C, T, P], an image of frames x persons, the memory is what PyTorch calls channels-last.
        *dilated, pooled = rows.view(v, t, p, -1).permute(0, 3, 1, 2).split(self.widths[:5], 1)
        ways = [conv(h) for conv, h in zip(self.dilated, dilated, strict=True)] + [self.pool(pooled)]
        straight = mix(self.straight, rows_of(x[:, :: self.stride]))
        joined = torch.cat([*(rows_of(w.permute(0, 2, 3, 1)) for w in ways), straight], 1)
        return self.merge_norm(mix(self.merge, self.joint_norm(joined).relu_()))


class Block(nn.Module):
    """ReLU(temporal(spatial(x)) + residual)."""

    def __init__(self, channels: int, out: int, stride: int, graph_KVV: Tensor, residual: bool) -> None:
        super().__init__()
        self.spatial, self.temporal = Spatial(channels, out, graph_KVV), Temporal(out, stride)
        self.residual = shortcut(channels, out, stride) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = self.temporal(self.spatial(x))
        if self.residual is not None:
            rows.add_(rows_of(self.residual(x)))
        return rows.relu_().view(len(x), -1, x.shape[2], rows.shape[1])


class Trunk(nn.Module):
    """One stream, [P, T, V, 3] -> features [P, 4 * base], the mean over frames and joints."""

    def __init__(self, skeleton: Skeleton, base: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * skeleton.num_joints)
        graph = spatial_graph(skeleton)
        widths = [3, *(base * m for m, _ in STAGES)]
        self.blocks = nn.Sequential(
            *(Block(widths[i], widths[i + 1], s, graph, residual=i > 0) for i, (_, s) in enumerate(STAGES))
        )

    def forward(self, x_PTVC: Tensor) -> Tensor:
        """See the class."""
        x = self.norm(x_PTVC.flatten(0, 1).flatten(1)).view(x_PTVC.shape)
        return self.blocks(x.permute(2, 1, 0, 3).contiguous()).mean((0, 1))


class STGCN(Recogniser):
    """[B, M, T, V, 3] -> logits [B, K].

    Narrower (32 channels in the first block, not 64) and of fewer frames than published, which `published` gives, to
    be affordable on CPUs.
    Persons are averaged, as published, but absent ones are left out of the mean and of the normalisations' statistics
    instead of passing through the network as zeros.
    """

    def __init__(
        self,
        info: RecogniserInfo,
        base: int = 32,
        frames: int = 32,
        streams: Sequence[str] = ("joint", "bone"),
    ) -> None:
        super().__init__(info)
        if not streams or not set(streams) <= set(STREAMS):
            raise InputError(f"The streams are {tuple(streams)}; give one or more of {', '.join(STREAMS)}.")
        self.frames, self.used = frames, tuple(streams)
        self.trunks = nn.ModuleList(Trunk(info.skeleton, base) for _ in streams)
        self.head = nn.Linear(len(streams) * base * STAGES[-1][0], info.num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def published(cls, info: RecogniserInfo, streams: Sequence[str] = ("joint", "bone")) -> STGCN:
        """The published size: 64 channels in the first block, 100 frames."""
        return cls(info, base=64, frames=100, streams=streams)

    def features(self, x_BMTVC: Tensor) -> Tensor:
        """Penultimate features [B, streams * 4 * base]."""
        seen_BM = (x_BMTVC != 0).flatten(2).any(-1)
        seen_BM[:, 0] |= ~seen_BM.any(1)  # an empty clip keeps one person
        x_PTVC = x_BMTVC[seen_BM]
        inputs = self.inputs(x_PTVC)
        features = torch.cat([trunk(inputs[s]) for trunk, s in zip(self.trunks, self.used, strict=True)], 1)
        share_BP = nn.functional.one_hot(seen_BM.nonzero()[:, 0], len(seen_BM)).T / seen_BM.sum(
            1, keepdim=True
        )
        return share_BP.to(features) @ features

    def inputs(self, x_PTVC: Tensor) -> dict[str, Tensor]:
        """Every stream's input, [P, T, V, 3] -> [P, T, V, 3]; motion into or out of a frame without body is zero."""
        there = (x_PTVC != 0).flatten(2).any(-1)
        stays = (there[:, 1:] & there[:, :-1])[..., None, None]
        bone = x_PTVC - x_PTVC[..., self.parents_V, :]

        def motion(x: Tensor) -> Tensor:
            return nn.functional.pad((x[:, 1:] - x[:, :-1]) * stays, (0, 0, 0, 0, 0, 1))

        return {"joint": x_PTVC, "bone": bone, "joint_motion": motion(x_PTVC), "bone_motion": motion(bone)}

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] from features, the mean over the streams' own; no dropout, as published."""
        return self.head(features)

    def losses(
        self, features: Tensor, y_B: Tensor, label_smoothing: float, log_prior_K: Tensor | float = 0.0
    ) -> Tensor:
        """The mean of each stream's own cross-entropy, [B]: as published, no stream learns from another."""
        n = len(self.used)
        parts = zip(features.float().chunk(n, 1), self.head.weight.chunk(n, 1), strict=True)
        logits = torch.cat([n * nn.functional.linear(f, w) + self.head.bias for f, w in parts])
        losses = nn.functional.cross_entropy(
            logits + log_prior_K, y_B.repeat(n), label_smoothing=label_smoothing, reduction="none"
        )
        return losses.view(n, -1).mean(0)
