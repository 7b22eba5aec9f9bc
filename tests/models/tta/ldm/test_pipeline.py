"""Sampling: known answers, and independence of what else is in the batch."""

import dataclasses
import shutil

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from config.load import load_config
from config.schedule_schema import fault_of_steps
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import load_vae, save_vae
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.pipeline import Pipeline, PipelineSettings, load_pipeline
from models.tta.ldm.sampling import (
    SAMPLERS,
    generate,
    guided,
    make_scheduler,
    sample,
    starting_noise,
)
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.load import load_vocoder
from tests import tiny
from utils.checkpoint import read_json, write_json
from utils.errors import UserError

# The largest error at 50 steps where the data's values have a deviation of 0.5: ddim is of
# first order, and pndm combines its steps' predictions as if they were all noise.
ERRORS = {"ddim": 0.065, "dpm++": 0.01, "pndm": 0.055, "unipc": 0.01}
MEAN, STD = 0.8, 0.5  # of the data in the case with a known answer


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    return tiny.load(tiny.write_config(root, 2))


@pytest.fixture(scope="module")
def pipeline(config) -> Pipeline:
    """A tiny model with random weights, its last layers included, which start as zeros."""
    torch.manual_seed(0)
    vae_config = tiny.load(tiny.write_config(_parent(config), 1)).model.autoencoderkl
    vae = AutoencoderKL(vae_config).eval()
    vae.latent_std.fill_(2.0)
    words = [f"{word} sounds" for word in tiny.WORDS]
    text = TextEncoder.small(config.model.text_encoder.small, words, 12).eval()
    unet = UNet(config.model.audioldm).eval()
    for parameter in unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return Pipeline(PipelineSettings.of(config), unet, vae, text)


def _parent(config):
    from pathlib import Path

    return Path(config.log_dir).parent


class ExactDenoiser(nn.Module):
    """The best prediction there is where the data are N(MEAN, STD^2), value by value.

    x_t is then normal as well, and E[eps | x_t] = sqrt(1 - abar) (x_t - sqrt(abar) MEAN) /
    (abar STD^2 + 1 - abar); v follows from it and from E[x_0 | x_t].
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x, timestep):
        alpha = self.schedule.alphas_cumprod[timestep]
        error = (x - alpha.sqrt() * MEAN) / (alpha * STD**2 + 1 - alpha)
        noise, clean = (1 - alpha).sqrt() * error, MEAN + alpha.sqrt() * STD**2 * error
        if self.schedule.prediction_type == "epsilon":
            return noise
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


@pytest.mark.parametrize("sampler", ERRORS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_sampler_gives_the_distribution_of_the_data(pipeline, config, sampler, prediction):
    """The probability flow takes each start to a place that is known in closed form.

    From N(0, 1) at abar it leads to N(MEAN, STD^2) by scaling and shifting (arXiv:2011.13456,
    section 4.3, for a normal distribution).
    """
    noise = dataclasses.replace(config.model.noise_scheduler, prediction_type=prediction)
    denoiser = ExactDenoiser(NoiseSchedule(noise))
    scheduler = make_scheduler(sampler, noise, 50)
    alpha = denoiser.schedule.alphas_cumprod[scheduler.timesteps[0]]
    noises = starting_noise((2, 8, 32), range(16), torch.device("cpu"))
    latent = sample(denoiser, scheduler, noises)
    spread = (alpha * STD**2 + 1 - alpha).sqrt()
    expected = MEAN + STD * (noises - alpha.sqrt() * MEAN) / spread
    within = noises.abs() < 2.5
    assert within.float().mean() > 0.98
    assert (latent - expected)[within].abs().max() < ERRORS[sampler]
    assert latent.std().item() == pytest.approx(STD, rel=2 * ERRORS[sampler])
    assert latent.mean().item() == pytest.approx(MEAN, abs=0.07)  # of its start, alpha.sqrt() MEAN


@pytest.mark.parametrize("sampler", ERRORS)
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("steps", [1, 25, 75, 350, 500, 600])
def test_every_schedule_in_any_number_of_steps(pipeline, config, sampler, schedule, steps):
    """Many steps round to few timesteps, most of all where a schedule ends in hardly any signal."""
    noise = dataclasses.replace(
        config.model.noise_scheduler, prediction_type="v_prediction", beta_schedule=schedule
    )
    denoiser = ExactDenoiser(NoiseSchedule(noise))
    if fault_of_steps(sampler, steps, 1000):
        assert (sampler, steps) in (("pndm", 350), ("pndm", 600))
        return
    scheduler = make_scheduler(sampler, noise, steps)
    latent = sample(denoiser, scheduler, starting_noise((2, 8, 32), range(8), torch.device("cpu")))
    assert latent.mean().item() == pytest.approx(MEAN, abs=0.1)
    if steps > 1:
        assert latent.std().item() == pytest.approx(STD, abs=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_starts_at_the_noisiest_timestep(config, sampler):
    """As Lin et al. 2024, arXiv:2305.08891, section 3.3, have it."""
    for steps in (1, 4, 25, 100):
        scheduler = make_scheduler(sampler, config.model.noise_scheduler, steps)
        assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("to_one", [False, True])
def test_ddim_is_diffusers_ddim_where_its_steps_divide_the_schedule(config, prediction, to_one):
    noise = dataclasses.replace(
        config.model.noise_scheduler, prediction_type=prediction, set_alpha_to_one=to_one
    )
    settings = {**dataclasses.asdict(noise), "timestep_spacing": "trailing"}
    theirs, ours = diffusers.DDIMScheduler.from_config(settings), make_scheduler("ddim", noise, 20)
    theirs.set_timesteps(20)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    x = y = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for timestep in theirs.timesteps:
        x = ours.step(x.sin(), timestep, x).prev_sample
        y = theirs.step(y.sin(), timestep, y).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampler", ERRORS)
def test_a_sound_does_not_depend_on_its_batch(pipeline, sampler):
    prompts = ["a dog sounds", "rain", "a very long prompt of an engine and a bird and wind"]
    options = pipeline.settings.sampling_with(
        num_steps=4, guidance_scale=3.0, sampler=sampler, negative_text="a clock"
    )
    together = pipeline(prompts, [7, 8, 9], options)
    assert together.shape == (3, 16, 16)
    for place, (prompt, seed) in enumerate(zip(prompts, [7, 8, 9], strict=True)):
        alone = pipeline([prompt], [seed], options)
        torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-4)
    assert torch.equal(pipeline(prompts, [7, 8, 9], options), together)


def test_prompt_seed_guidance_and_negative_text_matter(pipeline):
    def mel(prompt="a dog", seed=1, guidance=3.0, negative="", mean=1.0):
        options = {"negative_text": negative, "num_steps": 3, "guidance_scale": guidance}
        changed = pipeline.settings.sampling_with(**options, guidance_mean=mean)
        return pipeline([prompt], [seed], changed)

    plain = mel()
    for other in (mel("rain"), mel(seed=2), mel(guidance=1.0), mel(negative="rain"), mel(mean=0.5)):
        assert (other - plain).abs().max() > 1e-3
    # Without guidance there is nothing to be negative about.
    assert torch.equal(mel(guidance=1.0), mel(guidance=1.0, negative="rain"))


def test_guidance_is_equation_6(pipeline):
    """empty + w (prompted - empty), against two runs of the U-Net in separate batches."""
    noise, timestep = torch.randn(1, 2, 8, 8), torch.tensor(700)
    with torch.no_grad():
        found = guided(pipeline.unet, pipeline.text_encoder, ["a dog"], "rain", 2.5)(
            noise, timestep
        )
        prompted, empty = (
            pipeline.unet(noise, timestep[None], *pipeline.text_encoder.encode([text]))
            for text in ("a dog", "rain")
        )
    torch.testing.assert_close(found, empty + 2.5 * (prompted - empty), rtol=1e-4, atol=1e-4)


def test_any_number_of_frames(pipeline):
    for frames in (1, 15, 16, 33):
        mel = pipeline(["rain"], [0], pipeline.settings.sampling_with(duration=frames * 32 / 4000))
        assert mel.shape == (1, 16, frames)
        assert mel.isfinite().all()


def test_written_and_loaded_it_makes_the_same_mels(pipeline, tmp_path):
    pipeline.write(tmp_path)
    loaded = load_pipeline(tmp_path, "cpu")
    assert loaded.settings == pipeline.settings
    prompts = ["a dog", "rain and wind"]
    assert torch.equal(loaded(prompts, [1, 2]), pipeline(prompts, [1, 2]))


def test_parts_for_different_mels_are_refused(pipeline, tmp_path):
    pipeline.write(tmp_path)
    settings = read_json(tmp_path / "pipeline.json")
    settings["mel"]["hop_size"] = 16
    write_json(tmp_path / "pipeline.json", settings)
    with pytest.raises(UserError, match="another mel than the config's: hop_size 32 and 16"):
        load_pipeline(tmp_path, "cpu")


# ---------------------------------------------------------------- pipeline.json, and before it


def test_the_settings_are_those_of_the_training(config):
    inference = dataclasses.replace(
        config.inference,
        **{"guidance_scale": 2.5, "guidance_mean": 0.3, "num_steps": 7, "sampler": "unipc"},
        vocoder="here",
    )
    train = dataclasses.replace(config.train, mixed_precision="bf16")
    found = PipelineSettings.of(dataclasses.replace(config, inference=inference, train=train))
    sampling = found.sampling
    assert (sampling.guidance_scale, sampling.guidance_mean) == (2.5, 0.3)
    assert (sampling.num_steps, sampling.sampler) == (7, "unipc")
    assert sampling.duration == 16 * 32 / 4000
    assert (found.mixed_precision, found.vocoder, found.max_tokens) == ("bf16", "here", 12)
    assert (found.mel, found.frames, found.unet.context_dim) == (tiny.MEL, 16, 16)


BEFORE = tiny.ROOT / "tests" / "models" / "tta" / "before_pipeline_json"


@pytest.fixture
def before(pipeline, tmp_path):
    """A folder as training left it when there was no pipeline.json, at commit 32c43b6."""
    pipeline.write(tmp_path)
    for folder, name in ((tmp_path, "stage_2.json"), (tmp_path / "vae", "stage_2_vae.json")):
        (folder / "pipeline.json").unlink()
        shutil.copyfile(BEFORE / name, folder / "config.json")
    return tmp_path


def test_folders_of_before_make_the_same_sounds(pipeline, before):
    loaded = load_pipeline(before, "cpu")
    made_from = loaded.settings.made_from
    assert {made_from[name] for name in ("dataset", "step")} == {"Tiny", "6"}
    assert loaded.settings.sampling.duration == pytest.approx(16 * 32 / 4000)  # frames, hop, rate
    assert loaded.settings.max_tokens == 12
    assert dataclasses.replace(loaded.settings, made_from={}) == dataclasses.replace(
        pipeline.settings, made_from={}
    )
    assert torch.equal(loaded(["a dog"], [1]), pipeline(["a dog"], [1]))


def test_a_stage_1_folder_of_before_is_read(pipeline, tmp_path):
    save_vae(tmp_path, pipeline.vae, tiny.MEL)
    expected = load_vae(tmp_path)
    (tmp_path / "pipeline.json").unlink()
    shutil.copyfile(BEFORE / "stage_1.json", tmp_path / "config.json")
    found = load_vae(tmp_path)
    assert (found.mel, found.fingerprint) == (tiny.MEL, expected.fingerprint)
    assert found.vae.config == expected.vae.config


def test_keys_that_training_gains_or_loses_do_not_matter(before):
    config = read_json(before / "config.json")
    config["train"]["new_key"] = config["new_key"] = {"a": 1}
    config["model"]["audioldm"]["new_key"] = config["inference"]["new_key"] = 3
    del config["train"]["adam"], config["log_dir"], config["inference"]["demo_prompts"]
    write_json(before / "config.json", config)
    of_vae = read_json(before / "vae" / "config.json")
    of_vae["model"]["autoencoderkl"]["new_key"] = of_vae["new_key"] = 3
    write_json(before / "vae" / "config.json", of_vae)
    assert load_pipeline(before, "cpu")(["a dog"], [1]).isfinite().all()
    del config["model"]["audioldm"]["num_heads"]
    write_json(before / "config.json", config)
    with pytest.raises(
        UserError, match=r"config\.json: not the config of .* training: 'num_heads'"
    ):
        load_pipeline(before, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is of newer code than this, which reads up to version 1; get"),
        ({"version": None}, "must hold version 1 of the settings of an AudioLDM, not version None"),
        ({"model_type": "AutoencoderKL"}, "of an AudioLDM, not version 1 of 'AutoencoderKL'"),
        ({"surprise": 1}, "surprise: no such key"),
        ({"frames": "many"}, "frames: must be a valid integer"),
    ],
)
def test_settings_that_cannot_be_read_are_named(pipeline, tmp_path, change, message):
    pipeline.settings.write(tmp_path)
    write_json(tmp_path / "pipeline.json", {**read_json(tmp_path / "pipeline.json"), **change})
    with pytest.raises(UserError, match=f"pipeline.json: .*{message}"):
        PipelineSettings.read(tmp_path)


# ---------------------------------------------------------------- text to wav


def test_every_sampler_that_a_config_can_name_is_there():
    config = tiny.ROOT / "egs/tta/audioldm/exp_config.json"
    for name in SAMPLERS:
        assert load_config(config, [f"inference.sampler={name}"]).inference.sampler == name
    with pytest.raises(UserError, match="'no_such' must be") as caught:
        load_config(config, ["inference.sampler=no_such"])
    assert all(repr(name) in str(caught.value) for name in SAMPLERS)


def test_generate_is_the_pipeline_and_the_vocoder(pipeline):
    vocoder = load_vocoder("griffin_lim", tiny.MEL)
    settings = pipeline.settings.sampling_with(seed=5, duration=0.3)
    texts = ["a dog", "rain", "wind"]
    sounds = list(generate(pipeline, vocoder, texts, settings, batch_size=2))
    assert [(s.text, s.seed) for s in sounds] == [("a dog", 5), ("rain", 6), ("wind", 7)]
    for sound, seed in zip(sounds, (5, 6, 7), strict=True):
        mel = pipeline([sound.text], [seed], settings)
        np.testing.assert_allclose(sound.mel, mel[0], rtol=1e-4, atol=1e-4)
        assert len(sound.wav) == 1200
        assert not sound.is_quiet
    quiet = dataclasses.replace(sounds[0], wav=0.001 * np.ones(10, np.float32))
    assert quiet.level == pytest.approx(-60)
    assert quiet.is_quiet
    assert dataclasses.replace(quiet, wav=np.zeros(10, np.float32)).level == -120
