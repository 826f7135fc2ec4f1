"""ST-GCN++: the published size, the graph from the skeleton, and the plain way's outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from motionsynth.errors import InputError
from motionsynth.recognisers import RecogniserInfo, stgcn
from motionsynth.recognisers.stgcn import STGCN, branch_widths, spatial_graph
from motionsynth.skeleton import get_skeleton, shipped
from tests import reference_stgcn as reference


def info(skeleton: str = "kinect25", classes: int = 60) -> RecogniserInfo:
    return RecogniserInfo(skeleton=get_skeleton(skeleton), num_classes=classes, num_persons=2)


def test_published_size() -> None:
    model = STGCN.published(info(), streams=("joint",))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(1.403, abs=0.0005)
    assert (model.frames, model.head.in_features) == (100, 256)
    assert [branch_widths(c) for c in (64, 128, 256)] == [
        (14, 10, 10, 10, 10, 10), (23, 21, 21, 21, 21, 21), (46, 42, 42, 42, 42, 42),
    ]  # fmt: skip


@pytest.mark.parametrize("skeleton", shipped())
def test_the_graph_is_the_skeleton(skeleton: str) -> None:
    sk = get_skeleton(skeleton)
    itself, inward, outward = spatial_graph(sk).numpy()
    assert (itself == torch.eye(sk.num_joints).numpy()).all()
    assert ((inward + outward > 0) == (sk.adjacency > 0)).all()
    for child, parent in sk.bones:
        # Inwards a joint with one parent gives it everything; outwards the parent's share is one of its children's.
        assert inward[parent, child] == 1
        assert outward[child, parent] == pytest.approx(1 / sk.parents.count(parent))


def both(skeleton: str = "kinect20", base: int = 12) -> tuple[stgcn.Trunk, reference.Trunk]:
    """The fast and the plain trunk with the same weights, drawn so that every one of them matters."""
    torch.manual_seed(0)
    sk = get_skeleton(skeleton)
    fast, plain = stgcn.Trunk(sk, base).double(), reference.Trunk(sk, base).double()
    with torch.no_grad():
        for name, value in [*fast.named_parameters(), *fast.named_buffers()]:
            if "norm" in name and value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5)
    reference.copy_weights(fast, plain)
    return fast, plain


@pytest.mark.parametrize("training", [True, False])
def test_as_the_plain_way(training: bool) -> None:
    fast, plain = both()
    fast.train(training), plain.train(training)
    x, y = (
        torch.randn(
            3, 17, 20, 3, dtype=torch.double, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        for _ in range(2)
    )
    outputs = fast(x), plain(y)
    torch.testing.assert_close(*outputs)
    for out in outputs:
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    seen: set[int] = set()
    for value, parts in reference.pairs(fast, plain):
        seen |= {id(p) for p in parts}
        torch.testing.assert_close(value, torch.cat([p.view(-1, *value.shape[1:]) for p in parts]))
        if value.requires_grad:
            wanted = torch.cat([p.grad.view(-1, *value.shape[1:]) for p in parts])  # pyright: ignore
            torch.testing.assert_close(value.grad, wanted, atol=1e-6, rtol=1e-5)
    assert seen >= {id(p) for p in plain.parameters()}  # nothing of the plain trunk was left uncompared


def test_single_precision_is_close_enough() -> None:
    fast, plain = (t.float() for t in both("kinect25", base=32))
    x = torch.randn(4, 24, 25, 3, generator=torch.Generator().manual_seed(1))
    a, b = fast(x), plain(x)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_graph_convolution_has_its_own_gradient() -> None:
    torch.manual_seed(0)
    shapes = ((4, 5, 3), (3, 4, 4), (3, 2, 3), (4, 2))
    inputs = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(stgcn.GraphConvolution.apply, inputs)


def test_streams() -> None:
    model = STGCN(info("kinect20"), base=6, streams=stgcn.STREAMS)
    x = torch.randn(2, 9, 20, 3, generator=torch.Generator().manual_seed(0))
    x[1, 4] = 0  # nobody in this frame
    made = model.inputs(x)
    child, parent = model.info.skeleton.bones[3]
    torch.testing.assert_close(made["bone"][0, :, child], x[0, :, child] - x[0, :, parent])
    assert (made["bone"][:, :, model.info.skeleton.root] == 0).all()
    torch.testing.assert_close(made["joint_motion"][0, 2], x[0, 3] - x[0, 2])
    torch.testing.assert_close(made["bone_motion"][0, 2], made["bone"][0, 3] - made["bone"][0, 2])
    assert (made["joint_motion"][:, -1] == 0).all() and (made["joint_motion"][1, 3:5] == 0).all()


def test_one_layer_on_all_streams_is_the_sum_of_a_layer_each() -> None:
    model = STGCN(info("kinect20", classes=4), base=6).eval()
    x = torch.randn(2, 1, 16, 20, 3, generator=torch.Generator().manual_seed(0))
    inputs, width = model.inputs(x[:, 0]), 24
    with torch.no_grad():
        each = [
            trunk(inputs[s]) @ model.head.weight[:, i * width : (i + 1) * width].T
            for i, (trunk, s) in enumerate(zip(model.trunks, ("joint", "bone"), strict=True))
        ]
        torch.testing.assert_close(model(x), each[0] + each[1] + model.head.bias, atol=1e-6, rtol=1e-5)


def test_absent_persons_do_not_pass_through_the_normalisations() -> None:
    torch.manual_seed(0)
    model = STGCN(info("kinect20"), base=6).train()
    x = torch.randn(4, 2, 16, 20, 3)
    x[:, 1] = 0
    torch.testing.assert_close(model(x), model(x[:, :1]))


@pytest.mark.parametrize("streams", [(), ("joint", "angle")])
def test_wrong_streams(streams: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="The streams are .* give one or more of joint, bone, joint_motion"):
        STGCN(info(), streams=streams)
