"""The metrics, as functions of embeddings and logits; all in float64.

N clips, D numbers an embedding, C classes. None of them looks at files or names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """||mean_a - mean_b||^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), [N, D] and [M, D].

    Dowson and Landau, 1982, equation 4; Heusel et al., 2017 (arXiv:1706.08500), equation 6; Kilgour
    et al., 2019 (arXiv:1812.08466) on VGGish. With centred A and B, the last trace is the sum of
    the singular values of A B^T / sqrt((N - 1)(M - 1)): no root of a singular product is taken.
    """
    a, b = a.double(), b.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    a = (a - a.mean(0)) / (len(a) - 1) ** 0.5
    b = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    spread = a.square().sum() + b.square().sum()
    # Orthogonal factors change no singular value; what is left is at most D x D.
    a, b = (torch.linalg.qr(x, "r").R if len(x) > x.shape[1] else x for x in (a, b))
    return float(shift + spread - 2 * torch.linalg.svdvals(a @ b.T).sum())


def softmax_kl(p: Tensor, q: Tensor, epsilon: float = 0.0) -> Tensor:
    """KL(p || q) of softmax distributions, logits [N, C] -> [N] nats.

    Published figures are KL(reference || generated). `epsilon` is added to q, as audioldm_eval
    does with 1e-6.
    """
    p, q = p.double(), q.double()
    log_q = q.log_softmax(1) if epsilon == 0 else (q.softmax(1) + epsilon).log()
    return (p.softmax(1) * (p.log_softmax(1) - log_q)).sum(1)


def sigmoid_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of C independent yes-or-no distributions, logits [N, C] -> [N] nats, summed."""
    p, q = p.double(), q.double()
    yes = p.sigmoid() * (F.logsigmoid(p) - F.logsigmoid(q))
    no = (-p).sigmoid() * (F.logsigmoid(-p) - F.logsigmoid(-q))
    return (yes + no).sum(1)


def one_sided_sigmoid_kl(p: Tensor, q: Tensor, epsilon: float = 1e-6) -> Tensor:
    """audioldm_eval's kullback_leibler_divergence_sigmoid: `sigmoid_kl` without the half of "no".

    It is no divergence (it can be negative) and is here to reproduce printed figures.
    """
    p, q = p.double(), q.double()
    return (p.sigmoid() * (F.logsigmoid(p) - (q.sigmoid() + epsilon).log())).sum(1)


def inception_score(logits: Tensor, splits: int = 1, seed: int | None = None) -> Tensor:
    """exp(mean KL(p(y|x) || p(y))) of each of `splits` parts, logits [N, C] -> [splits].

    Salimans et al., 2016 (arXiv:1606.03498), section 4. With a seed, clips are shuffled first by
    numpy's RandomState, as audioldm_eval and av-benchmark do with 2020.
    """
    if seed is not None:
        logits = logits[torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))]
    bounds = [part * len(logits) // splits for part in range(splits + 1)]
    scores = []
    for start, end in pairwise(bounds):
        log_p = logits[start:end].double().log_softmax(1)
        marginal = log_p.exp().mean(0, keepdim=True)
        scores.append((log_p.exp() * (log_p - marginal.log())).sum(1).mean().exp())
    return torch.stack(scores)


def kernel_distance(a: Tensor, b: Tensor, bandwidth: float | None = None) -> float:
    """KAD: 100 times the unbiased MMD^2 of a Gaussian kernel, [N, D] and reference [M, D].

    Chung et al., 2025 (arXiv:2502.15602), equations 3 and 5; Gretton et al., 2012, equation 3. The
    bandwidth is the median distance within the reference. Being unbiased, it can be negative.
    """
    a, b = a.double(), b.double()
    bandwidth = bandwidth or median_distance(b)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-torch.cdist(x, y).square() / (2 * bandwidth**2 + 1e-8)).exp()

    def within(x: Tensor) -> Tensor:
        off_diagonal = ~torch.eye(len(x), dtype=torch.bool)
        return kernel(x, x)[off_diagonal].mean()

    return 100 * float(within(a) + within(b) - 2 * kernel(a, b).mean())


def median_distance(embeddings: Tensor) -> float:
    return float(torch.pdist(embeddings.double()).median())


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """CLAP score: cosine of each pair of rows, [N, D] and [N, D] -> [N]."""
    return F.cosine_similarity(a.double(), b.double(), dim=1)


def nearest_kind(
    embeddings: Tensor, references: Tensor, kinds: Sequence[str], leave_out: bool = False
) -> list[str]:
    """The kind whose mean reference embedding points most nearly the same way, for each row.

    Args:
        embeddings: [N, D].
        references: [M, D], of the `kinds` [M].
        leave_out: the embeddings are the references themselves; each is left out of its own mean.
    """
    names = sorted(set(kinds))
    members = torch.tensor([[kind == name for name in names] for kind in kinds]).double()
    references = F.normalize(references.double(), dim=1)
    sums = (members.T @ references).expand(len(embeddings), -1, -1)
    rows = F.normalize(embeddings.double(), dim=1)
    if leave_out:
        sums = sums - members[:, :, None] * rows[:, None]
    similarity = F.cosine_similarity(rows[:, None], sums, dim=2)
    return [names[i] for i in similarity.argmax(1).tolist()]


def standard_error(
    score: Callable[..., float], sizes: Sequence[int], replicates: int, seed: int = 0
) -> float:
    """How much `score` varies from draw to draw of the clips, by bootstrap (Efron, 1979).

    Args:
        score: takes an index [size] for each of `sizes`, drawn with replacement.
        sizes: numbers of clips of the sets that are drawn independently.
    """
    draw = torch.Generator().manual_seed(seed)
    values = [
        score(*(torch.randint(size, (size,), generator=draw) for size in sizes))
        for _ in range(replicates)
    ]
    return float(np.std(values, ddof=1))
