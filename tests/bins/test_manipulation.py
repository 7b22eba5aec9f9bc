"""Changing a sound by the inference command: transfer, regions, continuing, super-resolution."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bins.tta.inference import main
from models.tta.ldm.source import Source
from processors.mel import mel_of_wav
from tests import tiny
from tests.models.tta.convert.small_models import small_pipeline, write_run
from utils.checkpoint import read_json
from utils.cli import run_main

SUPER_RESOLUTION = ["--task=super_resolution"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "final", pipeline)


@pytest.fixture
def infer(model, monkeypatch, tmp_path):
    """Runs the command in this process; the paths of the wavs that there are then."""

    def run(*arguments: object) -> list:
        given = [f"--checkpoint_path={model}", f"--output_dir={tmp_path}/out", "--device=cpu"]
        given += ["--vocoder=griffin_lim", "--num_steps=3", "--text=rain", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["inference.py", *given])
        run_main(main)
        return sorted((tmp_path / "out").glob("*.wav"))

    return run


def write_source(path, rate: int = 4000, channels: int = 1, seconds: float = 0.6, **settings):
    """Half-scale noise, the second channel at half of the first one's level."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(rate * seconds), 1))
    soundfile.write(path, samples / np.arange(1, channels + 1), rate, **settings)
    return path


def read(path) -> np.ndarray:
    return soundfile.read(path, dtype="int32", always_2d=True)[0]


def test_strength_0_is_the_round_trip_and_1_is_generation(pipeline, tmp_path):
    """Of a sound of two windows and an odd length."""
    path = write_source(tmp_path / "in.wav", seconds=0.1571)
    source = Source.read(path, 4000)

    def mel(strength, text="rain"):
        settings = pipeline.settings.sampling_with(
            audio=str(path), strength=strength, duration=source.seconds, num_steps=4
        )
        given = source.for_sampling(settings, tiny.MEL, pipeline.vae.config)
        return pipeline([text], [3], settings, given)

    plain = pipeline.settings.sampling_with(duration=source.seconds, num_steps=4)
    assert torch.equal(mel(1.0), pipeline(["rain"], [3], plain))
    wav = np.zeros(20 * 32, np.float32)
    wav[: len(source.wav)] = source.wav
    whole = torch.from_numpy(mel_of_wav(wav, tiny.MEL))[None, None]
    halves = [whole[..., :16], whole[..., 4:]]
    latents = [pipeline.vae.encode(half).mean for half in halves]
    weight = torch.sin(torch.pi * (torch.arange(8) + 0.5) / 8) ** 2
    sums, weights = torch.zeros(1, 2, 8, 10), torch.zeros(10)
    for start, latent in zip((0, 2), latents, strict=True):
        sums[..., start : start + 8] += weight * latent
        weights[start : start + 8] += weight
    torch.testing.assert_close(
        pipeline.encode(whole), sums / weights / pipeline.vae.latent_std, rtol=1e-4, atol=1e-5
    )
    found = mel(0.0)
    assert found.shape == (1, 16, 20)
    torch.testing.assert_close(found, pipeline.decode(pipeline.encode(whole))[:, 0, :, :20])
    assert torch.equal(found, mel(0.0, "a dog"))
    assert (mel(0.5) - found).abs().max() > 1e-3
    assert (mel(0.5) - mel(1.0)).abs().max() > 1e-3
    assert (mel(0.5) - mel(0.5, "a dog")).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(4000, 1, "PCM_16"), (44100, 2, "PCM_24")]
)
def test_outside_a_region_every_sample_is_as_it_was(infer, tmp_path, rate, channels, subtype):
    path = write_source(tmp_path / "in.wav", rate, channels, subtype=subtype)
    options = ["--audio", path, "--region", 0.1, 0.2, "--region", 0.45, 0.5]
    made = infer(*options, "--resample=2")
    before, after = read(path), read(made[0])
    assert soundfile.info(made[0]).subtype == subtype
    assert after.shape == before.shape
    near = np.zeros(len(before), dtype=bool)
    for begin, end in ((0.07, 0.23), (0.42, 0.53)):
        near[round(begin * rate) : round(end * rate)] = True
    assert np.array_equal(after[~near], before[~near])
    inside = slice(round(0.1 * rate), round(0.2 * rate))
    assert (after[inside] != before[inside]).mean() > 0.99
    receipt = read_json(made[0].with_suffix(".json"))
    assert receipt["kept"] == pytest.approx(1 - near.mean(), abs=0.001)
    assert receipt["region"] == [[0.1, 0.2], [0.45, 0.5]]
    if channels == 2:
        made_anew = after[inside].astype(float)  # the least whole number has no positive twin
        unclipped = made_anew[abs(made_anew[:, 0]) < 2**30]
        assert len(unclipped) > 100
        levels = unclipped.std(axis=0)
        assert levels[1] / levels[0] == pytest.approx(0.5, abs=0.01)
    width, height = Image.open(made[0].with_suffix(".png")).size
    assert width == 75 * 3
    assert height > 2 * 16 * 3  # before and after
    again = infer(*options, "--resample=2", "--num_samples=2", "--batch_size=1")
    assert np.array_equal(read(again[1]), after)
    assert not np.array_equal(read(again[2])[inside], after[inside])
    other = infer(*options)
    assert not np.array_equal(read(other[3])[inside], after[inside])


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "pndm", "unipc"])
def test_every_sampler_changes_and_continues_a_sound(infer, tmp_path, sampler):
    path = write_source(tmp_path / "in.wav", 8000)
    made = infer("--audio", path, "--extend=0.25", "--sampler", sampler, "--strength=0.9")
    before, after = read(path), read(made[0])
    assert len(after) == round(0.85 * 8000)
    unfaded = round(0.57 * 8000)
    assert np.array_equal(after[:unfaded], before[:unfaded])
    assert after[len(before) :].any(axis=1).mean() > 0.9


def test_super_resolution_keeps_what_is_below_the_cutoff(infer, tmp_path):
    """Of a sound at 2 kHz, for a model at 4 kHz: 1 kHz is the cut-off."""
    path = write_source(tmp_path / "in.wav", 2000, 2, subtype="FLOAT")
    made = infer("--audio", path, "--task=super_resolution")
    assert read_json(made[0].with_suffix(".json"))["cutoff"] == 1000
    before, rate = soundfile.read(path, always_2d=True)[0], soundfile.info(made[0]).samplerate
    after = soundfile.read(made[0], always_2d=True)[0]
    assert (rate, after.shape) == (4000, (2400, 2))
    spectra = [np.fft.rfft(samples, axis=0) for samples in (before, after)]
    low = slice(5, round(0.85 * 1000 * 0.6))
    scale = np.abs(spectra[0][low]).mean()
    assert np.abs(2 * spectra[0][low] - spectra[1][low]).max() < 0.1 * scale
    assert np.abs(spectra[1][round(1100 * 0.6) :]).mean() > 1e-3 * scale


def test_longer_sounds_are_made_in_windows_as_trained(pipeline):
    widths = []

    def note(module, inputs, output):
        widths.append((len(inputs[0]), inputs[0].shape[-1]))

    hooks = [pipeline.unet.register_forward_hook(note)]
    hooks += [pipeline.vae.decoder.register_forward_hook(note)]
    settings = pipeline.settings.sampling_with(num_steps=2, duration=1.0, guidance_scale=2.0)
    mel = pipeline(["rain", "wind"], [0, 1], settings)
    for hook in hooks:
        hook.remove()
    assert mel.shape == (2, 16, 125)
    assert set(widths) == {(4, 8), (2, 8)}
    assert mel.isfinite().all()


def test_settings_and_the_sound_belong_together(pipeline, tmp_path):
    path = write_source(tmp_path / "in.wav")
    source = Source.read(path, 4000)
    settings = pipeline.settings.sampling_with(audio=str(path), strength=0.5, duration=0.6)
    with pytest.raises(ValueError, match="and source None"):
        pipeline(["rain"], [0], settings)
    longer = dataclasses.replace(settings, duration=0.7)
    with pytest.raises(ValueError, match=r"a sound of 0.6 s, and settings for 0.7 s"):
        source.for_sampling(longer, tiny.MEL, pipeline.vae.config)


def test_a_peak_beyond_all_use_and_channels_that_cancel_are_put_back_as_they_were(tmp_path):
    """What the model is given is scaled to a peak of 1, and one channel of those that cancel."""
    wav = 5 * np.random.default_rng(0).uniform(-1, 1, 2400)
    soundfile.write(tmp_path / "in.wav", np.stack([wav, -wav], 1), 4000, "FLOAT")
    source = Source.read(tmp_path / "in.wav", 4000)
    assert np.abs(source.wav).max() == pytest.approx(1)
    np.testing.assert_allclose(source.wav[:, None] * source.gains, source.recording.samples, 1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strength=0.5"], "--audio is missing"),
        (["--region", 0.1, 0.2], "--audio is missing"),
        (["--audio=gone.wav", "--strength=0.5"], "--audio gone.wav: missing"),
        (["--audio=short.wav", "--strength=0.5"], "audio short.wav: 0.005 s are too short"),
        (["--audio=in.wav"], "what to do with it? --strength 0.4 turns it"),
        (["--audio=in.wav", "--strength=1.5"], "--strength: 1.5 must be <= 1"),
        (
            ["--audio=in.wav", "--strength=0.5", "--duration=3"],
            "--duration 3: a changed sound",
        ),
        (["--audio=in.wav", "--region", 0.3, 0.2], "--region 0.3 0.2 must be two times within"),
        (["--audio=in.wav", "--region", 0.3, 0.7], "within the sound's 0.6 seconds"),
        (["--audio=in.wav", "--extend=0.3", "--region", 0.3, 0.7], "the sound's 0.6 seconds"),
        (["--audio=in.wav", "--extend=-1"], "extend: -1.0 must be >= 0"),
        (["--audio=in.wav", "--extend=700"], "--duration: 700.6 must be <= 600"),
        (["--audio=in.wav", "--task=louder"], "--task: 'louder' must be 'super_resolution'"),
        (["--audio=in.wav", "--task=super_resolution"], "--cutoff in Hz and task super_resolution"),
        (["--audio=in.wav", "--strength=0.3", "--cutoff=300"], "--cutoff in Hz and task"),
        (
            ["--audio=in.wav", "--task=super_resolution", "--cutoff=300", "--extend=1"],
            "--task super_resolution changes all of a sound",
        ),
        (
            ["--audio=in.wav", "--task=super_resolution", "--cutoff=9000"],
            "cutoff 9000 Hz leaves all",
        ),
        (["--audio=in.wav", "--task=super_resolution", "--cutoff=5"], "cutoff 5 Hz leaves nothing"),
        (["--audio=in.wav", "--strength=0.3", "--resample=2"], "--resample 2 needs a region"),
    ],
)
def test_what_is_refused(infer, tmp_path, monkeypatch, capsys, arguments, said):
    write_source(tmp_path / "in.wav")
    write_source(tmp_path / "short.wav", seconds=0.005)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        infer(*arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
