import dataclasses
import functools

import numpy as np
import pytest
import torch

from bins.tta.train import make_task
from models.base.accelerator import make_accelerator
from models.tta.autoencoder.saved import load_vae
from models.tta.autoencoder.training import AutoencoderTraining
from tests import tiny
from utils.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage1")
    tiny.write_data(root)
    return tiny.load(tiny.write_config(root, 1))


@pytest.fixture
def task(config, tmp_path) -> AutoencoderTraining:
    torch.manual_seed(0)
    task = make_task(config, make_accelerator(config), None)
    task.prepare_data(tmp_path)
    return task


def gradients(task, step) -> dict[str, float]:
    """One step's backward passes; the norms of both networks' gradients."""
    losses = task.losses(next(task.batches(step)), step, 0)
    for loss in losses:
        loss.value.backward()
    norms = {}
    for name, module in task.trainable.items():
        squares = [p.grad.square().sum() for p in module.parameters() if p.grad is not None]
        norms[name] = float(sum(squares, torch.zeros(())).sqrt())
    return norms


def test_generator_and_discriminator_do_not_leak_into_each_other(task):
    step = 3
    task.d_weight = torch.tensor(0.5)
    generator_loss, d_loss = [loss.value for loss in task.losses(next(task.batches(step)), step, 0)]
    generator, discriminator = task.objective.parameters(), task.discriminator.parameters()
    reached = torch.autograd.grad(
        generator_loss, list(discriminator), allow_unused=True, retain_graph=True
    )
    assert all(gradient is None for gradient in reached)
    reached = torch.autograd.grad(d_loss, list(generator), allow_unused=True)
    assert all(gradient is None for gradient in reached)


def test_compiled_it_learns_the_same(config, monkeypatch, tmp_path):
    """As on a GPU but for the kernels: a compiled network's backward pass runs once."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr("models.tta.autoencoder.training.compiles", lambda setting, _: setting)
    for step in (1, 3):  # without the discriminator, and with it
        found = []
        for setting in (False, True):
            train = dataclasses.replace(config.train, compile=setting)
            changed = dataclasses.replace(config, train=train)
            torch.manual_seed(0)
            task = make_task(changed, make_accelerator(changed), None)
            task.prepare_data(tmp_path)
            task.d_weight = torch.tensor(0.5)
            found.append((gradients(task, step), [p.grad for p in task.objective.parameters()]))
        torch.testing.assert_close(found[1], found[0])


def test_latent_std_follows_the_latents_and_survives_what_is_not_finite(task):
    for step in range(30):
        # mean 1, mean square 5: deviation 2
        task.after_step(step, {"latent_moments": torch.tensor([1.0, 5.0])})
    assert task.vae.latent_std.item() == pytest.approx(2.0, rel=0.02)
    before = task.vae.latent_std.clone()
    task.after_step(30, {"latent_moments": torch.tensor([float("nan"), 5.0])})
    assert torch.equal(task.vae.latent_std, before)


def test_the_decoder_starts_at_the_mean_of_the_mels(task):
    mels = [np.load(path) for path in sorted(task_folder(task).glob("*.npy"))]
    bias = task.vae.decoder.conv_out.bias.item()
    assert min(mel.mean() for mel in mels) - 5 < bias < max(mel.mean() for mel in mels)
    assert bias == pytest.approx(-7, abs=2)  # about -5, and silence where clips are short


def task_folder(task):
    from processors.metadata import mel_path

    return mel_path(task.config, task.train_records[0]).parent


def test_validation_is_that_of_each_clip_by_itself(task):
    whole = task.validate()
    each = []
    for clip in list(task.valid_records):
        task.valid_records = [clip]
        each.append(task.validate())
    assert len(each) == 3
    for name in ("loss", "kl_loss", "latent_std"):
        assert whole[name] == pytest.approx(np.mean([metrics[name] for metrics in each]), rel=1e-5)


def test_no_clip_to_validate_with(task):
    task.valid_records = []
    assert task.validate() == {}


def test_what_is_written_is_what_stage_2_loads(task, tmp_path):
    task.vae.latent_std.fill_(1.7)
    task.save_for_inference(tmp_path)
    saved = load_vae(tmp_path)
    assert saved.mel == tiny.MEL
    for name, tensor in task.vae.state_dict().items():
        assert torch.equal(saved.vae.state_dict()[name], tensor), name
    assert not any(p.requires_grad for p in saved.vae.parameters())


def test_the_fingerprint_of_a_vae_changes_with_any_weight(task, tmp_path):
    task.save_for_inference(tmp_path)
    before = load_vae(tmp_path).fingerprint
    assert load_vae(tmp_path).fingerprint == before
    task.vae.encoder.conv_in.bias.data[0] += 1e-3
    task.save_for_inference(tmp_path)
    assert load_vae(tmp_path).fingerprint != before


def test_fine_tuning_starts_from_weights_and_refuses_another_mel(config, task, tmp_path):
    from utils.checkpoint import read_json, write_json

    task.save_for_inference(tmp_path)
    train = dataclasses.replace(config.train, init_from=str(tmp_path))
    tuned = make_task(dataclasses.replace(config, train=train), make_accelerator(config), None)
    for name, tensor in task.vae.state_dict().items():
        assert torch.equal(tuned.vae.state_dict()[name], tensor), name
    settings = read_json(tmp_path / "pipeline.json")
    settings["mel"]["fmax"] = 1000.0
    write_json(tmp_path / "pipeline.json", settings)
    with pytest.raises(UserError, match=r"another mel than the config's: fmax 1000\.0 and 2000\.0"):
        make_task(dataclasses.replace(config, train=train), make_accelerator(config), None)


def test_a_decoder_that_learns_alone_is_the_newest_vaes(config, task, tmp_path):
    loss = dataclasses.replace(config.model.loss, decoder_alone=True)
    model = dataclasses.replace(config.model, loss=loss)
    alone = dataclasses.replace(config, model=model, log_dir=str(tmp_path))
    with pytest.raises(UserError, match="no trained AutoencoderKL there"):
        make_task(alone, make_accelerator(alone), None)
    task.vae.latent_std.fill_(2.0)
    for name, bias in (("older", 1.0), ("newer", 2.0)):
        task.vae.decoder.conv_out.bias.data.fill_(bias)
        task.save_for_inference(tmp_path / name / "final")
    made = make_task(alone, make_accelerator(alone), None)
    made.prepare_data(tmp_path)
    assert made.notes[-1] == f"starts from the weights in {tmp_path / 'newer/final'}"
    for name, tensor in task.vae.state_dict().items():
        assert torch.equal(made.vae.state_dict()[name], tensor), name
    assert made.begun_from == tmp_path / "newer/final"
    made.after_step(0, {"latent_moments": torch.tensor([0.0, 9.0])})
    assert made.vae.latent_std == 2.0, "the scale of the latents stays, as they do"
    assert gradients(made, 1)["generator"] > 0
    for part in (made.vae.encoder, made.vae.quant_conv):
        assert all(p.grad is None for p in part.parameters())
    assert all(p.grad is not None for p in made.vae.decoder.parameters())
    # |N(0, decoder_noise^2)| standard deviations for each clip.
    drawn = torch.cat([made._decoder_noise(step, 0) for step in range(400)])
    sizes = drawn.flatten(1).std(1) / 2.0
    assert sizes.square().mean().sqrt().item() == pytest.approx(0.4, rel=0.1)
    assert sizes.mean().item() == pytest.approx(0.4 * (2 / np.pi) ** 0.5, rel=0.1)
