"""Stage 1's step with its discriminator beside the same networks trained as papers' code does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from bins.benchmark.measure import Part, alternate
from bins.benchmark.synthetic import write_data
from bins.tta.train import loop, make_task
from config.load import load_config
from models.base.dry_run import DryRun
from models.tta.autoencoder.losses import adaptive_weight, hinge_discriminator_loss

OURS = "this recipe's step"
PLAIN = "the same networks, plainly"


def measure(config: str, overrides: list[str], rounds: int, root: Path) -> Part:
    """Of the model in this config; arguments as in bins/benchmark/audioldm.py."""
    settings = load_config(config, overrides)
    batch_size = settings.train.batch_size
    made = write_data(root / "data", settings, clips=2 * batch_size)
    made += ["train.num_workers=0", "model.loss.decoder_alone=false"]  # both learn, both ways
    run = DryRun(load_config(config, [*overrides, *made]), make_task)
    device = run.accelerator.device

    def ours() -> None:
        run.last_step = run.step + 1
        loop(run)

    lines = alternate({OURS: ours, PLAIN: plain(run)}, batch_size, rounds, device)
    part = Part("autoencoderkl", f"{config}, batch {batch_size}, with its discriminator", lines)
    wanted = "at least 4" if device.type == "cuda" else "at least 1.3"
    part.compare(PLAIN, OURS, f"{PLAIN} / {OURS}", wanted)
    return part


def plain(run: DryRun) -> Callable[[], None]:
    """Float32; the adaptive weight by two gradients at the last layer (Esser et al. 2021, eq. 7).

    As in the paper's code (taming-transformers, VQLPIPSWithDiscriminator), but the mel is
    reconstructed once for both networks and not once for each.
    """
    task, loss = run.task, run.task.config.model.loss
    of_vae, of_discriminator = (task.optimizers[name] for name in ("generator", "discriminator"))
    mel = next(task.batches(0))["mel"].to(run.accelerator.device)
    vae, discriminator, last = task.vae, task.discriminator, task.vae.last_layer

    @torch.compiler.set_stance("force_eager")
    def step() -> None:
        posterior = vae.encode(mel)
        rebuilt = vae.decode(posterior.sample(torch.randn_like(posterior.mean)))
        nll = F.l1_loss(rebuilt, mel) / task.objective.logvar.exp() + task.objective.logvar
        adversarial = -discriminator(rebuilt).mean()
        (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
        (of_gan,) = torch.autograd.grad(adversarial, last, retain_graph=True)
        weight = adaptive_weight(of_nll, of_gan, loss.max_adapt_d_weight)
        kl = loss.kl_weight * posterior.kl().mean()
        (nll + kl + loss.disc_weight * weight * adversarial).backward()
        of_vae.step()
        of_vae.zero_grad(set_to_none=True)
        of_discriminator.zero_grad(set_to_none=True)
        fake = discriminator(rebuilt.detach())
        hinge_discriminator_loss(discriminator(mel), fake).backward()
        of_discriminator.step()
        of_discriminator.zero_grad(set_to_none=True)

    return step
