import math

import torch
from diffusers.models.embeddings import get_timestep_embedding

from modules.time_embedding import TimeEmbedding, timestep_embedding


def test_sinusoids_are_those_of_ddpm():
    found = timestep_embedding(torch.tensor([0, 7, 999]), 6)
    frequencies = [1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]
    expected = [[f(t * w) for f in (math.cos, math.sin) for w in frequencies] for t in (0, 7, 999)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)
    theirs = get_timestep_embedding(
        torch.tensor([0, 7, 999]), 6, flip_sin_to_cos=True, downscale_freq_shift=0
    )
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=0)


def test_half_precision_keeps_the_time_exact():
    assert timestep_embedding(torch.tensor([998, 999]), 32).dtype == torch.float32
    embedding = TimeEmbedding(32, 8, spans=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert embedding(torch.tensor([999]), torch.tensor([999])).dtype == torch.float32
