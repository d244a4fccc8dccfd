"""Muon: against the singular value decomposition, PyTorch's own in bfloat16, and AdamW for the other parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nepa3d.models.checkpoint import model_for
from nepa3d.train.muon import Muon, orthogonalized
from nepa3d.train.pretrain import optimizer_of
from nepa3d.train.schedule import LearningRateFlags

SETTINGS = {"lr": 0.01, "weight_decay": 0.05, "betas": (0.9, 0.98)}


def _parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(12, 8), (8, 20), (12, 8), (8,), (6, 4)]
    ]


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    return [{"params": parameters[3:]}, {"params": parameters[:3], "orthogonal": True}]


def _gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 40)])
def test_singular_values_are_brought_near_one(shape: tuple[int, int]) -> None:
    matrices = (
        torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1e-4, 1.0, 50.0])[:, None, None]
    )
    found = orthogonalized(matrices)
    for matrix, close in zip(matrices, found, strict=True):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        kept = torch.diag(left.mT @ close @ right.mT)  # the same singular vectors
        torch.testing.assert_close(left @ torch.diag(kept) @ right, close, atol=1e-4, rtol=0)
        large = values > 0.05 * values.max()  # the smallest are not reached in five steps
        assert kept[large].min() > 0.5 and kept.max() < 1.3
        torch.testing.assert_close(orthogonalized(matrix[None])[0], close, atol=1e-5, rtol=0)
    assert (orthogonalized(torch.zeros(1, *shape)) == 0).all()


def test_matrices_move_as_pytorch_moves_them_and_others_as_adamw_does() -> None:
    ours, matrices, others = _parameters(), _parameters()[:3], _parameters()[3:]
    optimizer = Muon(_groups(ours), **SETTINGS)
    twins = (
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, **SETTINGS),
    )
    for number in range(4):
        before = [p.detach().clone() for p in matrices]
        _gradients(ours, number)
        for parameter, gradient in zip(matrices + others, [p.grad for p in ours], strict=True):
            parameter.grad = gradient
        with torch.no_grad():  # each step of the matrices from the same place
            for parameter, twin in zip(ours, matrices, strict=False):
                parameter.copy_(twin)
        for each in (optimizer, *twins):
            each.step()
        for own, twin, start in zip(ours, matrices, before, strict=False):
            assert _apart(own - start, twin - start) < 0.03
        for own, twin in zip(ours[3:], others, strict=True):
            torch.testing.assert_close(own, twin, atol=0, rtol=0)


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def test_a_saved_state_goes_on_to_the_same_bits() -> None:
    first = _parameters()
    optimizer = Muon(_groups(first), **SETTINGS)
    for number in range(3):
        _gradients(first, number)
        optimizer.step()
    second = [nn.Parameter(p.detach().clone()) for p in first]
    resumed = Muon(_groups(second), **SETTINGS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameters, each in ((first, optimizer), (second, resumed)):
        _gradients(parameters, 9)
        each.step()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_a_parameter_without_gradient_stays_and_a_vector_is_refused() -> None:
    parameters = _parameters()
    optimizer = Muon(_groups(parameters), **SETTINGS)
    _gradients(parameters, 0)
    parameters[0].grad = None
    before = parameters[0].detach().clone()
    optimizer.step()
    assert (parameters[0] == before).all() and len(optimizer.state) == 4
    with pytest.raises(ValueError, match=r"orthogonal parameters must have 2 axes, got shape \(8,\)"):
        Muon([{"params": parameters[3:4], "orthogonal": True}], **SETTINGS)


def test_it_moves_the_matrices_of_the_layers_and_nothing_else() -> None:
    args = {"d_model": 32, "layers": 2, "heads": 2, "n_point": 8, "n_ray": 0, "qa_tokens": 0, "add_eos": 1}
    model = model_for({**args, "objective": "query", "kernel_attention": 1, "answer_keys": 1, "answer_head": 1})
    optimizer = optimizer_of(model, LearningRateFlags(), "muon")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [group for group in optimizer.param_groups if group["orthogonal"]]
    assert len(moved) == 1 and moved[0]["rate"] == 1.0
    found = {names[id(parameter)].split(".", 4)[-1] for parameter in moved[0]["params"]}
    assert found == {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}
    everything = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(everything) == sorted(names)
    assert not isinstance(optimizer_of(model, LearningRateFlags()), Muon)
