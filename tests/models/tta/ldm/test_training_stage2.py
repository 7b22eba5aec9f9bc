"""Stage 2's part of the loop: what it draws, and what it makes of a batch."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from bins.tta.train import make_task
from config.load import load_config
from config.model_schema import AutoencoderKLConfig
from models.base.accelerator import make_accelerator
from models.tta.autoencoder.saved import load_vae, save_vae
from models.tta.ldm.conditions import check_latent
from models.tta.ldm.training import AudioLDMTraining
from tests import tiny
from tests.compare import scalars
from tests.tiny import ROOT
from utils.errors import UserError
from utils.seeds import generator


@pytest.fixture(scope="module")
def config(trained):
    return tiny.load(trained / "stage2.json", {"model": {"caption_dropout": 0.3}})


@pytest.fixture(scope="module")
def task(config, tmp_path_factory) -> AudioLDMTraining:
    torch.manual_seed(0)
    task = make_task(config, make_accelerator(config), None)
    task.prepare_data(tmp_path_factory.mktemp("cache"))
    return task


def timesteps(task, step: int, clips: int) -> torch.Tensor:
    return task._draw(generator("cpu", 1, "test", step), clips)[0]


def test_the_timesteps_of_a_batch_lie_at_equal_distances(task):
    for step in range(20):
        drawn = timesteps(task, step, 8)
        assert drawn.dtype == torch.int64
        assert 0 <= drawn.min() <= drawn.max() < 1000
        gaps = drawn.sort().values.diff()
        assert gaps.min() >= 124
        assert gaps.max() <= 126


@pytest.mark.parametrize("clips", [1, 4])
def test_each_clip_s_timestep_is_uniform(task, clips):
    drawn = torch.stack([timesteps(task, step, clips) for step in range(2000)])
    for one in drawn.T:
        shares = one.float().histc(10, 0, 1000) / len(one)
        assert (shares - 0.1).abs().max() < 0.03  # 4 standard deviations


def test_captions_are_dropped_for_the_empty_prompt_at_their_rate(task):
    empty, _ = task.text_encoder.tokenize([""])
    batches = itertools.islice(task.batches(0), 250)
    rows = [row for batch in batches for row in batch["token_ids"]]
    dropped = [torch.equal(row, empty[0]) for row in rows]
    assert sum(dropped) / len(dropped) == pytest.approx(0.3, abs=0.06)


def test_a_step_s_loss_does_not_depend_on_its_micro_batches(trained, config, tmp_path):
    def loss(micro_batches: int) -> float:
        train = dataclasses.replace(config.train, gradient_accumulation_steps=micro_batches)
        cut = dataclasses.replace(config, train=train)
        newest = trained / "runs/ldm/checkpoints/step-00000006"
        task = make_task(cut, make_accelerator(cut), newest)
        task.prepare_data(tmp_path)
        numbered = zip(range(micro_batches), task.batches(3), strict=False)
        losses = [next(task.losses(batch, 3, micro)).value for micro, batch in numbered]
        return torch.stack(losses).mean().item()

    assert loss(1) == pytest.approx(loss(4), rel=1e-5)


def test_validation_does_not_depend_on_what_a_clip_is_batched_with(task):
    together = task._draw_for_clips(range(3))
    for number in range(3):
        alone = task._draw_for_clips(range(number, number + 1))
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one[0], other[number])
    timesteps, spread, noise = together
    for drawn in (timesteps, spread[:, 0, 0, 0], noise[:, 0, 0, 0]):
        assert len(drawn.unique()) == 3, "each clip has its own"


def test_validation_measures_the_average(trained, config, tmp_path):
    """What the curve ends with is the loss of the weights that the checkpoint has for inference."""
    task = make_task(
        config, make_accelerator(config), trained / "runs/ldm/checkpoints/step-00000006"
    )
    task.prepare_data(tmp_path)
    (step, found) = scalars(trained / "runs/ldm")["valid/loss"][-1]
    assert step == 6
    of_last_weights = task.validate()["loss"]
    task.unet.load_state_dict(load_file(trained / "runs/ldm/final/unet.safetensors"))
    text = load_file(trained / "runs/ldm/final/text_encoder/model.safetensors")
    task.text_encoder.model.load_state_dict(text, strict=False)  # one tensor has two names
    assert task.validate()["loss"] == pytest.approx(found, rel=1e-5)
    assert of_last_weights != pytest.approx(found, rel=1e-4)


def test_validation_with_the_texts_of_other_clips(trained, config, tmp_path):
    task = make_task(
        config, make_accelerator(config), trained / "runs/ldm/checkpoints/step-00000006"
    )
    task.prepare_data(tmp_path)
    for weights in task.unet.parameters():  # six steps leave it nearly deaf
        torch.nn.init.normal_(weights, std=0.3)
    found, captions = task.validate(), [record["Caption"] for record in task.valid_records]
    half = len(captions) // 2
    others = zip(task.valid_records, captions[half:] + captions[:half], strict=True)
    task.valid_records = [{**record, "Caption": text} for record, text in others]
    assert len(set(captions)) > 1
    task.prepare_data(tmp_path)
    changed = task.validate()
    assert found["loss_other_text"] == pytest.approx(changed["loss"], rel=1e-5)
    assert found["loss_other_text"] != pytest.approx(found["loss"], rel=1e-3)


def wanting(latent: list[int], preprocess) -> SimpleNamespace:
    """What of a config says which latents it is for."""
    model = SimpleNamespace(latent=latent)
    return SimpleNamespace(model=model, preprocess=preprocess, task="AudioLDM")


def test_a_vae_of_another_latent_is_refused(config):
    vae = AutoencoderKLConfig(32, [1, 1], 1, False, 1, 1, 2, True)
    mel = config.preprocess  # 16 bands, 16 frames
    check_latent(wanting([2, 8, 8], mel), vae, Path("here"))
    for latent in ([4, 8, 8], [2, 4, 8], [2, 8, 4]):
        with pytest.raises(UserError, match=r"VAE in here gives latents \[2, 8, 8\], and this"):
            check_latent(wanting(latent, mel), vae, Path("here"))
    deep = AutoencoderKLConfig(32, [1] * 6, 1, False, 1, 1, 2, True)
    with pytest.raises(UserError, match="n_mel 16 must be a multiple of 32, the downsampling"):
        check_latent(wanting([2, 8, 8], mel), deep, Path("here"))


def test_the_config_that_is_for_a_vae_is_named():
    """Who has trained the small VAE, and then stage 2 without its small config."""
    vae = load_config(ROOT / "egs/tta/autoencoderkl/exp_config_small.json").model.autoencoderkl
    large = load_config(ROOT / "egs/tta/audioldm/exp_config.json")
    with pytest.raises(UserError) as caught:
        check_latent(large, vae, Path("here"))
    small = "egs/tta/audioldm/exp_config_small.json"
    assert str(caught.value).endswith(f"or a config for this latent (--config {small})")


def test_a_resumed_run_has_the_weights_and_the_average_apart(trained, config):
    newest = trained / "runs/ldm/checkpoints/step-00000006"
    task = make_task(config, make_accelerator(config), newest)
    average = load_file(newest / "unet.safetensors")
    weights = load_file(newest / "learning.safetensors")
    for name, tensor in average.items():
        assert torch.equal(task.ema.shadow[f"unet.{name}"], tensor), name
    for name, tensor in task.objective.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    of_text = load_file(newest / "text_encoder/model.safetensors")
    assert len(of_text) > 5
    for name, tensor in of_text.items():
        (ours,) = [t for n, t in task.ema.shadow.items() if n.endswith(name)]
        assert torch.equal(ours, tensor), name


def test_a_resumed_run_keeps_the_vae_that_it_began_with(trained, config, tmp_path):
    newest = trained / "runs/ldm/checkpoints/step-00000006"
    began_with = load_vae(newest / "vae")
    other = load_vae(newest / "vae")
    other.vae.latent_std.mul_(2)
    save_vae(tmp_path, other.vae, other.mel)
    model = dataclasses.replace(config.model, autoencoder_path=str(tmp_path))
    task = make_task(dataclasses.replace(config, model=model), make_accelerator(config), newest)
    assert task.saved_vae.fingerprint == began_with.fingerprint
    assert torch.equal(task.vae.latent_std, began_with.vae.latent_std)
