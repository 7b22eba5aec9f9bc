import copy
import dataclasses

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from config.load import load_config
from models.tta.ldm.unet import UNet
from tests.unets import SMALL, batch, theirs, with_weights_of
from utils.errors import UserError

VARIANTS = {
    "everywhere": SMALL,
    "attention low down only": dataclasses.replace(SMALL, attention_resolutions=[4]),
    "attention in the middle only": dataclasses.replace(SMALL, attention_resolutions=[]),
    "two levels, deep transformers": dataclasses.replace(
        SMALL, channel_mult=[1, 3], attention_resolutions=[1], transformer_depth=2
    ),
    "one residual block": dataclasses.replace(SMALL, num_res_blocks=1, num_heads=4),
    "one level": dataclasses.replace(SMALL, channel_mult=[2], attention_resolutions=[1]),
    "more channels in": dataclasses.replace(SMALL, in_channels=8),
    "matrices, and levels of their own": dataclasses.replace(
        SMALL, linear_projections=True, num_heads=[1, 4, 2], transformer_depth=[1, 2, 3]
    ),
    "a vector beside the time": dataclasses.replace(
        SMALL, context_dim=None, class_embed_dim=12, attention_resolutions=[4, 2]
    ),
    "the mean of a text along with the time": dataclasses.replace(SMALL, pooled_text=True),
    "the length of a step": dataclasses.replace(
        SMALL, channel_mult=[1], attention_resolutions=[1], span_embedding=True
    ),
}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return with_weights_of(theirs(SMALL), SMALL)


def assert_close(result: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_agrees_with_diffusers(name):
    torch.manual_seed(1)
    config = VARIANTS[name]
    reference = theirs(config)
    ours = with_weights_of(reference, config)
    latent, timesteps, text_emb, text_mask = batch(config, (4, 6))
    given = {"encoder_hidden_states": text_emb, "encoder_attention_mask": text_mask}
    if config.class_embed_dim:
        given = {"encoder_hidden_states": None, "class_labels": text_emb[:, 0]}
    if config.pooled_text:
        means = [text[mask.bool()].mean(0) for text, mask in zip(text_emb, text_mask, strict=True)]
        given["class_labels"] = torch.stack(means)
    begins = timesteps
    if config.span_embedding:
        spans = torch.tensor([0.0, 120.0, 999.0])
        # cos before sin, and no shift of the frequencies, as diffusers' U-Net has them for the time
        given["timestep_cond"] = get_timestep_embedding(spans, 32, True, 0)
        timesteps = torch.stack([begins, begins - spans], dim=1)
    expected = reference(latent, begins, **given).sample
    assert expected.std() > 0.01
    assert_close(ours(latent, timesteps, text_emb, text_mask), expected)


@torch.no_grad()
def test_weights_that_know_no_length_of_a_step_give_what_they_gave(unet):
    ours = UNet(dataclasses.replace(SMALL, span_embedding=True))
    fresh = ours.load_state_dict(unet.state_dict(), strict=False)
    assert fresh.missing_keys == ["time_embedding.cond_proj.weight"]
    assert not fresh.unexpected_keys
    latent, timesteps, *text = batch(size=(4, 6))
    expected, steps = (
        unet(latent, timesteps, *text),
        torch.stack([timesteps, timesteps // 2], dim=1),
    )
    assert torch.equal(ours(latent, timesteps, *text), expected)
    assert torch.equal(ours(latent, steps, *text), expected)
    # Told where steps end, those that know nothing of it go by the beginning.
    assert torch.equal(unet(latent, steps, *text), expected)
    torch.nn.init.normal_(ours.time_embedding.cond_proj.weight)
    changed = ours(latent, steps, *text)
    assert (changed - ours(latent, timesteps, *text)).abs().amax((1, 2, 3))[1:].min() > 1e-3
    assert torch.equal(changed[0], ours(latent, timesteps, *text)[0])  # both end where they begin


class ConvolvesFirst(torch.nn.Module):
    """diffusers' upsampling with Amphion's order: to twice the size, convolved, then cropped."""

    def __init__(self, upsample: torch.nn.Module) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, x: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
        x = self.conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x[:, :, : size[0], : size[1]] if size is not None else x


@torch.no_grad()
@pytest.mark.parametrize("size", [(10, 39), (5, 7), (8, 4)])
def test_odd_sizes_cropped_behind_the_convolution(unet, size):
    reference = theirs(SMALL)
    reference.load_state_dict(unet.state_dict())
    for block in reference.up_blocks[:-1]:
        block.upsamplers[0] = ConvolvesFirst(block.upsamplers[0])
    ours = UNet(dataclasses.replace(SMALL, odd_sizes="crop"))
    ours.load_state_dict(unet.state_dict())
    latent, timesteps, text_emb, text_mask = batch(size=size)
    expected = reference(latent, timesteps, text_emb, encoder_attention_mask=text_mask).sample
    result = ours(latent, timesteps, text_emb, text_mask)
    assert_close(result, expected)
    resized = unet(latent, timesteps, text_emb, text_mask)
    assert torch.allclose(result, resized, atol=1e-5) == (size == (8, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": [8, 8]}, r"num_heads \[8, 8\] must be one number, or one for each of the 3"),
        ({"num_heads": [8, 8, 7]}, "num_heads 7 must divide model_channels x channel_mult = 64"),
        (
            {"class_embed_dim": 12},
            "context_dim 24 and class_embed_dim 12: one of them must be null",
        ),
        ({"context_dim": None}, "context_dim None and class_embed_dim None: one of them must be"),
        (
            {"context_dim": None, "class_embed_dim": 12, "pooled_text": True},
            "pooled_text true needs context_dim; with class_embed_dim, the text goes along",
        ),
    ],
)
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes)


@torch.no_grad()
@pytest.mark.parametrize("size", [(10, 39), (5, 39), (10, 20), (7, 3), (1, 1)])
def test_odd_sizes_agree_with_diffusers(unet, size):
    reference = theirs(SMALL)
    reference.load_state_dict(unet.state_dict())
    latent, timesteps, text_emb, text_mask = batch(size=size)
    expected = reference(latent, timesteps, text_emb, encoder_attention_mask=text_mask).sample
    assert_close(unet(latent, timesteps, text_emb, text_mask), expected)


@pytest.mark.parametrize("size", [(10, 38), (9, 39)])
def test_patches_are_a_map_of_half_the_size_with_four_values_for_one(size):
    """Against diffusers' network on patches that are cut and put together by hand."""
    torch.manual_seed(0)
    whole = dataclasses.replace(SMALL, in_channels=16, out_channels=16)
    reference, config = theirs(whole), dataclasses.replace(SMALL, patch_size=2)
    unet = with_weights_of(reference, config)
    latent, timesteps, text_emb, text_mask = batch(config, size)
    height, width = -(-size[0] // 2), -(-size[1] // 2)
    padded = torch.zeros(3, 4, 2 * height, 2 * width)
    padded[:, :, : size[0], : size[1]] = latent
    patches = torch.zeros(3, 16, height, width)
    for channel in range(4):
        for row in range(2):
            for column in range(2):
                place = 4 * channel + 2 * row + column
                patches[:, place] = padded[:, channel, row::2, column::2]
    with torch.no_grad():
        expected = reference(patches, timesteps, text_emb, encoder_attention_mask=text_mask).sample
        found = unet(latent, timesteps, text_emb, text_mask)
    for place in range(16):
        channel, row, column = place // 4, place // 2 % 2, place % 2
        mine = found[:, channel, row::2, column::2]
        torch.testing.assert_close(
            mine, expected[:, place, : mine.shape[1], : mine.shape[2]], rtol=1e-4, atol=1e-5
        )


def test_the_shipped_size():
    config = load_config("egs/tta/audioldm/exp_config.json").model.audioldm
    with torch.device("meta"):
        ours, reference = UNet(config), theirs(config)
    assert sum(p.numel() for p in ours.parameters()) == 400_096_004
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in reference.state_dict().items()}


@torch.no_grad()
def test_pads_are_not_attended_to(unet):
    latent, timesteps, text_emb, text_mask = batch(size=(5, 8))
    expected = unet(latent, timesteps, text_emb, text_mask)
    text_emb[~text_mask] = 100.0
    assert_close(unet(latent, timesteps, text_emb, text_mask), expected)
    for index, length in enumerate([5, 1, 3]):
        here = slice(index, index + 1)
        mask = torch.ones(1, length, dtype=torch.int64)
        alone = unet(latent[here], timesteps[here], text_emb[here, :length], mask)
        assert_close(alone, expected[here])


@torch.no_grad()
def test_text_prepared_once_serves_every_step(unet):
    latent, timesteps, text_emb, text_mask = batch(size=(5, 8))
    context = unet.prepare_text(text_emb, text_mask)
    for shift in (0, 300):
        steps = (timesteps + shift) % 1000
        direct = unet(latent, steps, text_emb, text_mask)
        torch.testing.assert_close(unet(latent, steps, context=context), direct, rtol=0, atol=0)


@torch.no_grad()
def test_the_text_and_the_time_matter(unet):
    latent, timesteps, text_emb, text_mask = batch(size=(4, 4))
    expected = unet(latent, timesteps, text_emb, text_mask)
    assert (unet(latent, timesteps, -text_emb, text_mask) - expected).abs().max() > 1e-3
    assert (unet(latent, timesteps.flip(0), text_emb, text_mask) - expected).abs().max() > 1e-3


def test_gradient_checkpointing_gives_the_same_gradients(unet):
    inputs = batch(size=(5, 6))

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        unet.enable_gradient_checkpointing(checkpointing)
        unet.zero_grad()
        unet(*inputs).square().mean().backward()
        unet.enable_gradient_checkpointing(False)
        return [parameter.grad.clone() for parameter in unet.parameters()]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_gradient_checkpointing_keeps_less(unet):
    def kept_bytes(checkpointing: bool) -> int:
        kept = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        unet.enable_gradient_checkpointing(checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = unet(*batch(size=(16, 16))).mean()
        unet.enable_gradient_checkpointing(False)
        loss.backward()
        return sum(kept.values())

    assert kept_bytes(True) < kept_bytes(False) / 2


@torch.no_grad()
def test_channels_last_in_channels_last_out_and_the_same_values(unet):
    latent, *rest = batch(size=(5, 8))
    expected = unet(latent, *rest)
    nhwc = latent.to(memory_format=torch.channels_last)
    result = copy.deepcopy(unet).to(memory_format=torch.channels_last)(nhwc, *rest)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_close(result, expected)


def test_starts_as_zero_and_learns_from_the_first_step():
    unet = UNet(SMALL)
    output = unet(*batch(size=(4, 4)))
    assert (output == 0).all()
    (output - 1).square().mean().backward()
    assert unet.conv_out.weight.grad.abs().max() > 0


def test_half_precision_keeps_the_time_exact(unet):
    inputs = batch(size=(5, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert unet.time_embedding(inputs[1], inputs[1]).dtype == torch.float32
        result = unet(*inputs)
    with torch.no_grad():
        expected = unet(*inputs)
    assert (result - expected).std() < 0.02 * expected.std()


@torch.no_grad()
def test_weights_in_half_precision_give_nearly_the_same():
    unet, inputs = with_weights_of(theirs(SMALL), SMALL), batch(size=(5, 8))
    expected = unet(*inputs)
    unet.set_precision(torch.bfloat16)
    assert unet.time_embedding(inputs[1], inputs[1]).dtype == torch.float32
    for result in (unet(*inputs), unet(*inputs[:2], context=unet.prepare_text(*inputs[2:]))):
        assert result.dtype == torch.bfloat16
        assert 0 < (result - expected).std() < 0.02 * expected.std()
