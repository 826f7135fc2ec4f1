"""The dual-stream critic of Galstyan 2025 on skeletons: poses, and their displacement field (the flow).

Hinge loss (Lim & Ye 2017), spectral normalisation (Miyato et al., ICLR 2018), projection conditioning (Miyato &
Koyama, ICLR 2018), minibatch standard deviation (Karras et al., ICLR 2018), and one random view per clip of real
and synthetic alike (DiffAugment, Zhao et al., NeurIPS 2020; clip-consistent as in StyleGAN-V).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from motionsynth.augment import rotation


def random_view(x_BMTVC: Tensor, yaw: float = 0.4, scale: float = 0.1) -> Tensor:
    """Turn about the vertical and scale, one draw per clip, differentiable; the origin stays."""
    b = x_BMTVC.shape[0]
    angles = torch.zeros(b, 3, device=x_BMTVC.device)
    angles[:, 1] = (torch.rand(b, device=x_BMTVC.device) * 2 - 1) * yaw
    size = 1 + (torch.rand(b, 1, 1, device=x_BMTVC.device) * 2 - 1) * scale
    with torch.autocast(x_BMTVC.device.type, enabled=False):
        return torch.einsum("bmtvc,bdc->bmtvd", x_BMTVC, rotation(angles) * size)


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv1d(channels, out, kernel, stride=stride, padding=kernel // 2))


class DualStreamCritic(nn.Module):
    """[B, M, T, V, 3] (in units of `Context.scale`) and classes [B] -> one logit per clip and stream.

    The pose stream judges single frames (kernel 1) before time is mixed; the flow stream sees displacements
    alone; the joint head sees both. `early` lists the layers that FreezeD (Mo et al. 2020) holds fixed.
    """

    def __init__(self, persons: int, joints: int, classes: int, width: int, root: int) -> None:
        super().__init__()
        c, channels = width, persons * joints * 3
        self.root = root
        self.activation = nn.LeakyReLU(0.2, inplace=True)
        self.pose_in, self.pose_frame = _conv(channels, c, 1), _conv(c, c, 1)
        self.pose_time = nn.ModuleList([_conv(c, c, 3, 2), _conv(c, 2 * c, 3, 2)])
        self.flow_in = _conv(channels, c, 3)
        self.flow_time = nn.ModuleList([_conv(c, c, 3, 2), _conv(c, 2 * c, 3, 2)])
        self.joint_time = _conv(4 * c + 1, 2 * c, 3, 2)
        tables = {k: nn.Embedding(classes, n) for k, n in self._sizes(c).items()}
        self.out = nn.ModuleDict({k: spectral_norm(nn.Linear(n, 1)) for k, n in self._sizes(c).items()})
        for table in tables.values():
            nn.init.normal_(table.weight, std=0.1)
        self.embedding = nn.ModuleDict(tables)
        self.early = nn.ModuleList([self.pose_in, self.flow_in])

    @staticmethod
    def _sizes(c: int) -> dict[str, int]:
        return {"adversarial": 2 * c, "flow": 2 * c, "pose": c}

    def forward(self, x_BMTVC: Tensor, y_B: Tensor) -> dict[str, Tensor]:
        """Logits [B] named like the loss terms: adversarial (joint head), flow, pose."""
        b, m, t, v, _ = x_BMTVC.shape
        # Time last from here on: all that follows then runs along contiguous memory.
        x = x_BMTVC.permute(0, 1, 3, 4, 2).contiguous()
        root = x[:, :, self.root : self.root + 1]
        there = (x != 0).flatten(2, 3).any(2)[:, :, None, None]
        local = (x - root) * there
        # The root's own place stands where its offset would be 0, so that no coordinate is wasted.
        pose = torch.cat([local[:, :, : self.root], root, local[:, :, self.root + 1 :]], 2)
        flow = nn.functional.pad((x[..., 1:] - x[..., :-1]) * (t / 4), (0, 1))
        act = self.activation
        p = act(self.pose_frame(act(self.pose_in(pose.view(b, m * v * 3, t)))))
        f = act(self.flow_in(flow.view(b, m * v * 3, t)))
        features = {"pose": p.mean(-1)}
        for layer in self.pose_time:
            p = act(layer(p))
        for layer in self.flow_time:
            f = act(layer(f))
        features["flow"] = f.mean(-1)
        both = torch.cat([p, f], 1)
        # The standard deviation over clips, several times faster than Tensor.std over an outer axis.
        centred = both - both.mean(0)
        spread = torch.linalg.vector_norm(centred, dim=0).mean() / b**0.5
        spread = spread.expand(b, 1, both.shape[-1])
        features["adversarial"] = act(self.joint_time(torch.cat([both, spread], 1))).mean(-1)
        return {
            k: (self.out[k](h).squeeze(-1) + (h * self.embedding[k](y_B)).sum(-1))
            for k, h in features.items()
        }
