"""The best linear guess at a clean clip from a noised one, which a denoiser then only has to mend.

Motion is smooth: most of what noise adds lies in fast waves, where clips have next to nothing. A Wiener filter over
the cosines of time (DCT-II), with the mean and the power that training clips have at each of them, takes that away in
closed form at every level of noise; the network's answer is added in units of what is left unknown. This is the
preconditioning of Karras et al. (NeurIPS 2022, section 5) for values that are neither independent nor of one spread.

Shape letters: B clips, T frames, D features a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motionsynth.generators.layers import cosine_basis


class WienerGuess(nn.Module):
    """See the module; `fit` it before use.

    Args:
        frames: T.
        dims: D.
    """

    basis: Tensor
    mean: Tensor
    power: Tensor

    def __init__(self, frames: int, dims: int) -> None:
        super().__init__()
        self.register_buffer("basis", cosine_basis(frames, frames), persistent=False)
        self.register_buffer("mean", torch.zeros(frames, dims))
        self.register_buffer("power", torch.ones(frames, dims))

    @torch.no_grad()
    def fit(self, z_BTD: Tensor, mask_B1D: Tensor) -> None:
        """Mean and power from normalised features of training clips; `mask_B1D` tells which count."""
        seen = mask_B1D.to(z_BTD)
        count = seen.sum(0).clamp_min(1)
        self.mean.copy_((z_BTD * seen).sum(0) / count)
        waves = self.basis @ ((z_BTD - self.mean) * seen)
        self.power.copy_((waves.square().sum(0) / count).clamp_min(1e-6))

    def forward(self, x_BTD: Tensor, alpha_bar: Tensor, answer: Tensor) -> Tensor:
        """Noised clip, alpha_bar of its time [B] and the network's answer [B, T, D] -> clean clip, float32."""
        with torch.autocast(x_BTD.device.type, enabled=False):
            a = alpha_bar.to(self.power).view(-1, 1, 1)
            total = a * self.power + (1 - a)
            known = self.basis @ (x_BTD.float() - a.sqrt() * self.mean)
            unknown = self.basis @ answer.float()
            waves = a.sqrt() * self.power / total * known + (self.power * (1 - a) / total).sqrt() * unknown
            return self.mean + self.basis.T @ waves
