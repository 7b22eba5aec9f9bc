"""Folders that diffusers and transformers wrote, against their own classes."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from models.tta.autoencoder.saved import load_vae
from models.tta.convert.from_diffusers import read_diffusers
from models.vocoders.load import load_vocoder
from tests.models.tta.convert.ldm_style import random_unet, random_vae
from tests.models.tta.convert.small_models import randomise
from tests.models.tta.convert.test_from_ldm_style import CLOSE, FOREIGN, assert_same_vae, turned
from utils.errors import UserError


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@torch.no_grad()
@pytest.mark.parametrize("safetensors", [True, False])
def test_audioldm_s_vae(tmp_path, safetensors):
    theirs = random_vae(3, attention=True, z=8, scaling_factor=0.9227)
    theirs.save_pretrained(tmp_path / "vae", safe_serialization=safetensors)
    found = read_diffusers([tmp_path / "vae"], FOREIGN, layout=None)
    found.write(tmp_path / "out", "diffusers")
    saved = load_vae(tmp_path / "out")
    assert (saved.mel.n_mel, saved.mel.hop_size) == (64, 160)
    assert saved.vae.latent_std.item() == pytest.approx(1 / 0.9227)
    assert_same_vae(saved.vae, theirs, torch.randn(2, 1, 64, 16), turned)


@torch.no_grad()
def test_maps_of_mel_and_time_are_taken_as_they_are_where_that_is_said(tmp_path):
    theirs = random_vae(2, attention=False, z=4)
    theirs.save_pretrained(tmp_path)
    found = read_diffusers([tmp_path], FOREIGN, layout="mel_time")
    assert_same_vae(found.vae, theirs, torch.randn(1, 1, 64, 8))
    (tmp_path / "mel_config.json").write_text(json.dumps({**dataclasses.asdict(MEL), "n_mel": 80}))
    found = read_diffusers([tmp_path], FOREIGN, layout=None)
    assert_same_vae(found.vae, theirs, torch.randn(1, 1, 80, 8))
    assert found.settings.mel.n_mel == 80


MEL = FOREIGN.mel


@torch.no_grad()
def test_the_old_names_of_attention(tmp_path):
    """Those in which AudioLDM's and AudioLDM 2's VAE were published."""
    theirs = random_vae(2, attention=True, z=4)
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in theirs.state_dict().items():
        for new_name, old_name in old.items():
            name = name.replace(f".{new_name}.", f".{old_name}.")
        tensors[name] = value
    assert any("proj_attn" in name for name in tensors)
    torch.save(tensors, tmp_path / "diffusion_pytorch_model.bin")
    found = read_diffusers([tmp_path], FOREIGN, layout=None)
    assert_same_vae(found.vae, theirs, torch.randn(1, 1, 64, 8), turned)


@torch.no_grad()
def test_a_unet(tmp_path):
    theirs = random_unet()
    theirs.save_pretrained(tmp_path)
    found = read_diffusers([tmp_path], FOREIGN, layout=None)
    shape = found.settings.unet
    assert (shape.attention_resolutions, shape.num_heads, shape.context_dim) == ([4, 1], 8, 24)
    latent, timesteps = torch.randn(2, 4, 6, 10), torch.tensor([3, 800])
    text, mask = torch.randn(2, 5, 24), torch.tensor([[1] * 5, [1, 1, 0, 0, 0]]).bool()
    expected = theirs(turned(latent), timesteps, text, encoder_attention_mask=mask).sample
    assert expected.std() > 0.01
    result = found.unet(latent, timesteps, text, mask)
    torch.testing.assert_close(result, turned(expected), **CLOSE)


@torch.no_grad()
def test_a_vocoder_of_another_mel(tmp_path):
    torch.manual_seed(0)
    config = SpeechT5HifiGanConfig(  # AudioLDM's, but narrow
        model_in_dim=64,
        sampling_rate=16000,
        upsample_initial_channel=64,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
    )
    theirs = randomise(SpeechT5HifiGan(config)).eval()
    theirs.save_pretrained(tmp_path / "vocoder")
    edit(tmp_path / "vocoder" / "config.json", model_type="hifigan")  # its name when published
    found = read_diffusers([tmp_path / "vocoder"], FOREIGN, layout=None)
    found.write(tmp_path / "out", "diffusers")
    vocoder = load_vocoder(str(tmp_path / "out"), MEL)
    mel = torch.randn(2, 64, 9)
    expected = theirs(mel.transpose(1, 2))
    assert expected.std() > 0.01
    torch.testing.assert_close(vocoder(mel), expected[:, : 9 * 160], **CLOSE)
    with pytest.raises(UserError, match="hop_size 160 and 256, n_mel 64 and 80"):
        load_vocoder(str(tmp_path / "out"), dataclasses.replace(MEL, hop_size=256, n_mel=80))


def test_another_architecture_is_refused_by_its_settings(tmp_path):
    random_vae(2, attention=False, z=4).save_pretrained(tmp_path / "vae")
    edit(tmp_path / "vae" / "config.json", act_fn="relu", norm_num_groups=16, new_setting=True)
    with pytest.raises(UserError) as error:
        read_diffusers([tmp_path / "vae"], FOREIGN, layout=None)
    for fault in ("act_fn is 'relu', not 'silu'", "norm_num_groups is 16, not 32", "new_setting"):
        assert fault in str(error.value)

    random_unet().save_pretrained(tmp_path / "unet")
    edit(tmp_path / "unet" / "config.json", class_embed_type="simple_projection")
    with pytest.raises(UserError, match="class_embed_type is 'simple_projection', not None"):
        read_diffusers([tmp_path / "unet"], FOREIGN, layout=None)
    edit(tmp_path / "unet" / "config.json", class_embed_type=None, attention_head_dim=[5, 10, 20])
    with pytest.raises(UserError, match="num_heads 5 must divide"):
        read_diffusers([tmp_path / "unet"], FOREIGN, layout=None)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        read_diffusers([tmp_path], FOREIGN, layout=None)
    (tmp_path / "config.json").write_text('{"_class_name": "AudioLDM2UNet2DConditionModel"}')
    with pytest.raises(UserError, match="of class AudioLDM2UNet2DConditionModel"):
        read_diffusers([tmp_path], FOREIGN, layout=None)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(UserError, match="no weights there"):
        read_diffusers([tmp_path], FOREIGN, layout=None)


def test_parts_of_different_mels_are_refused(tmp_path):
    for name, hop in (("one", 160), ("two", 200)):
        random_vae(2, attention=False, z=4).save_pretrained(tmp_path / name)
        settings = {**dataclasses.asdict(MEL), "hop_size": hop}
        (tmp_path / name / "mel_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        UserError, match=r"two: made for another mel than .*one's: hop_size 200 and 160"
    ):
        read_diffusers([tmp_path / "one", tmp_path / "two"], FOREIGN, layout=None)
    with pytest.raises(UserError, match="a second vae"):
        read_diffusers([tmp_path / "one", tmp_path / "one"], FOREIGN, layout=None)
