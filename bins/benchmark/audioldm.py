"""Stage 2's step beside the U-Net alone, and beside the way of Amphion's recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch.utils.checkpoint import checkpoint

from bins.benchmark.measure import Part, alternate
from bins.benchmark.synthetic import write_data, write_t5, write_vae
from bins.tta.train import loop, make_task
from config.load import load_config
from models.base.dry_run import DryRun
from modules.attention import SpatialTransformer
from processors.dataset import read_batch
from processors.metadata import mel_path

OURS = "this recipe's step"
ALONE = "U-Net forward + backward + AdamW"
REFERENCE = "the reference's way"
STEPS_PER_CALL = {"cuda": 10}  # so that a GPU never waits between steps


def measure(config: str, vae_config: str, overrides: list[str], rounds: int, root: Path) -> Part:
    """Of the models in these configs, with random weights of their full size.

    Args:
        config, vae_config: stage 2's and stage 1's.
        overrides: of stage 2's config.
        rounds: how often each way is timed.
        root: an empty folder to work in.
    """
    settings = load_config(config, overrides)
    batch_size = settings.train.batch_size
    made = write_data(root / "data", settings, clips=2 * batch_size)
    made += write_t5(root / "t5") + write_vae(root / "vae", load_config(vae_config))
    run = DryRun(load_config(config, [*overrides, *made]), make_task)
    device = run.accelerator.device
    steps = STEPS_PER_CALL.get(device.type, 1)

    def ours() -> None:
        run.last_step = run.step + steps
        loop(run)

    ways = {OURS: ours, ALONE: repeated(alone(run), steps), REFERENCE: repeated(plain(run), steps)}
    lines = alternate(ways, steps * batch_size, rounds, device)
    part = Part("audioldm", f"{config}, batch {batch_size}, latent {run.task.latent_shape}", lines)
    wanted = "at least 1.6" if run.task.latent_shape[1] == 10 else "at least 2.3"
    if device.type == "cuda":
        wanted = "at least 10"
    part.compare(OURS, ALONE, f"{OURS} / {ALONE}", "at most 1.05")
    part.compare(REFERENCE, OURS, "clips/s against the reference's way", wanted)
    return part


def repeated(way: Callable[[], None], times: int) -> Callable[[], None]:
    return lambda: [way() for _ in range(times)]


def alone(run: DryRun) -> Callable[[], None]:
    """The network's own work: on one batch that lies ready, with the run's own optimizer."""
    task = run.task
    optimizer = task.optimizers["unet"]
    batch = next(task.batches(0))
    text, mask = batch["text_emb"].to(run.accelerator.device).float(), batch["text_mask"]
    latent = torch.randn(len(text), *task.latent_shape, device=run.accelerator.device)
    timesteps, mask = torch.full((len(text),), 500).to(latent.device), mask.to(latent.device)

    def step() -> None:
        with run.accelerator.autocast():
            loss = task.unet(latent, timesteps, text, mask).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain(run: DryRun) -> Callable[[], None]:
    """As Amphion does it: T5 and VAE at every step, float32, attention blocks computed twice.

    The optimizer is the run's own, so what differs is the networks' work.
    """
    task, config, device = run.task, run.task.config, run.accelerator.device
    optimizer = task.optimizers["unet"]
    records = task.train_records[: config.train.batch_size]
    frames = config.preprocess.segment_frames
    mel = read_batch([mel_path(config, record) for record in records], frames)
    captions = [record["Caption"] for record in records]
    schedule = task.objective.schedule

    @attention_computed_twice()
    @torch.compiler.set_stance("force_eager")
    def step() -> None:
        with torch.no_grad():
            posterior = task.vae.encode(mel.to(device))
            latent = posterior.sample(torch.randn_like(posterior.mean))
            text = task.text_encoder.encode(captions)
        noise = torch.randn_like(latent)
        timesteps = torch.randint(schedule.alphas_cumprod.numel(), (len(latent),), device=device)
        noisy = schedule.add_noise(latent, noise, timesteps)
        (task.unet(noisy, timesteps, *text) - noise).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def attention_computed_twice() -> contextlib.AbstractContextManager:
    """Within the `with` block, attention blocks keep nothing for the backward pass."""
    forward = SpatialTransformer.forward

    def checkpointed(self, *inputs):
        return checkpoint(forward, self, *inputs, use_reentrant=False)

    return mock.patch.object(SpatialTransformer, "forward", checkpointed)
