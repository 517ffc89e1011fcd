"""One optimiser with two rules: orthogonalised momentum for matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

# Jordan et al. 2024: steepest at zero of the odd quintics that keep [0, 1] in about [0.7, 1.2].
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(
    matrices: Float[Tensor, "b m n"], steps: int = 5, dtype: torch.dtype | None = None
) -> Float[Tensor, "b m n"]:
    """Move all singular values of matrices near 1 and keep their singular vectors.

    Args:
        matrices: Any matrices but zero; together they take a third of the time of one by one.
        steps: Newton-Schulz iterations.
        dtype: Precision of the iterations; by default that of the matrices.

    Returns:
        About ``U V^T`` of the decomposition ``U S V^T``: singular values between 0.6 and 1.3,
        except those that are far below the largest.

    Source:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
        https://kellerjordan.github.io/posts/muon, algorithm 2. The iteration pulls its own
        rounding errors back, so bfloat16 will do.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the product below is then the small one
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    x = (x if dtype is None else x.to(dtype)).contiguous()
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups with ``orthogonal=True``, AdamW for the others.

    Kernels of convolutions count as matrices of output channels by everything else. The step of a
    matrix has the root mean square of a typical step of AdamW, so one learning rate and one weight
    decay serve both.

    Args:
        params: Parameters, or groups of them; groups may set any of the options below.
        lr: Learning rate of both rules.
        weight_decay: Share of a weight that is taken off per unit of learning rate.
        momentum: Of orthogonalised groups.
        newton_schulz_steps: Iterations per step of a matrix.
        newton_schulz_dtype: Their precision; by default that of the matrix.
        betas: Of AdamW groups.
        eps: Of AdamW groups.
        orthogonal: The rule.

    Raises:
        ValueError: If an orthogonalised group holds vectors.

    Source:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, algorithm 1 with Nesterov
        momentum; the scale of the step: Liu et al. 2025, "Muon is Scalable for LLM Training",
        arXiv:2502.16982, eq. 4; AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        newton_schulz_steps: int = 5,
        newton_schulz_dtype: torch.dtype | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        orthogonal: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "newton_schulz_steps": newton_schulz_steps,
            "newton_schulz_dtype": newton_schulz_dtype,
            "betas": tuple(betas),
            "eps": eps,
            "orthogonal": orthogonal,
        }
        super().__init__(params, options)
        for group in self.param_groups:
            flat = [tuple(p.shape) for p in group["params"] if p.ndim < 2]
            if group["orthogonal"] and flat:
                raise ValueError(f"got a parameter of shape {flat[0]}, expected at least two axes")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                for alike in _by_shape(params).values():
                    self._orthogonal_step(alike, group)
            else:
                self._adamw_step(params, group)
        return loss

    def _orthogonal_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Step parameters that are matrices of one shape."""
        directions = []
        for param in params:
            state, grad = self.state[param], param.grad
            assert grad is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(param)
            state["momentum"].lerp_(grad, 1 - group["momentum"])
            directions.append(grad.lerp(state["momentum"], group["momentum"]).flatten(1))
        updates = orthogonalize(
            torch.stack(directions), group["newton_schulz_steps"], group["newton_schulz_dtype"]
        )
        rms = 0.2 * math.sqrt(max(updates.shape[1:]))  # Liu et al. 2025, eq. 4
        for param, update in zip(params, updates, strict=True):
            param.mul_(1 - group["lr"] * group["weight_decay"])
            param.add_(update.reshape(param.shape), alpha=-group["lr"] * rms)

    def _adamw_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        if not params:
            return
        for param in params:
            state = self.state[param]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
        states = [self.state[param] for param in params]
        adamw(
            params,
            [param.grad for param in params],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _by_shape(params: Iterable[Tensor]) -> dict[tuple[int, ...], list[Tensor]]:
    """Parameters that are matrices of the same shape, kernels flattened."""
    alike: dict[tuple[int, ...], list[Tensor]] = {}
    for param in params:
        alike.setdefault((len(param), param[0].numel()), []).append(param)
    return alike
