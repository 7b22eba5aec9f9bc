"""Amphion's weights sampled as by Amphion, with the classes of diffusers and transformers.

There each text is sampled alone, with the empty text padded to its length; no mask reaches T5 or
the U-Net; PNDM's timesteps are "leading"; and the U-Net crops what it has convolved.
"""

import pytest
import torch
from diffusers import PNDMScheduler
from torch.nn import functional as F

from config.model_schema import SmallT5Config
from models.tta.convert.latent_diffusion import read_amphion
from models.tta.convert.to_diffusers import export
from models.tta.ldm.pipeline import read_pipeline
from models.tta.ldm.sampling import starting_noise
from models.tta.ldm.text_encoder import TextEncoder
from models.vocoders.load import load_vocoder
from tests.models.tta.convert.ldm_style import (
    ldm_unet_weights,
    ldm_vae_weights,
    random_unet,
    random_vae,
)
from tests.models.tta.convert.test_from_ldm_style import OWN, amphion_file
from utils.errors import UserError

TEXTS, SEEDS = ["a dog barks", "rain and wind, then a dog barks twice"], [3, 11]
STEPS, SCALE = 5, 4.0
FRAMES = 40  # a latent of 10 x 5, odd on two levels


class CropsLast(torch.nn.Module):
    """diffusers' upsampling in Amphion's order."""

    def __init__(self, upsample: torch.nn.Module) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, x: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
        x = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x if size is None else x[:, :, : size[0], : size[1]]


@pytest.fixture(scope="module")
def amphion(tmp_path_factory):
    """The networks, and a folder of ours that their weights were imported into."""
    root = tmp_path_factory.mktemp("amphion")
    unet, vae = random_unet(), random_vae(4, attention=False, z=4)
    weights = {f"unet.{name}": value for name, value in ldm_unet_weights(unet).items()}
    files = [amphion_file(root / "ldm.pt", weights)]
    files.append(amphion_file(root / "vae.pt", ldm_vae_weights(vae)))
    torch.manual_seed(2)
    shape = {"vocab_size": 80, "d_model": 24, "num_layers": 1, "num_heads": 2, "d_ff": 32}
    text = TextEncoder.small(SmallT5Config(**shape), TEXTS, 64).eval()
    found = read_amphion(files, OWN)
    found.text_encoder = text
    found.check_whole(root)
    found.write(root / "ours", "amphion")
    for block in unet.up_blocks[:-1]:
        block.upsamplers[0] = CropsLast(block.upsamplers[0])
    return unet, vae, text, root / "ours"


def sample(unet, vae, text: TextEncoder, prompt: str, latent: torch.Tensor) -> torch.Tensor:
    """Mel [1, n_mel, frames]."""
    prompted = text.tokenizer([prompt], return_tensors="pt").input_ids
    length = prompted.shape[1]
    empty = text.tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
    states = torch.cat([text.model(ids).last_hidden_state for ids in (empty.input_ids, prompted)])
    scheduler = PNDMScheduler(
        **{"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012},
        **{"beta_schedule": "scaled_linear", "skip_prk_steps": True, "set_alpha_to_one": False},
        steps_offset=1,
    )
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        nothing, wanted = unet(torch.cat([latent] * 2), t, states).sample.chunk(2)
        noise = nothing + SCALE * (wanted - nothing)
        latent = scheduler.step(noise, t, latent).prev_sample
    return vae.decode(latent).sample[:, 0]


@torch.no_grad()
def test_amphion_s_weights_sound_as_in_amphion(amphion):
    *networks, folder = amphion
    pipeline = read_pipeline(folder)
    noise = starting_noise((4, 10, FRAMES // 8), SEEDS, torch.device("cpu"))
    expected = torch.cat([sample(*networks, text, noise[[n]]) for n, text in enumerate(TEXTS)])
    settings = pipeline.settings
    assert settings.sampling.sampler == "pndm"
    sampling = settings.sampling_with(
        num_steps=STEPS, guidance_scale=SCALE, duration=FRAMES / settings.mel.frames_per_second
    )
    size = expected.std().item()
    assert size > 1e-3
    found = pipeline(TEXTS, SEEDS, sampling)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)


def test_an_export_that_cannot_do_this_says_so(amphion, tmp_path):
    pipeline = read_pipeline(amphion[-1])
    vocoder = load_vocoder("griffin_lim", pipeline.settings.mel)
    with pytest.raises(UserError, match="cropped behind the convolution, pads seen beside the neg"):
        export(pipeline, vocoder, "", tmp_path / "out")
    assert not (tmp_path / "out").exists()
