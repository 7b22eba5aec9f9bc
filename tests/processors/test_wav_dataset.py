import numpy as np
import pytest
import torch

from config.schema import MelConfig
from processors.clips import pcm_of_wav
from processors.dataset import SILENCE
from processors.mel import MelExtractor, mel_of_wav
from processors.stream import ClipStream
from processors.wav_dataset import WavDataset, read_crop
from utils.errors import UserError

MEL = MelConfig(8000, 128, 128, 32, 10, 0.0, 4000.0)
HOP, FRAMES = MEL.hop_size, 16


def sound(seconds: float, seed: int) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * MEL.sample_rate))
    return (0.1 * samples).astype(np.float32)


def read(dataset: WavDataset, positions: list[int]) -> dict:
    """A batch, [B, n_mel, frames] and [B, samples], as tensors."""
    batch = dataset.batch(positions)
    mel, wav = torch.from_numpy(batch["mel"]), torch.from_numpy(batch["wav"])
    return {"mel": mel[:, 0], "wav": wav, "uid": batch["uid"]}


@pytest.fixture
def dataset(tmp_path):
    """Two clips of 31 and 62 frames and some samples, and one of 6 frames."""
    for clip, seconds in enumerate((0.125, 0.25, 0.025)):
        wav = sound(seconds, clip)
        np.save(tmp_path / f"{clip}.npy", mel_of_wav(wav, MEL))
        np.save(tmp_path / f"{clip}.pcm.npy", pcm_of_wav(wav))
    mels = [tmp_path / f"{clip}.npy" for clip in range(3)]
    wavs = [tmp_path / f"{clip}.pcm.npy" for clip in range(3)]
    return WavDataset(mels, wavs, ["a", "b", "c"], FRAMES, HOP, ClipStream(3, seed=0))


def test_the_wav_of_a_crop_is_what_its_mel_was_made_from(dataset):
    batch = read(dataset, list(range(60)))
    assert batch["mel"].shape == (60, MEL.n_mel, FRAMES)
    assert batch["wav"].shape == (60, FRAMES * HOP)
    of_the_wav = MelExtractor(MEL)(batch["wav"])
    whole = torch.tensor([name != "c" for name in batch["uid"]])
    # Two frames at either end see samples beyond the crop.
    inside = of_the_wav[whole, :, 2:-2], batch["mel"][whole, :, 2:-2]
    torch.testing.assert_close(*inside, atol=0.02, rtol=0)
    moved = batch["mel"][whole, :, 3:-1]  # one frame off is another sound
    assert (inside[0] - moved).abs().mean() > 0.2


def test_crops_start_everywhere(dataset):
    batch = read(dataset, list(range(1500)))
    starts = {tuple(wav[:4].tolist()) for wav in batch["wav"]}
    assert len(starts) == (31 - FRAMES + 1) + (62 - FRAMES + 1) + 1


def test_a_position_has_its_crop_whatever_the_batch(dataset):
    together, alone = read(dataset, [4, 5, 6]), read(dataset, [6])
    assert torch.equal(together["wav"][2], alone["wav"][0])
    assert torch.equal(together["mel"][2], alone["mel"][0])


def test_short_clips_end_in_silence(dataset):
    batch = read(dataset, [0, 1, 2])
    short = batch["uid"].index("c")
    wav = sound(0.025, 2)
    torch.testing.assert_close(
        batch["wav"][short, : len(wav)], torch.from_numpy(wav), atol=2e-5, rtol=0
    )
    assert (batch["wav"][short, len(wav) :] == 0).all()
    assert (batch["mel"][short, :, 6:] == np.float32(SILENCE)).all()


def test_sixteen_bits_keep_full_scale_and_nothing_wraps(tmp_path):
    path = tmp_path / "clip.npy"
    wav = np.array([1.0, -1.0, 0.5, 0.0, 1e-5, 1.2, -3.0], np.float32)
    np.save(path, pcm_of_wav(wav))
    np.testing.assert_allclose(read_crop(path, 0, 7), wav.clip(-1, 1), atol=0.5 / 32767)


def test_what_does_not_fit_is_named(dataset, tmp_path):
    other = dataset.wavs[0]
    np.save(other, pcm_of_wav(sound(0.2, 0)))
    with pytest.raises(UserError, match=r"1600 samples are not the 31 frames of .*keep_wavs=true"):
        read(dataset, [0, 1, 2])
    other.unlink()
    with pytest.raises(UserError, match=r"0.pcm.npy: missing, .*keep_wavs=true"):
        read(dataset, [0, 1, 2])
    np.save(other, sound(0.125, 0))
    with pytest.raises(UserError, match=r"holds float32\[1000\], not int16"):
        read(dataset, [0, 1, 2])
    other.write_bytes(b"half")
    with pytest.raises(UserError, match="not a whole file of samples"):
        read(dataset, [0, 1, 2])
