import dataclasses

import diffusers
import pytest
import scipy
import torch
from diffusers.training_utils import compute_snr
from torch import nn

from config.schedule_schema import NoiseSchedulerConfig
from models.tta.ldm.diffusion import DiffusionObjective
from models.tta.ldm.noise_schedule import NoiseSchedule


def settings(prediction: str, schedule: str = "scaled_linear") -> NoiseSchedulerConfig:
    return NoiseSchedulerConfig(1000, 0.00085, 0.012, schedule, prediction, False, 1, False, True)


def theirs(config: NoiseSchedulerConfig) -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
    )


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    latent, noise = torch.randn(2, 6, 3, 4, 5, generator=random)
    return latent, noise, torch.tensor([0, 1, 250, 500, 998, 999])


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_and_velocity_are_those_of_diffusers(batch, schedule):
    noise = batch[1]
    config = settings("v_prediction", schedule)
    ours, reference = NoiseSchedule(config), theirs(config)
    torch.testing.assert_close(ours.add_noise(*batch), reference.add_noise(*batch))
    torch.testing.assert_close(ours.target(*batch), reference.get_velocity(*batch))
    assert NoiseSchedule(settings("epsilon")).target(*batch) is noise


def test_the_flow_is_straight_from_the_latent_to_the_noise():
    latent, noise = torch.randn(2, 6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    schedule = NoiseSchedule(settings("flow_prediction"))
    timesteps = torch.tensor([0.0, 1.5, 250, 500, 999.5, 1000])
    expected = diffusers.FlowMatchEulerDiscreteScheduler()
    expected.sigmas = timesteps / 1000
    expected.timesteps = timesteps
    noisy = schedule.add_noise(latent, noise, timesteps)
    torch.testing.assert_close(noisy, expected.scale_noise(latent, timesteps, noise))
    assert torch.equal(noisy[0], latent[0])
    torch.testing.assert_close(noisy[-1], noise[-1])
    # By its velocity, any point of the path goes to either end.
    velocity, time = (
        schedule.target(latent, noise, timesteps),
        timesteps[:, None, None, None] / 1000,
    )
    torch.testing.assert_close(noisy - time * velocity, latent)
    torch.testing.assert_close(noisy + (1 - time) * velocity, noise)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (2.0, 1.5)])
def test_the_flow_s_times_are_logit_normal(mean, std):
    """Quantiles of a logit-normal, by the normal's (scipy), and no time beyond the ends."""
    schedule = NoiseSchedule(settings("flow_prediction"))
    places = torch.tensor([0.0, 0.025, 0.25, 0.5, 0.75, 0.975, 1 - 2**-24])
    times = schedule.timesteps(places, mean, std) / 1000
    expected = scipy.special.expit(scipy.stats.norm.ppf(places.double().numpy(), mean, std))
    torch.testing.assert_close(times, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-6)
    assert times[0] == 0


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weight_is_that_of_diffusers(batch, prediction):
    """The formula of diffusers' examples/text_to_image/train_text_to_image.py, --snr_gamma."""
    timesteps, gamma = batch[2], 5.0
    snr = compute_snr(theirs(settings(prediction)), timesteps)
    expected = torch.stack([snr, torch.full_like(snr, gamma)], dim=1).min(dim=1)[0]
    expected = expected / (snr + 1 if prediction == "v_prediction" else snr)
    found = NoiseSchedule(settings(prediction)).min_snr_weight(timesteps, gamma)
    torch.testing.assert_close(found, expected)


class FixedUNet(nn.Module):
    """Predicts the same whatever it is given, and keeps what it was given."""

    def __init__(self, prediction: torch.Tensor) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, latent, timesteps, text, text_mask):
        self.seen = latent, timesteps, text, text_mask
        return self.prediction


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("snr_gamma", [None, 5.0])
def test_loss_of_each_clip_is_the_weighted_squared_error(batch, prediction, snr_gamma):
    latent, noise, timesteps = batch
    config = settings(prediction)
    schedule, guess = NoiseSchedule(config), torch.full_like(latent, 0.3)
    unet, text, mask = FixedUNet(guess), torch.randn(6, 7, 2), torch.ones(6, 7)
    loss = DiffusionObjective(unet, None, schedule, snr_gamma)(latent, noise, timesteps, text, mask)
    reference = theirs(config)
    target = noise if prediction == "epsilon" else reference.get_velocity(*batch)
    expected = (guess - target).square().mean((1, 2, 3))
    if snr_gamma is not None:
        expected = expected * schedule.min_snr_weight(timesteps, snr_gamma)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(unet.seen[0], reference.add_noise(*batch))
    assert unet.seen[1:] == (timesteps, text, mask)


def test_a_text_encoder_that_learns_is_part_of_the_loss(batch):
    latent, noise, timesteps = batch
    encoder = nn.Embedding(11, 2)
    unet = FixedUNet(torch.zeros_like(latent))
    objective = DiffusionObjective(
        unet, lambda_module(encoder), NoiseSchedule(settings("epsilon")), None
    )
    tokens, mask = torch.randint(11, (6, 7)), torch.ones(6, 7)
    objective(latent, noise, timesteps, tokens, mask)
    assert torch.equal(unet.seen[2], encoder(tokens))
    assert any(parameter is encoder.weight for parameter in objective.parameters())


def lambda_module(encoder: nn.Module) -> nn.Module:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, tokens, mask):
            return self.encoder(tokens)

    return Text()


def test_every_setting_is_known_to_diffusers():
    scheduler = diffusers.PNDMScheduler.from_config(dataclasses.asdict(settings("v_prediction")))
    for name, value in dataclasses.asdict(settings("v_prediction")).items():
        if name in scheduler.config:
            assert scheduler.config[name] == value
    assert scheduler.config.prediction_type == "v_prediction"
