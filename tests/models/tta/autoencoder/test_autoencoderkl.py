import diffusers
import pytest
import torch

from config.load import load_config
from config.model_schema import AutoencoderKLConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL


def small_config(attention: bool = False) -> AutoencoderKLConfig:
    return AutoencoderKLConfig(
        ch=32,
        ch_mult=[1, 1, 2],
        num_res_blocks=2,
        attention=attention,
        in_channels=1,
        out_ch=1,
        z_channels=4,
        double_z=True,
    )


def theirs(config: AutoencoderKLConfig) -> diffusers.AutoencoderKL:
    levels = len(config.ch_mult)
    return diffusers.AutoencoderKL(
        in_channels=config.in_channels,
        out_channels=config.out_ch,
        latent_channels=config.z_channels,
        block_out_channels=[config.ch * mult for mult in config.ch_mult],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=config.num_res_blocks,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=config.attention,
    )


@pytest.fixture(params=[False, True], ids=["plain", "attention"])
def pair(request):
    """Ours and diffusers' autoencoder with the same weights."""
    torch.manual_seed(0)
    config = small_config(request.param)
    ours, reference = AutoencoderKL(config), theirs(config)
    missing, unexpected = ours.load_state_dict(reference.state_dict(), strict=False)
    assert (missing, unexpected) == (["latent_std"], [])
    return ours, reference


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 24), (80, 4), (20, 12)])
def test_agrees_with_diffusers(pair, size):
    ours, reference = pair
    mel = torch.randn(2, 1, *size)
    posterior, expected = ours.encode(mel), reference.encode(mel).latent_dist
    torch.testing.assert_close(posterior.mean, expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.logvar, expected.logvar, rtol=1e-4, atol=1e-5)
    latent = posterior.mode()
    assert latent.shape == (2, 4, size[0] // 4, size[1] // 4)
    decoded = ours.decode(latent)
    assert decoded.shape == mel.shape
    torch.testing.assert_close(decoded, reference.decode(latent).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_channels_last_in_channels_last_out_and_the_same_values(pair):
    ours, _ = pair
    mel = torch.randn(2, 1, 16, 24)
    mode = ours.encode(mel).mode()
    decoded = ours.decode(mode)
    ours.to(memory_format=torch.channels_last)
    nhwc = mode.to(memory_format=torch.channels_last)
    hidden = ours.encoder.mid_block(ours.decoder.conv_in(nhwc))
    assert hidden.is_contiguous(memory_format=torch.channels_last)
    mel = mel.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.encode(mel).mode(), mode, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(nhwc), decoded, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_batched_equals_one_by_one(pair):
    ours, _ = pair
    mel = torch.randn(3, 1, 16, 8)
    mode = ours.encode(mel).mode()
    alone = torch.cat([ours.encode(clip).mode() for clip in mel.split(1)])
    torch.testing.assert_close(mode, alone, rtol=1e-4, atol=1e-5)
    decoded_alone = torch.cat([ours.decode(latent) for latent in mode.split(1)])
    torch.testing.assert_close(ours.decode(mode), decoded_alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "latent"),
    [("exp_config", 60304101, (4, 10, 78)), ("exp_config_latent_4_5_39", 62077669, (4, 5, 39))],
)
def test_the_shipped_sizes(name, parameters, latent):
    config = load_config(f"egs/tta/autoencoderkl/{name}.json")
    with torch.device("meta"):
        ours, reference = (
            AutoencoderKL(config.model.autoencoderkl),
            theirs(config.model.autoencoderkl),
        )
        shape = (1, 1, config.preprocess.n_mel, config.preprocess.segment_frames)
        posterior = ours.encode(torch.empty(shape))
    assert posterior.mode().shape == (1, *latent)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes.pop("latent_std") == ()
    assert shapes == {name: value.shape for name, value in reference.state_dict().items()}


@pytest.mark.parametrize("size", [(18, 24), (16, 23)])
def test_a_mel_that_would_lose_its_end_is_refused(size):
    with pytest.raises(ValueError, match="multiples of 4"):
        AutoencoderKL(small_config()).encode(torch.zeros(1, 1, *size))


def test_scale_is_saved_with_the_weights():
    torch.manual_seed(0)
    ours, again = AutoencoderKL(small_config()), AutoencoderKL(small_config())
    ours.latent_std.fill_(2.5)
    again.load_state_dict(ours.state_dict())
    latent = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(again.scale(latent), latent / 2.5)
    torch.testing.assert_close(again.unscale(again.scale(latent)), latent)


def test_last_layer_takes_part_in_every_mel():
    ours = AutoencoderKL(small_config())
    mel = ours.decode(torch.randn(1, 4, 2, 2))
    (gradient,) = torch.autograd.grad(mel.sum(), ours.last_layer)
    assert gradient.shape == ours.last_layer.shape == (1, 32, 3, 3)
    assert gradient.abs().sum() > 0


def test_compiles_in_one_graph():
    ours = AutoencoderKL(small_config(attention=True))

    def reconstruct(mel: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = ours.encode(mel)
        return ours.decode(posterior.sample(noise)), posterior.kl()

    torch._dynamo.reset()
    compiled = torch.compile(reconstruct, backend="eager", fullgraph=True)
    mel, noise = torch.randn(1, 1, 8, 8), torch.randn(1, 4, 2, 2)
    for result, expected in zip(compiled(mel, noise), reconstruct(mel, noise), strict=True):
        torch.testing.assert_close(result, expected)


@torch.no_grad()
def test_half_precision_keeps_the_mel_s_own(pair):
    ours, _ = pair
    mel = torch.randn(2, 1, 16, 24)
    posterior = ours.encode(mel)
    expected = ours.decode(posterior.mode())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = ours.decode(posterior.mode())
    ours.latent_std.fill_(1.2345678)
    ours.set_precision(torch.bfloat16)
    assert ours.latent_std.item() == pytest.approx(1.2345678, rel=1e-7)
    for found in (under_autocast, ours.decode(posterior.mode())):
        assert found.dtype == torch.float32
        assert 0 < (found - expected).std() < 0.05 * expected.std()
        # Values of a bfloat16 would survive the rounding.
        assert (found != found.bfloat16().float()).float().mean() > 0.9
    found = ours.encode(mel)
    assert (found.mean - posterior.mean).std() < 0.05 * posterior.mean.std()
