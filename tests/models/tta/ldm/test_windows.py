"""Windows: exact where a function is local, and without a seam where it is not."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from models.tta.ldm.sampling import make_scheduler, sample, starting_noise
from models.tta.ldm.windows import by_windows, windowed
from tests.gaussian import CPU, SCHEDULE, STD, Correlated


@pytest.mark.parametrize(
    ("columns", "width"), [(9, 8), (10, 8), (17, 8), (60, 7), (5, 1), (31, 30)]
)
def test_what_is_local_is_what_it_would_be_in_one_piece(columns, width):
    """Also where a column stands for several frames before (an encoder) or after (a decoder)."""
    x = torch.randn(2, 3, 4, columns)
    assert torch.allclose(by_windows(lambda x: x.cos(), x, columns, width), x.cos(), atol=1e-6)

    def decode(x):
        return x.repeat_interleave(8, dim=-1).sin()

    torch.testing.assert_close(by_windows(decode, x, columns, width), decode(x))
    frames = torch.randn(1, 1, 4, 8 * columns)
    found = by_windows(lambda x: F.avg_pool2d(x, (1, 8)), frames, columns, width)
    torch.testing.assert_close(found, F.avg_pool2d(frames, (1, 8)))


@pytest.mark.parametrize("columns", [4, 8, 9, 12, 16, 17, 100])
def test_windows_are_as_trained_and_overlap_by_half(columns):
    """One at a time, so that what is in memory at once does not grow with the length."""
    seen = []

    def note(x):
        seen.append(x[0].round().int().tolist())
        return x

    by_windows(note, torch.arange(float(columns))[None], columns, 8)
    if columns <= 8:  # 8.8 is the slack
        assert seen == [list(range(columns))]
        return
    assert {len(window) for window in seen} == {8}
    assert seen[0][0] == 0
    assert seen[-1][-1] == columns - 1
    hops = [after[0] - before[0] for before, after in itertools.pairwise(seen)]
    assert 0 < min(hops) <= max(hops) <= 4
    assert max(hops) - min(hops) <= 1


def test_10_seconds_are_one_window_of_the_9984_ms_trained_on():
    assert by_windows(lambda x: x[..., :1], torch.ones(1, 79), 79, 78).shape == (1, 1)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_windows_make_what_one_long_window_makes(sampler):
    """Of data whose columns know nothing of each other: the very same, at every place."""
    denoise, noise = Correlated(SCHEDULE, 0.0), starting_noise((2, 4, 30), [0, 1], CPU)
    scheduler = [make_scheduler(sampler, SCHEDULE, 10) for _ in range(2)]
    long = sample(denoise, scheduler[0], noise)
    found = sample(windowed(denoise, 30, 8), scheduler[1], noise)
    torch.testing.assert_close(found, long, rtol=0, atol=1e-4)


def test_no_seam_is_found_where_neighbours_correlate():
    """Level and neighbours' correlation are the data's everywhere, at windows' edges, too."""
    columns, width, correlation = 40, 16, 0.7
    denoise = windowed(Correlated(SCHEDULE, correlation), columns, width)
    noise = starting_noise((4, 16, columns), range(64), CPU)
    made = sample(denoise, make_scheduler("dpm++", SCHEDULE, 20), noise)
    rows = made.permute(3, 0, 1, 2).flatten(1)
    neighbours = torch.corrcoef(rows).diagonal(1)
    assert (neighbours - correlation).abs().max() < 0.06
    assert (rows.std(dim=1) / STD - 1).abs().max() < 0.06
