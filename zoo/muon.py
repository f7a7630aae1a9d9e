"""Muon for many small matrices at once: matrices of one shape are orthogonalised as one batch.

Source: Jordan et al., Muon, 2024 (kellerjordan.github.io/posts/muon): momentum, then five Newton-Schulz iterations.
"""

from __future__ import annotations

from collections import defaultdict

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class BatchedMuon(torch.optim.Optimizer):
    """Each group holds matrices (rows, columns) and `parts`: into how many matrices, one above the other, each splits."""

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.95):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "parts": 1})

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for matrices in by_shape.values():
                self._update(matrices, group)

    def _update(self, matrices: list[torch.Tensor], group: dict) -> None:
        momentum = group["momentum"]
        averages = [self.state[matrix].setdefault("average", torch.zeros_like(matrix)) for matrix in matrices]
        gradients = [matrix.grad for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(gradients, averages, momentum))  # Nesterov
        turned = orthogonalised(ahead.unflatten(1, (group["parts"], -1))).flatten(1, 2).to(ahead.dtype)
        rows, columns = matrices[0].shape[0] // group["parts"], matrices[0].shape[1]
        torch._foreach_add_(matrices, list(turned), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (..., rows, columns) with all singular values brought near 1, in bfloat16."""
    x = matrices.bfloat16()
    is_high = x.shape[-2] > x.shape[-1]
    x = x.mT if is_high else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_high else x
