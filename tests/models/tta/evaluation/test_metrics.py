"""The metrics against scipy, closed forms and sums by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from models.tta.evaluation import metrics


def normal(count, width, seed, scale=1.0, shift=0.0):
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=draw, dtype=torch.float64)
    return torch.randn(count, width, generator=draw, dtype=torch.float64) @ mix * scale + shift


def frechet_by_scipy(a, b):
    a, b = a.numpy(), b.numpy()
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(one @ two).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + two - 2 * root)


@pytest.mark.parametrize(("n", "m", "width"), [(300, 200, 8), (40, 30, 8), (9, 400, 6)])
def test_frechet_distance_is_scipys(n, m, width):
    a, b = normal(n, width, 1), normal(m, width, 2, 0.7, 0.3)
    assert metrics.frechet_distance(a, b) == pytest.approx(frechet_by_scipy(a, b), rel=1e-9)


def test_frechet_distance_of_fewer_clips_than_dimensions():
    """Both covariances are singular: the root's trace from the eigenvalues of their product."""
    a, b = normal(6, 20, 1), normal(7, 20, 2)
    one, two = (torch.cov(x.T) for x in (a, b))
    root = torch.linalg.eigvals(one @ two).real.clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + one.trace() + two.trace() - 2 * root
    assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distance_of_two_known_gaussians():
    """N(0, diag(1, 4)) and N((3, 0), diag(9, 1)): 9 + (1 - 3)^2 + (2 - 1)^2 = 14, exactly."""
    corners = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    whole = corners * math.sqrt(3 / 4)  # unit variance with N - 1
    a = whole * torch.tensor([1.0, 2.0])
    b = whole * torch.tensor([3.0, 1.0]) + torch.tensor([3.0, 0.0])
    assert metrics.frechet_distance(a, b) == pytest.approx(14.0, abs=1e-12)
    assert metrics.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)


def test_softmax_kl_by_hand():
    p, q = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)]]), torch.zeros(1, 3)
    by_hand = 0.5 * math.log(0.5 * 3) + 2 * 0.25 * math.log(0.25 * 3)
    assert metrics.softmax_kl(p, q).item() == pytest.approx(by_hand, rel=1e-7)
    other_way = -(math.log(0.5 * 3) + 2 * math.log(0.25 * 3)) / 3
    assert metrics.softmax_kl(q, p).item() == pytest.approx(other_way, rel=1e-7)
    with_epsilon = sum(x * math.log(x / (1 / 3 + 0.01)) for x in (0.5, 0.25, 0.25))
    assert metrics.softmax_kl(p, q, 0.01).item() == pytest.approx(with_epsilon, rel=1e-7)


def test_sigmoid_kl_by_hand():
    p, q = torch.tensor([[math.log(0.8 / 0.2), 0.0]]), torch.tensor([[0.0, math.log(0.1 / 0.9)]])
    yes = 0.8 * math.log(0.8 / 0.5) + 0.5 * math.log(0.5 / 0.1)
    no = 0.2 * math.log(0.2 / 0.5) + 0.5 * math.log(0.5 / 0.9)
    assert metrics.sigmoid_kl(p, q).item() == pytest.approx(yes + no, rel=1e-6)
    assert metrics.one_sided_sigmoid_kl(p, q, 0.0).item() == pytest.approx(yes, rel=1e-6)


def test_inception_score_of_clear_and_of_equal_clips():
    """Sure and evenly spread over k classes: k; all clips alike: 1."""
    sure = 200.0 * torch.eye(4).repeat(5, 1)
    assert metrics.inception_score(sure).item() == pytest.approx(4.0)
    assert metrics.inception_score(torch.randn(1, 9).repeat(20, 1)).item() == pytest.approx(1.0)


def test_inception_score_takes_parts_in_numpys_shuffled_order():
    logits = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    order = np.random.RandomState(2020).permutation(23)
    scores = metrics.inception_score(logits, 4, 2020)
    p = torch.softmax(logits.double(), 1).numpy()[order]
    for part, score in enumerate(scores.tolist()):
        chunk = p[part * 23 // 4 : (part + 1) * 23 // 4]
        kl = (chunk * np.log(chunk / chunk.mean(0))).sum(1).mean()
        assert score == pytest.approx(math.exp(kl), rel=1e-9)


def test_kernel_distance_by_loops():
    a, b = normal(7, 3, 1), normal(6, 3, 2, shift=0.5)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    apart = sorted(math.dist(b[i], b[j]) for i, j in pairs)
    width = apart[(len(apart) - 1) // 2]

    def k(x, y):
        return math.exp(-(math.dist(x, y) ** 2) / (2 * width**2))

    within = [
        sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j)
        / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    between = sum(k(x, y) for x in a for y in b) / 42
    by_hand = 100 * (sum(within) - 2 * between)
    assert metrics.kernel_distance(a, b) == pytest.approx(by_hand, rel=1e-6)


def test_kernel_distance_of_equal_distributions_is_zero_on_average():
    """What is biased, as the sum over all pairs, would be near 1 here."""
    draw = torch.Generator().manual_seed(0)
    values = [
        metrics.kernel_distance(*torch.randn(2, 100, 4, generator=draw).unbind()) for _ in range(40)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(40)


def test_nearest_kind_leaves_the_clip_itself_out():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 0.05]])
    kinds = ["a", "a", "b", "b", "c"]
    assert metrics.nearest_kind(embeddings[2:4], embeddings, kinds) == ["b", "b"]
    assert metrics.nearest_kind(embeddings, embeddings, kinds)[4] == "c"
    assert metrics.nearest_kind(embeddings, embeddings, kinds, leave_out=True)[4] == "a"


def test_standard_error_of_a_mean_is_the_textbooks():
    values = torch.randn(400, generator=torch.Generator().manual_seed(3))
    error = metrics.standard_error(lambda i: float(values[i].mean()), [400], 400)
    assert error == pytest.approx(float(values.std()) / 20, rel=0.15)
