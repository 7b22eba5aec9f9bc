"""Amphion's and AudioLDM's checkpoints: the same architecture's outputs from diffusers' classes."""

import pickle
from pathlib import Path

import pytest
import torch

from config.load import load_config
from models.tta.autoencoder.saved import load_vae
from models.tta.convert.latent_diffusion import read_amphion, read_audioldm
from models.tta.ldm.pipeline import PipelineSettings
from tests.models.tta.convert.ldm_style import (
    ldm_unet_weights,
    ldm_vae_weights,
    random_unet,
    random_vae,
)
from utils.errors import UserError

OWN = PipelineSettings.of(load_config("egs/tta/audioldm/exp_config.json"))
FOREIGN = PipelineSettings.of(load_config("egs/tta/audioldm/exp_config_audioldm_vae.json"))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def amphion_file(path: Path, weights: dict) -> Path:
    """As Amphion's trainers write it, optimizers and all."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    torch.save(
        {
            "model": weights,
            "optimizer_ae": state,
            "optimizer_disc": state,
            "step": 445000,
            "epoch": 100,
            "batch_size": 12,
        },
        path,
    )
    return path


def assert_same_vae(ours, theirs, mel, turn=lambda x: x) -> None:
    posterior, expected = ours.encode(mel), theirs.encode(turn(mel)).latent_dist
    torch.testing.assert_close(posterior.mean, turn(expected.mean), **CLOSE)
    torch.testing.assert_close(posterior.logvar, turn(expected.logvar), **CLOSE)
    latent = posterior.mode()
    assert latent.std() > 0.01
    decoded = turn(theirs.decode(turn(latent)).sample)
    assert decoded.std() > 0.01
    torch.testing.assert_close(ours.decode(latent), decoded, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("levels", [4, 5], ids=["4x10x78", "4x5x39"])
def test_amphion_s_vae(tmp_path, levels):
    theirs = random_vae(levels, attention=False, z=4)
    file = amphion_file(tmp_path / "vae.pt", ldm_vae_weights(theirs))
    found = read_amphion([file], OWN)
    assert found.unet is None
    found.write(tmp_path / "out", "amphion")
    saved = load_vae(tmp_path / "out")
    assert saved.mel == OWN.mel
    assert saved.vae.latent_std == 1.0
    assert_same_vae(saved.vae, theirs, torch.randn(1, 1, 80, 32))


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (12, 4)])
def test_amphion_s_unet(tmp_path, size):
    theirs = random_unet()
    weights = {f"unet.{name}": value for name, value in ldm_unet_weights(theirs).items()}
    found = read_amphion([amphion_file(tmp_path / "ldm.pt", weights)], OWN)
    shape, settings = found.settings.unet, found.settings
    assert (shape.attention_resolutions, shape.num_res_blocks, shape.num_heads) == ([4, 1], 2, 8)
    assert (shape.odd_sizes, settings.pads_negative) == ("crop", True)
    assert (settings.sampling.sampler, settings.sampling.num_steps) == ("pndm", 200)
    latent, timesteps = torch.randn(2, 4, *size), torch.tensor([3, 800])
    text = torch.randn(2, 5, 24)
    expected = theirs(latent, timesteps, text).sample
    assert expected.std() > 0.01
    result = found.unet(latent, timesteps, text, torch.ones(2, 5))
    torch.testing.assert_close(result, expected, **CLOSE)


def turned(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(2, 3)


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False], ids=["in a whole model", "alone"])
def test_audioldm_s_vae_works_on_time_and_mel(tmp_path, whole):
    theirs = random_vae(3, attention=True, z=8)
    weights = ldm_vae_weights(theirs)
    weights["loss.logvar"] = torch.zeros(())
    if whole:
        weights = {f"first_stage_model.{name}": value for name, value in weights.items()}
        weights["scale_factor"] = torch.tensor(0.8)
    file = tmp_path / "audioldm.ckpt"
    torch.save({"state_dict": weights, "epoch": 3, "global_step": 10}, file)
    found = read_audioldm([file], FOREIGN)
    assert found.settings.mel.n_mel == 64
    assert found.vae.latent_std.item() == pytest.approx(1.25 if whole else 1.0)
    assert_same_vae(found.vae, theirs, torch.randn(2, 1, 64, 16), turned)


def test_keys_left_over_or_missing_are_listed(tmp_path):
    weights = ldm_vae_weights(random_vae(2, attention=False, z=4))
    del weights["decoder.mid.block_1.conv1.bias"]
    weights["encoder.ghost.weight"] = torch.zeros(3)
    with pytest.raises(UserError) as error:
        read_amphion([amphion_file(tmp_path / "vae.pt", weights)], OWN)
    assert 'Missing key(s) in state_dict: "decoder.mid_block.resnets.0.conv1.bias"' in str(
        error.value
    )
    assert 'Unexpected key(s) in state_dict: "encoder.ghost.weight"' in str(error.value)


class Harmless:
    """What runs when a pickle of it is opened."""

    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "args": Harmless()}, "refused, since it holds more than tensors"),
        ({"weights": {}}, "must hold {'model': weights}; it holds weights"),
        ({"model": {"a": 3}}, "not all of it are named tensors: a"),
        ({"model": {"a": torch.zeros(3)}}, "missing: encoder.conv_in.weight"),
        ({"model": {"unet.out.0.weight": torch.zeros(3)}}, "missing: conv_in.weight"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message, capsys):
    file = tmp_path / "x.pt"
    torch.save(content, file)
    with pytest.raises(UserError, match=message):
        read_amphion([file], OWN)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"model": 3}, protocol=2)])
def test_broken_files_are_named(tmp_path, content):
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt"):
        read_amphion([file], OWN)
    with pytest.raises(UserError, match="no such file"):
        read_amphion([tmp_path / "y.pt"], OWN)


def test_narrow_networks_have_other_norms_here(tmp_path):
    weights = ldm_vae_weights(random_vae(2, attention=False, z=4))
    halved = {n: v[tuple(slice(0, -(-s // 2)) for s in v.shape)] for n, v in weights.items()}
    with pytest.raises(UserError, match="64 channels at full resolution"):
        read_amphion([amphion_file(tmp_path / "vae.pt", halved)], OWN)
