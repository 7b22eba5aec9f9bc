"""AdamW and Muon as every stage uses them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from config.schema import AdamConfig, TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of the quintic a x + b x^3 + c x^5
NEWTON_SCHULZ_STEPS = 5
MUON_MOMENTUM = 0.95
MUON_RMS = 0.2  # of an update, about what AdamW's updates have (arXiv:2502.16982, eq. 4)
LONG = 2  # times its height: then the powers of its Gram matrix cost less
SMALLEST_SIDE = 16  # of a matrix that Muon takes; below, there is little to orthogonalise


def make_optimizer(network: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """What `train.optimizer` names: AdamW, or Muon for those that are matrices, of what learns."""
    learn = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if train.optimizer == "adamw":
        return adamw(learn, train.adam)
    tables = [m.weight for m in network.modules() if isinstance(m, nn.Embedding)]
    return Muon(learn, tables, train.adam)


def adamw(parameters: Iterable[nn.Parameter], adam: AdamConfig) -> torch.optim.AdamW:
    """One fused kernel for all parameters, on CPU and GPU."""
    return torch.optim.AdamW(
        parameters,
        lr=adam.lr,
        betas=tuple(adam.betas),
        eps=adam.eps,
        weight_decay=adam.weight_decay,
        fused=True,
    )


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), and AdamW for the rest.

    A weight [out, ...] is a matrix of `out` rows. Its step is the half-orthogonal matrix next to
    the momentum, times 0.2 sqrt(longer side), so that learning rate and weight decay are AdamW's
    (Liu et al. 2025, arXiv:2502.16982, eq. 4). Vectors, embeddings and matrices with a side below
    16, such as the first and the last convolution, go by AdamW.

    torch.optim.Muon takes nothing but matrices, orthogonalises in bfloat16, which CPUs are slow at,
    and has no inputs for clipping and skipping.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: list[Tensor], adam: AdamConfig
    ) -> None:
        """`tables`: the embeddings among the parameters."""
        parameters, known = list(parameters), {id(table) for table in tables}
        matrices = [p for p in parameters if id(p) not in known and _is_matrix(p)]
        known = {id(matrix) for matrix in matrices}
        others = [p for p in parameters if id(p) not in known]
        groups = [{"params": group} for group in (others, matrices) if group]
        defaults = {"lr": adam.lr, "weight_decay": adam.weight_decay, "fused": True}
        super().__init__(groups, defaults)
        self.others, self.matrices = adamw(others, adam) if others else None, matrices

    @torch.no_grad()
    def step(self) -> None:
        """`grad_scale` divides the gradients, `found_inf` leaves the step out, as in AdamW's."""
        rate, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        if self.others:
            self.others.state = self.state  # one state for both, which a checkpoint saves
            self.others.param_groups[0]["lr"] = rate
            self.others.grad_scale, self.others.found_inf = self.grad_scale, self.found_inf
            self.others.step()
        with _exact_products():
            for weight in self.matrices:
                if weight.grad is not None:
                    self._step_of(weight, rate, decay)

    def _step_of(self, weight: Tensor, rate: float, decay: float) -> None:
        kept, state = 1 - self.found_inf, self.state[weight]
        gradient = (weight.grad / self.grad_scale).where(kept.bool(), 0)
        momentum = state.setdefault("momentum", torch.zeros_like(weight))
        momentum.lerp_(gradient, (1 - MUON_MOMENTUM) * kept)
        update = orthogonalised(gradient.lerp_(momentum, MUON_MOMENTUM).flatten(1))
        size = MUON_RMS * max(update.shape) ** 0.5
        weight.mul_(1 - rate * decay * kept)
        weight.sub_(update.view_as(weight) * (rate * size * kept))


@contextmanager
def _exact_products() -> Iterator[None]:
    """Products in float32 proper, not TF32: powers of a Gram matrix need its small eigenvalues."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) >= SMALLEST_SIDE


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V^T of a matrix U S V^T, nearly: its singular values become 0.7 to 1.2.

    Five Newton-Schulz steps x <- (a + b x x^T + c (x x^T)^2) x with the coefficients of Jordan et
    al. 2024. The factors before x are polynomials of the first x x^T, so that those of a long x are
    multiplied alone, in a third of the time, and by x at the end (Gram Newton-Schulz, Zhang et al.
    2026, dao-lab.ai/blog/2026/gram-newton-schulz; its restarts are for half precision).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    if x.shape[1] < LONG * x.shape[0]:
        for _ in range(NEWTON_SCHULZ_STEPS):
            x = _factor(x @ x.T) @ x
        return x.T if tall else x
    gram = x @ x.T
    whole = factor = _factor(gram)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        whole = factor @ whole
    x = whole @ x
    return x.T if tall else x


def _factor(gram: Tensor) -> Tensor:
    """a + b gram + c gram^2"""
    a, b, c = NEWTON_SCHULZ
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


def learning_rate(train: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant, or falling to 0 at max_steps."""
    if step < train.warmup_steps:
        return train.adam.lr * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.max_steps - train.warmup_steps)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }
    return train.adam.lr * factor[train.lr_schedule]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients together, on their device: reading it would wait for the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def optimizer_step(
    optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, max_norm: float, skip: Tensor
) -> None:
    """One step at learning rate `rate`, with gradients clipped to `max_norm`; then no gradients.

    Args:
        norm: of this optimizer's gradients together.
        skip: a tensor, 0 or 1; 1 leaves weights and moments as they are.

    The fused kernel has two inputs for loss scaling, a divisor of the gradients and a flag to leave
    the step out. Here they clip and skip, which needs no pass over the gradients and no wait for
    the device.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale, optimizer.found_inf = (norm / max_norm).clamp(min=1), skip
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
