"""Sampling: known answers, and independence of what else is in the batch."""

import dataclasses

import diffusers
import pytest
import torch
from torch import nn

from config.model_schema import fault_of_steps
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.diffusion import NoiseSchedule, scheduler_settings
from models.tta.ldm.pipeline import Pipeline, load_pipeline, make_sampler, start_sampler
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from tests import tiny
from utils.checkpoint import write_json
from utils.errors import UserError

# With the largest error at 50 steps where the data's values have a deviation of 0.5: ddim is of
# first order, and pndm combines its steps' predictions as if they were all noise.
SAMPLERS = {"ddim": 0.065, "dpm++": 0.01, "pndm": 0.055, "unipc": 0.01}
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
    return Pipeline(config, unet, vae, text)


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
        self.schedule, self.anything = schedule, nn.Parameter(torch.zeros(()))

    def prepare_text(self, text_emb, text_mask):
        return None

    def forward(self, x, timesteps, context):
        alpha = self.schedule.alphas_cumprod[timesteps][:, None, None, None]
        error = (x - alpha.sqrt() * MEAN) / (alpha * STD**2 + 1 - alpha)
        noise, clean = (1 - alpha).sqrt() * error, MEAN + alpha.sqrt() * STD**2 * error
        if not self.schedule.predicts_velocity:
            return noise
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_sampler_gives_the_distribution_of_the_data(pipeline, config, sampler, prediction):
    """The probability flow takes each start to a place that is known in closed form.

    From N(0, 1) at abar it leads to N(MEAN, STD^2) by scaling and shifting (arXiv:2011.13456,
    section 4.3, for a normal distribution).
    """
    noise = dataclasses.replace(config.model.noise_scheduler, prediction_type=prediction)
    denoiser = ExactDenoiser(NoiseSchedule(noise))
    exact = Pipeline(config, denoiser, pipeline.vae, pipeline.text_encoder)
    scheduler = make_sampler(sampler, noise)
    start_sampler(scheduler, 50)
    alpha = denoiser.schedule.alphas_cumprod[scheduler.timesteps[0]]
    with torch.no_grad():
        latent = exact._denoise(["a dog"] * 16, range(16), "", 1.0, scheduler, 64)
    noises = torch.stack(
        [torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(16)]
    )
    spread = (alpha * STD**2 + 1 - alpha).sqrt()
    expected = MEAN + STD * (noises - alpha.sqrt() * MEAN) / spread
    within = noises.abs() < 2.5
    assert within.float().mean() > 0.98
    assert (latent - expected)[within].abs().max() < SAMPLERS[sampler]
    assert latent.std().item() == pytest.approx(STD, rel=2 * SAMPLERS[sampler])
    assert latent.mean().item() == pytest.approx(MEAN, abs=0.07)  # of its start, alpha.sqrt() MEAN


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("steps", [1, 25, 75, 350, 500, 600])
def test_every_schedule_in_any_number_of_steps(pipeline, config, sampler, schedule, steps):
    """Many steps round to few timesteps, most of all where a schedule ends in hardly any signal."""
    noise = dataclasses.replace(
        config.model.noise_scheduler, prediction_type="v_prediction", beta_schedule=schedule
    )
    denoiser = ExactDenoiser(NoiseSchedule(noise))
    exact = Pipeline(config, denoiser, pipeline.vae, pipeline.text_encoder)
    scheduler = make_sampler(sampler, noise)
    if fault_of_steps(sampler, steps, 1000):
        assert (sampler, steps) in (("pndm", 350), ("pndm", 600))
        return
    start_sampler(scheduler, steps)
    with torch.no_grad():
        latent = exact._denoise(["a dog"] * 8, range(8), "", 1.0, scheduler, 64)
    assert latent.mean().item() == pytest.approx(MEAN, abs=0.1)
    if steps > 1:
        assert latent.std().item() == pytest.approx(STD, abs=0.1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("to_one", [False, True])
def test_ddim_is_diffusers_ddim_where_its_steps_divide_the_schedule(config, prediction, to_one):
    noise = dataclasses.replace(
        config.model.noise_scheduler, prediction_type=prediction, set_alpha_to_one=to_one
    )
    settings = {**scheduler_settings(noise), "timestep_spacing": "trailing"}
    theirs, ours = diffusers.DDIMScheduler.from_config(settings), make_sampler("ddim", noise)
    start_sampler(ours, 20)
    theirs.set_timesteps(20)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    x = y = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for timestep in theirs.timesteps:
        x = ours.step(x.sin(), timestep, x).prev_sample
        y = theirs.step(y.sin(), timestep, y).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sound_does_not_depend_on_its_batch(pipeline, sampler):
    prompts = ["a dog sounds", "rain", "a very long prompt of an engine and a bird and wind"]
    options = {"num_steps": 4, "guidance_scale": 3.0, "sampler": sampler, "negative": "a clock"}
    together = pipeline(prompts, [7, 8, 9], **options)
    assert together.shape == (3, 16, 16)
    for place, (prompt, seed) in enumerate(zip(prompts, [7, 8, 9], strict=True)):
        alone = pipeline([prompt], [seed], **options)
        torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-4)
    assert torch.equal(pipeline(prompts, [7, 8, 9], **options), together)


def test_prompt_seed_guidance_and_negative_text_matter(pipeline):
    def mel(prompt="a dog", seed=1, guidance=3.0, negative=""):
        return pipeline([prompt], [seed], negative, num_steps=3, guidance_scale=guidance)

    plain = mel()
    for other in (mel("rain"), mel(seed=2), mel(guidance=1.0), mel(negative="rain")):
        assert (other - plain).abs().max() > 1e-3
    # Without guidance there is nothing to be negative about.
    assert torch.equal(mel(guidance=1.0), mel(guidance=1.0, negative="rain"))


def test_guidance_is_equation_6(pipeline):
    """empty + w (prompted - empty), against two runs of the U-Net in separate batches."""
    scheduler = make_sampler("ddim", pipeline.config.model.noise_scheduler)
    start_sampler(scheduler, 1)
    noise = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(3))[None]
    (timestep,) = scheduler.timesteps
    with torch.no_grad():
        found = pipeline._denoise(["a dog"], [3], "rain", 2.5, scheduler, 16)
        prompted, empty = (
            pipeline.unet(noise, timestep[None], *pipeline.text_encoder.encode([text]))
            for text in ("a dog", "rain")
        )
    prediction = empty + 2.5 * (prompted - empty)
    start_sampler(scheduler, 1)
    expected = scheduler.step(prediction, timestep, noise).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_any_number_of_frames(pipeline):
    for frames in (1, 15, 16, 33):
        mel = pipeline(["rain"], [0], num_steps=2, frames=frames)
        assert mel.shape == (1, 16, frames)
        assert mel.isfinite().all()


def test_written_and_loaded_it_makes_the_same_mels(pipeline, tmp_path):
    write_json(tmp_path / "config.json", pipeline.config.to_dict())
    pipeline.write(tmp_path)
    loaded = load_pipeline(tmp_path, "cpu")
    options = {"num_steps": 3, "guidance_scale": 2.0}
    prompts = ["a dog", "rain and wind"]
    assert torch.equal(loaded(prompts, [1, 2], **options), pipeline(prompts, [1, 2], **options))


def test_parts_for_different_mels_are_refused(pipeline, tmp_path):
    data = pipeline.config.to_dict()
    data["preprocess"] = {**data["preprocess"], "hop_size": 16}
    write_json(tmp_path / "config.json", data)
    pipeline.write(tmp_path)
    with pytest.raises(UserError, match="another mel than the config's: hop_size 32 and 16"):
        load_pipeline(tmp_path, "cpu")
