"""The editor's sampling: guidance by two scales, windows, and its folder."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from config.schema import MelConfig
from config.typed_json import ConfigError
from models.tta.editing.instructions import WAYS
from models.tta.editing.pipeline import (
    Editor,
    EditorSettings,
    EditSettings,
    guided_by_both,
    with_source_channels,
)
from models.tta.editing.source import CHANGED, SoundToEdit
from models.tta.ldm.known import Known
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.pipeline import load_pipeline
from models.tta.ldm.sampling import Sound
from models.tta.ldm.source import SourceMel, resampled
from models.tta.ldm.unet import UNet
from processors.mel import mel_of_wav
from tests import tiny
from utils.audio import Recording


class Codes:
    """In place of a text encoder and a U-Net: a text is a number, a prediction a known function."""

    def __init__(self) -> None:
        self.passes = 0

    def encode(self, texts):
        return torch.tensor([float(text or 0) for text in texts]), None

    def prepare_text(self, codes, _mask):
        return codes

    def __call__(self, both, timesteps, context):
        latent, source = both.chunk(2, dim=1)
        self.passes += len(both)
        return predict(latent, source, context[:, None, None, None])


def predict(latent, source, code):
    """e(source, text) of a noisy latent."""
    return latent + source.square() + code * (1 + source)


@pytest.mark.parametrize(
    ("text_scale", "source_scale", "passes"),
    [(4.0, 1.5, 3), (4.0, 1.0, 2), (1.0, 1.0, 1), (2.0, 2.0, 2), (1.0, 0.0, 3), (3.0, 0.5, 3)],
)
def test_guidance_is_equation_3_of_instructpix2pix(text_scale, source_scale, passes):
    random = torch.Generator().manual_seed(0)
    latent, source = (torch.randn(2, 3, 4, 5, generator=random) for _ in range(2))
    text, none, no_sound = torch.tensor([2.0, -3.0])[:, None, None, None], 0.5, source * 0
    fake = Codes()
    denoise = guided_by_both(fake, fake, ["2", "-3"], "0.5", text_scale, source_scale)
    found = denoise(torch.cat([latent, source], dim=1), torch.tensor(7))
    neither = predict(latent, no_sound, none)
    sound = predict(latent, source, none)
    both = predict(latent, source, text)
    expected = neither + source_scale * (sound - neither) + text_scale * (both - sound)
    torch.testing.assert_close(found, expected)
    assert fake.passes == 2 * passes  # nothing is computed that does not count
    # What both guidances do to a channel's mean, by half.
    denoise = guided_by_both(fake, fake, ["2", "-3"], "0.5", text_scale, source_scale, 0.5)
    found = denoise(torch.cat([latent, source], dim=1), torch.tensor(7))
    shift = (expected - both).mean((2, 3), keepdim=True)
    torch.testing.assert_close(found, expected - 0.5 * shift)


def test_an_editor_begins_as_the_text_to_audio_model(trained):
    """Whatever the sound to edit is: its channels begin at zero."""
    made = UNet(tiny.load(trained / "stage2.json").model.audioldm)
    weights = load_file(trained / "runs/ldm/final/unet.safetensors")
    made.load_state_dict(weights)
    model = tiny.load(tiny.write_config(trained, 4)).model
    editor = UNet(model.audioldm, NoiseSchedule(model.noise_scheduler))
    editor.load_state_dict(with_source_channels(weights, editor))
    random = torch.Generator().manual_seed(0)
    latent, source = (torch.randn(2, 2, 8, 8, generator=random) for _ in range(2))
    text, mask = torch.randn(2, 3, 16, generator=random), torch.ones(2, 3)
    said = torch.tensor([5, 900]), text, mask
    with torch.no_grad():
        edited = editor(torch.cat([latent, source], dim=1), *said)
        torch.testing.assert_close(edited, made(latent, *said), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def editor(edits) -> Editor:
    return load_pipeline(edits / "runs/audit/final", "cpu", Editor)


def source_of(frames: int, seed: int = 0) -> SourceMel:
    mel = -5 + torch.randn(1, 1, 16, frames, generator=torch.Generator().manual_seed(seed))
    return SourceMel(mel, torch.ones(8, frames // 2, dtype=torch.bool))


def settings_of(editor: Editor, frames: int, **changes) -> EditSettings:
    """Those of an edit of a sound of so many frames, in full."""
    seconds = frames * 32 / 4000
    return dataclasses.replace(
        editor.settings.sampling, audio="x", duration=seconds, num_steps=2, **changes
    )


def test_each_window_of_a_long_sound_hears_its_own_part(editor, monkeypatch):
    def heard(*_):
        return lambda both, _timestep: both.chunk(2, dim=1)[1]

    monkeypatch.setattr("models.tta.editing.pipeline.guided_by_both", heard)
    source = torch.randn(1, 2, 8, 27, generator=torch.Generator().manual_seed(0))
    noise, known = torch.zeros(3, 2, 8, 27), Known(source, torch.ones(8, 27).bool())
    denoise = editor.denoiser(["a"] * 3, settings_of(editor, 54), noise, known)
    torch.testing.assert_close(denoise(noise, torch.tensor(1)), source.expand(3, -1, -1, -1))
    nothing = editor.denoiser(["a"] * 3, settings_of(editor, 54), noise, None)
    assert not nothing(noise, torch.tensor(1)).any()


def test_an_edit_depends_on_sound_text_and_both_scales(editor):
    made = {}
    scales = {"plain": (3.0, 1.0), "text": (1.0, 1.0), "source": (3.0, 2.0)}
    for name, (text, source) in scales.items():
        changes = {"guidance_scale": text, "source_guidance": source}
        sampling = settings_of(editor, 20, **changes)
        made[name] = editor(["drop rain"], [3], sampling, source_of(20))
    plain = settings_of(editor, 20, guidance_scale=3.0)
    made["other sound"] = editor(["drop rain"], [3], plain, source_of(20, 1))
    made["other text"] = editor(["add a bell"], [3], plain, source_of(20))
    for (_, one), (_, other) in itertools.combinations(made.items(), 2):
        assert one.shape == (1, 16, 20)
        assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(
        editor(["add a bell", "drop rain"], [9, 3], plain, source_of(20))[1:], made["plain"]
    )


def test_without_a_sound_it_is_a_text_to_audio_model(editor):
    mel = editor(["a dog"], [0])
    assert mel.shape == (1, 16, tiny.FRAMES)


def test_pipeline_json_holds_tasks_and_scales(edits, editor, tmp_path):
    settings = EditorSettings.read(edits / "runs/audit/final")
    assert settings == editor.settings
    assert settings.tasks == list(tiny.TASKS)
    assert settings.sampling.source_guidance == 1.0
    assert settings.unet.in_channels == 4
    editor.write(tmp_path)
    again = load_pipeline(tmp_path, "cpu", Editor)
    for name, tensor in editor.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], tensor), name


def sound(seconds: float = 0.5, rate: int = 4000) -> SoundToEdit:
    wav = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    return SoundToEdit(Recording(wav[:, None], rate, 16), wav, np.ones(1))


def test_what_the_editor_hears_of_a_gap_is_silence(editor):
    mel, vae, whole = editor.settings.mel, editor.vae.config, sound()
    gap = whole.settings_for(editor.settings, "x", "inpaint", region=((0.2, 0.3),))
    heard, remade = whole.for_sampling(gap, mel, vae)
    drop = whole.settings_for(editor.settings, "x", "drop", region=((0.2, 0.3),))
    everything, _ = whole.for_sampling(drop, mel, vae)
    loudest, frames = heard[0, 0, :, :62].amax(0), torch.arange(62)  # what follows is padding
    assert everything[0, 0, :, :62].amax(0).min() > -6
    # 25 to 37.5 frames of 32 samples; a frame of 64 samples reaches 16 samples beyond its hop
    inside = (frames >= 26) & (frames <= 36)
    assert loudest[inside].max() < -9
    beside = (frames == 25) | (frames == 37)  # hear little of the sound
    assert loudest[~inside & ~beside].min() > -7
    assert torch.equal(heard[..., :24], everything[..., :24])
    assert 0 < remade.float().mean() < 1


def test_what_is_to_be_sharpened_has_no_upper_band(editor):
    mel, vae, whole = editor.settings.mel, editor.vae.config, sound()
    settings = whole.settings_for(editor.settings, "x", "super_resolution", cutoff=1000.0)
    heard, _ = whole.for_sampling(settings, mel, vae)
    plain = whole.settings_for(editor.settings, "x", "drop")
    everything, _ = whole.for_sampling(plain, mel, vae)
    change = (everything - heard)[0, 0].mean(1)  # by band, up to 2000 Hz
    assert change[:6].abs().max() < 0.1
    assert change[-3:].min() > 3


def test_a_sound_of_a_low_rate_needs_no_cutoff(editor):
    low = sound(rate=2000)
    settings = low.settings_for(editor.settings, "x", "super_resolution")
    assert (settings.task, settings.cutoff) == ("super_resolution", 1000)
    with pytest.raises(ConfigError, match="cutoff in Hz and task super_resolution go together"):
        sound().settings_for(editor.settings, "x", "super_resolution")


def test_an_edit_without_a_region_is_of_all_of_the_sound(editor):
    settings = sound().settings_for(editor.settings, "x", "inpaint")
    assert settings.region == ((0.0, 0.5),)
    assert not settings.inpaint  # or it would hear nothing at all
    assert settings.changed_over == CHANGED
    kept_to = sound().settings_for(editor.settings, "x", "drop", region=((0.2, 0.3),))
    assert kept_to.changed_over == 0
    for task, region in (("drop", ((0.2, 0.3),)), ("super_resolution", None)):
        with pytest.raises(ConfigError, match="changed_over finds the region of an edit that has"):
            sound().settings_for(
                editor.settings, "x", task, region=region, cutoff=1000.0, changed_over=3.0
            )


def test_what_an_edit_leaves_stays_bit_for_bit_in_stereo():
    """Of an edit without a region: where the mel is that of no edit, samples are the sound's."""
    random = np.random.default_rng(0)
    stereo = random.normal(0, 0.1, (220500, 2)).astype(np.float32)
    wav = resampled(stereo.mean(axis=1), 44100, 16000).astype(np.float32)
    source = SoundToEdit(Recording(stereo, 44100, 16), wav, np.ones(2))
    sampling = EditSettings("euler", 2, 1.0, 5.0, audio="x", region=((0.0, 5.0),))
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    unedited = random.normal(0, 0.5, (80, 320))  # of whole columns of a latent, longer than the mel
    made = unedited[:, :313] + random.normal(0, 0.02, (80, 313))  # far less than 2 dB
    made[:, 100:180] += 2
    edited = Sound("drop", 0, made.astype(np.float32), random.normal(0, 0.1, 80000))
    found = dataclasses.replace(sampling, changed_over=2.0)
    finished = source.finished(edited, found, mel, unedited.astype(np.float32))
    begin, end = round(100 * 0.016 * 44100), round(180 * 0.016 * 44100)
    same = (finished.recording.samples == stereo).all(axis=1)
    assert not same[begin:end].any()
    assert same[: begin - 11000].all()
    assert same[end + 11000 :].all()
    assert finished.kept == pytest.approx(same.mean(), abs=1e-3)
    untouched = dataclasses.replace(edited, mel=unedited[:, :313].astype(np.float32))
    finished = source.finished(untouched, found, mel, unedited.astype(np.float32))
    assert np.array_equal(finished.recording.samples, stereo)
    assert finished.kept == 1
    everything = source.finished(edited, sampling, mel)
    assert everything.kept == 0


def test_what_an_edit_changes_is_done_to_the_sounds_own_spectrum():
    """Half a neper less in all bands of a part: each channel is the sound's own, so much quieter.

    Made anew, the same part is what was made; what fills a gap always is.
    """
    random = np.random.default_rng(1)
    stereo = random.normal(0, 0.1, (220500, 2)).astype(np.float32)
    wav = resampled(stereo.mean(axis=1), 44100, 16000).astype(np.float32)
    source = SoundToEdit(Recording(stereo, 44100, 16), wav, np.ones(2))
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    unedited = random.normal(0, 0.5, (80, 320)).astype(np.float32)
    edited = Sound("drop", 0, unedited[:, :313] - 0.45, random.normal(0, 0.1, 80000))
    sampling = EditSettings("euler", 2, 1.0, 5.0, audio="x", region=((2.0, 3.0),))
    assert sampling.in_own_spectrum
    assert sampling.needs_unedited
    found = source.finished(edited, sampling, mel, unedited)
    part = slice(round(2.1 * 44100), round(2.9 * 44100))
    before, after = stereo[part], found.recording.samples[part]
    np.testing.assert_allclose(after, np.exp(-0.45) * before, atol=1e-6)
    assert found.kept == pytest.approx(0.8 - 2 * 0.03 / 5, abs=2e-3)
    for other in ({"anew": True}, {"inpaint": True}):
        settings = dataclasses.replace(sampling, **other)
        assert not settings.needs_unedited
        made = source.finished(edited, settings, mel).recording.samples[part]
        expected = resampled(edited.wav, 16000, 44100)[part]
        np.testing.assert_allclose(made, np.stack([expected] * 2, axis=1), atol=1e-6)
    assert dataclasses.replace(sampling, anew=True, changed_over=2.0).needs_unedited


def test_a_quiet_region_is_edited_beside_a_loud_part():
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    wav = np.random.default_rng(3).normal(0, 0.3, 80000).astype(np.float32)
    wav[24000:] *= 1e-4
    source = SoundToEdit(Recording(wav[:, None], 16000, 32), wav, np.ones(1))
    sampling = EditSettings("euler", 2, 1.0, 5.0, audio="x", region=((3.0, 4.0),))
    unedited = mel_of_wav(np.maximum(np.abs(wav), 1e-3) * np.sign(wav), mel)
    edited = Sound("drop", 0, unedited - 0.4, 0 * wav)
    found = source.finished(edited, sampling, mel, unedited).recording.samples[:, 0]
    part = slice(round(3.1 * 16000), round(3.9 * 16000))
    np.testing.assert_allclose(found[part], np.exp(-0.4) * wav[part], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(("task", "sign"), [("add", 1), ("drop", -1), ("replace", 0)])
def test_what_is_added_takes_nothing_away_and_what_is_dropped_adds_nothing(editor, task, sign):
    """One part of the mel is louder and another quieter: only what was asked for is done."""
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    random = np.random.default_rng(2)
    wav = random.normal(0, 0.1, 80000).astype(np.float32)
    source = SoundToEdit(Recording(wav[:, None], 16000, 16), wav, np.ones(1))
    settings = source.settings_for(editor.settings, "x", task, only=WAYS.get(task))
    unedited = mel_of_wav(wav, mel)
    made = unedited.copy()
    made[:, 60:120] += 1
    made[:, 200:260] -= 1
    edited = Sound(task, 0, made, np.exp(1) * random.normal(0, 0.1, 80000))
    found = source.finished(edited, settings, mel, unedited)
    changed = (found.recording.samples != wav[:, None])[:, 0]
    louder, quieter = (changed[begin * 256 : end * 256] for begin, end in ((70, 110), (210, 250)))
    assert louder.all() == (sign >= 0)
    assert quieter.all() == (sign <= 0)
    assert louder.any() == (sign >= 0)
    assert quieter.any() == (sign <= 0)
