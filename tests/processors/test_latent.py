import os
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from config.model_schema import AutoencoderKLConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from processors import latent
from processors.dataset import mel_frames, read_segment
from processors.latent import build_latent_cache, window_starts

SEGMENT = 8


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(AutoencoderKLConfig(32, [1, 1], 1, False, 1, 1, 2, True)).eval()


@pytest.fixture
def paths(tmp_path):
    random = np.random.default_rng(0)
    for clip, frames in enumerate((5, 8, 21)):
        np.save(tmp_path / f"{clip}.npy", random.normal(size=(4, frames)).astype(np.float32))
    return [tmp_path / f"{clip}.npy" for clip in range(3)]


def build(folder, paths, vae, fingerprint="vae 1"):
    names, accelerator = [*map(str, paths)], Accelerator(cpu=True)
    return build_latent_cache(folder, names, Path, SEGMENT, vae, fingerprint, accelerator)


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, [0]), (8, [0]), (9, [0]), (10, [0, 2]), (16, [0, 4, 8]), (21, [0, 4, 8, 12, 13])],
)
def test_windows_overlap_by_half_and_the_last_ends_with_the_clip(frames, starts):
    assert window_starts(frames, SEGMENT) == starts


def test_a_row_is_the_posterior_of_its_window(tmp_path, paths, vae):
    cache = build(tmp_path / "cache", paths, vae)
    assert cache.first.tolist() == [0, 1, 2, 7]
    windows = [(0, 0), (1, 0), (2, 0), (2, 4), (2, 8), (2, 12), (2, 13)]
    for row, (clip, start) in enumerate(windows):
        mel = torch.from_numpy(read_segment(paths[clip], SEGMENT, start))[None, None]
        with torch.no_grad():
            posterior = vae.encode(mel)
        expected = torch.cat([posterior.mean, posterior.std])
        found = cache.posteriors([row])[0].float()
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)  # half precision


def test_a_random_window_is_any_of_the_clip_s(tmp_path, paths, vae):
    cache = build(tmp_path / "cache", paths, vae)
    random = np.random.default_rng(1)
    assert {cache.window(2, random) for _ in range(100)} == {2, 3, 4, 5, 6}
    assert cache.window(2) == 2
    assert cache.window(0, random) == 0


def test_a_second_run_encodes_nothing_and_any_change_encodes_anew(
    tmp_path, paths, vae, monkeypatch
):
    folder = tmp_path / "cache"
    first = build(folder, paths, vae)
    again = build(folder, paths, None)  # no VAE needed
    assert np.array_equal(again.rows.blocks, first.rows.blocks)
    build(folder, paths, vae, "vae 2")
    os.utime(paths[0], (1, 1))
    build(folder, paths, vae)
    assert len(list(folder.glob("latent-*"))) == 3
    monkeypatch.setattr(latent, "window_starts", lambda frames, segment: [0])  # another rule
    assert build(folder, paths, vae).first.tolist() == [0, 1, 2, 3]
    assert len(list(folder.glob("latent-*"))) == 4


def test_a_start_asks_for_some_mels_and_for_their_folders(tmp_path, paths, vae, monkeypatch):
    """Of three mels it asks for every second; any that comes, goes or is replaced is noticed."""
    monkeypatch.setattr(latent, "ASKED", 2)
    long_ago = dict.fromkeys([*paths, tmp_path], 1e9)

    def measured() -> int:
        """How many mels were measured."""
        for path, then in long_ago.items():
            os.utime(path, (then, then))
        read = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(latent, "mel_frames", lambda path: read.append(path) or mel_frames(path))
            build(tmp_path / "cache", paths, vae)
        return len(read)

    (tmp_path / "cache").mkdir()
    assert (measured(), measured()) == (3, 0)
    for changed in (paths[2], tmp_path):
        long_ago[changed] += 1
        assert (measured(), measured()) == (3, 0)


def test_blocks_do_not_change_rows(tmp_path, paths, vae, monkeypatch):
    (whole,) = build(tmp_path / "whole", paths, vae).rows.blocks
    monkeypatch.setattr(latent, "WINDOWS_PER_BLOCK", 3)
    parts = build(tmp_path / "parts", paths, vae)
    assert len(parts.rows.blocks) == 3
    np.testing.assert_allclose(np.concatenate(parts.rows.blocks), whole, rtol=2e-3, atol=2e-3)
