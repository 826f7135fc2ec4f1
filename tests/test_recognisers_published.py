"""Published recognisers have the sizes and shapes that their papers, or readings of them, give: NTU's 25 joints."""

from __future__ import annotations

import copy

import pytest
import torch

from motionsynth.recognisers import RecogniserInfo
from motionsynth.recognisers.cnn_lstm import CNNLSTM
from motionsynth.recognisers.relational_lstm import ITERATIONS, RelationalLSTM, Relations
from motionsynth.recognisers.skeleton_cnn import SkeletonCNN
from motionsynth.skeleton import get_skeleton


def ntu(classes: int = 60) -> RecogniserInfo:
    return RecogniserInfo(skeleton=get_skeleton("kinect25"), num_classes=classes, num_persons=2)


def millions(*modules: torch.nn.Module) -> float:
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


@pytest.mark.parametrize(("width", "size", "channels"), [(32, 8.81, 1024), (64, 16.49, 2048)])
def test_cnn_lstm(width: int, size: float, channels: int) -> None:
    model = CNNLSTM(ntu(classes=7), width=width)
    assert millions(model) == pytest.approx(size, abs=0.005)
    with torch.no_grad():
        assert model.sequence(torch.randn(1, 100, 25, 3)).shape == (1, 13, channels)
    plain = CNNLSTM(ntu(classes=7), width=width, batch_norm=False)
    assert millions(model) - millions(plain) == pytest.approx(2 * 15 * width / 1e6)


def test_cnn_lstm_convolves_as_where_frames_are_the_first_direction() -> None:
    torch.manual_seed(0)
    model = CNNLSTM(ntu(classes=7), width=8).eval()
    turned = copy.deepcopy(model.convolutions)
    for layer in turned:
        if isinstance(layer, torch.nn.Conv3d):
            layer.weight.data = layer.weight.data.permute(0, 1, 4, 2, 3)
    x_BTVC = torch.randn(2, 30, 25, 3)
    with torch.no_grad():
        expected = turned(x_BTVC[:, None]).permute(0, 2, 1, 3, 4).flatten(2)
        torch.testing.assert_close(model.sequence(x_BTVC), expected, atol=1e-5, rtol=1e-5)


def test_skeleton_cnn() -> None:
    model = SkeletonCNN(ntu())
    assert millions(model) == pytest.approx(1.013, abs=0.0005)
    with torch.no_grad():
        assert model.convolved(*torch.randn(2, 1, 3, 32, 25)).shape == (1, 256, 4, 2)
    mixing = model.position[0].map.weight  # pyright: ignore
    torch.testing.assert_close(mixing.T @ mixing, torch.eye(25), atol=1e-5, rtol=0)
    assert model.full[1].weight.detach().std().item() == pytest.approx(0.01, rel=0.05)


def test_relational_lstm() -> None:
    """6.14 M per stream with its own layer to 7 classes, of which the streams here share one."""
    model = RelationalLSTM(ntu(classes=7))
    assert millions(model.joints) + (512 + 1) * 7 / 1e6 == pytest.approx(6.14, abs=0.005)
    assert millions(model) == pytest.approx(12.26, abs=0.005)


def test_relations_are_the_published_ones_pair_by_pair() -> None:
    torch.manual_seed(0)
    p, n = 3, 4
    relations = Relations(n)
    torch.nn.init.normal_(relations.mask)
    x = torch.randn(p, n, 3)
    nodes = h = relations.embed(x)
    first = torch.cat([relations.receiver.weight, relations.sender.weight], 1)  # of concat(h_i, h_j)
    for _ in range(ITERATIONS):
        messages = torch.zeros_like(h)
        for i in range(n):
            for j in set(range(n)) - {i}:
                z = torch.cat([h[:, i], h[:, j]], -1) @ first.T + relations.receiver.bias
                messages[:, i] += relations.last(relations.middle(z.relu()).relu())
        h = torch.stack(
            [relations.update(torch.cat([nodes[:, i], messages[:, i]], -1), h[:, i]) for i in range(n)], 1
        )
    wanted = relations.merge(torch.cat([relations.mask[i] * h[:, i] for i in range(n)], -1))
    torch.testing.assert_close(relations(x), wanted, atol=1e-5, rtol=1e-4)
    ways = [
        torch.autograd.grad(y.square().sum(), list(relations.parameters())) for y in (relations(x), wanted)
    ]
    torch.testing.assert_close(*ways, atol=1e-3, rtol=1e-3)
