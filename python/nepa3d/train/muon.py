"""Muon: weight matrices move along their orthogonalised momentum, all other parameters as AdamW moves them.

K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; the step is scaled to the size of
AdamW's (Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982). Its plain twin is ``torch.optim.Muon``,
which orthogonalises in bfloat16: slow on processors without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration's odd polynomial
ITERATIONS = 5
ADAMW_SIZE = 0.2  # root mean square of AdamW's steps, in learning rates


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``orthogonal`` true hold matrices that are moved as Muon moves them."""

    def __init__(
        self, groups: Iterable[Mapping[str, Any]], *, lr: float, weight_decay: float, betas: tuple[float, float]
    ) -> None:
        named = [{"orthogonal": False, **group} for group in groups]
        for group in named:
            for parameter in group["params"] if group["orthogonal"] else ():
                if parameter.ndim != 2:
                    raise ValueError(f"orthogonal parameters must have 2 axes, got shape {tuple(parameter.shape)}")
        super().__init__(named, lr=lr, weight_decay=weight_decay, betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters with a gradient."""
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["orthogonal"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group["orthogonal"]:
                self._move([p for p in group["params"] if p.grad is not None], group["lr"], group["weight_decay"])
        return loss

    def _move(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            alike.setdefault(matrix.shape, []).append(matrix)
        for shape, some in alike.items():
            steps = orthogonalized(torch.stack([self._direction(matrix) for matrix in some]))
            for matrix, step in zip(some, steps, strict=True):
                matrix.mul_(1 - lr * weight_decay).add_(step, alpha=-lr * ADAMW_SIZE * max(shape) ** 0.5)

    def _direction(self, matrix: Tensor) -> Tensor:
        """Nesterov's momentum of the matrix's gradient."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:  # AdamW expects a step in every state
            state["step"], state["momentum"] = torch.tensor(0.0), torch.zeros_like(matrix)
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices (n, a, b) with their singular values brought near 1 (about 0.7 to 1.2), by ``ITERATIONS`` steps of a
    Newton-Schulz iteration in float32."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
