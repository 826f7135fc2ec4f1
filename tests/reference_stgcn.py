"""ST-GCN++ the plain way: [P, C, T, V], one PyTorch module per layer of the paper; the oracle of `recognisers.stgcn`.

`copy_weights` gives one the weights of the other, so that outputs and gradients can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.recognisers import stgcn
from motionsynth.recognisers.stgcn import DILATIONS, STAGES, branch_widths, spatial_graph
from motionsynth.skeleton import Skeleton


def residual(channels: int, out: int, stride: int) -> nn.Module:
    if (channels, stride) == (out, 1):
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))


class Spatial(nn.Module):
    def __init__(self, channels: int, out: int, graph_KVV: Tensor) -> None:
        super().__init__()
        self.graph = nn.Parameter(graph_KVV.clone())
        self.conv, self.norm = nn.Conv2d(channels, 3 * out, 1), nn.BatchNorm2d(out)
        self.residual = residual(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, t, v = x.shape
        y = torch.einsum("nkctv,kvw->nctw", self.conv(x).view(n, 3, -1, t, v), self.graph)
        return (self.norm(y) + self.residual(x)).relu()


class Temporal(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        widths = branch_widths(channels)

        def start(width: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        self.branches = nn.ModuleList(
            nn.Sequential(*start(w), nn.Conv2d(w, w, (3, 1), (stride, 1), (d, 0), (d, 1)))
            for w, d in zip(widths, DILATIONS, strict=False)
        )
        self.branches.append(
            nn.Sequential(*start(widths[4]), nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0)))
        )
        self.branches.append(nn.Conv2d(channels, widths[5], 1, (stride, 1)))
        self.merge = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([branch(x) for branch in self.branches], 1))


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, graph_KVV: Tensor, first: bool) -> None:
        super().__init__()
        self.spatial, self.temporal = Spatial(channels, out, graph_KVV), Temporal(out, stride)
        self.residual = None if first else residual(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.temporal(self.spatial(x))
        return (y if self.residual is None else y + self.residual(x)).relu()


class Trunk(nn.Module):
    """[P, T, V, 3] -> [P, 4 * base]."""

    def __init__(self, skeleton: Skeleton, base: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * skeleton.num_joints)
        graph = spatial_graph(skeleton)
        widths = [3, *(base * m for m, _ in STAGES)]
        self.blocks = nn.Sequential(
            *(Block(widths[i], widths[i + 1], s, graph, first=i == 0) for i, (_, s) in enumerate(STAGES))
        )

    def forward(self, x: Tensor) -> Tensor:
        p, t, v, c = x.shape
        x = self.norm(x.permute(0, 2, 3, 1).reshape(p, v * c, t))
        return self.blocks(x.view(p, v, c, t).permute(0, 2, 3, 1).contiguous()).mean((2, 3))


def pairs(fast: stgcn.Trunk, plain: Trunk) -> list[tuple[Tensor, list[Tensor]]]:
    """Each parameter and buffer of the fast trunk with those of the plain one that make it up, in order."""
    out: list[tuple[Tensor, list[Tensor]]] = []

    def same(one: nn.Module, *others: nn.Module) -> None:
        for name, value in one.state_dict(keep_vars=True).items():
            if not name.endswith("num_batches_tracked"):
                out.append((value, [o.state_dict(keep_vars=True)[name] for o in others]))

    def same_residual(one: nn.Module | None, other: nn.Module | None) -> None:
        if isinstance(one, stgcn.Shortcut) and isinstance(other, nn.Sequential):
            same(one.point, other[0])
            same(one.norm, other[1])

    same(fast.norm, plain.norm)
    for a, b in zip(fast.blocks, plain.blocks, strict=True):
        assert isinstance(a, stgcn.Block) and isinstance(b, Block)
        out.append((a.spatial.graph, [b.spatial.graph]))
        same(a.spatial.point, b.spatial.conv)
        same(a.spatial.norm, b.spatial.norm)
        same_residual(a.spatial.residual, b.spatial.residual)
        same_residual(a.residual, b.residual)
        branches = list(b.temporal.branches)
        starts = [x for x in branches[:5] if isinstance(x, nn.Sequential)]
        same(a.temporal.point, *(x[0] for x in starts))
        same(a.temporal.norm, *(x[1] for x in starts))
        for one, other in zip(a.temporal.dilated, starts, strict=False):
            same(one, other[3])
        same(a.temporal.straight, branches[5])
        same(a.temporal.joint_norm, b.temporal.merge[0])
        same(a.temporal.merge, b.temporal.merge[2])
        same(a.temporal.merge_norm, b.temporal.merge[3])
    return out


@torch.no_grad()
def copy_weights(fast: stgcn.Trunk, plain: Trunk) -> None:
    """The plain trunk takes the fast one's weights and statistics."""
    for value, parts in pairs(fast, plain):
        for target, source in zip(parts, value.split([len(p) for p in parts]), strict=True):
            target.copy_(source.view_as(target))
