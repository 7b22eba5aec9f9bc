"""Trains stage 1 or stage 2, whichever model the config is of; the same command again resumes.

sh egs/tta/autoencoderkl/run_train.sh        sh egs/tta/audioldm/run_train.sh
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import add_config_arguments, parse_arguments, run_main

if TYPE_CHECKING:  # heavy, and --help is at once
    from config.schema import Config
    from models.base.dry_run import Rehearsal
    from models.base.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add_config_arguments(parser, "egs/tta/audioldm/exp_config.json")
    parser.add_argument("--exp_name", help="folder in log_dir; default: the config's name")
    parser.add_argument(
        "--dry_run", action="store_true", help="try a few steps, say what to expect, write nothing"
    )
    arguments = parse_arguments(parser)

    from config.load import find_config, load_config
    from utils.run_folder import finished_at, run_folder

    config = load_config(arguments.config, arguments.overrides)
    exp_name = arguments.exp_name
    if exp_name is None:
        exp_name = default_name(str(find_config(arguments.config)))
    folder = run_folder(config.log_dir, exp_name)
    step = finished_at(folder)
    if step is not None and step >= config.train.max_steps and not arguments.dry_run:
        print(f"{folder}: finished at step {step}; a larger train.max_steps lets it go on")
        return
    train(config, exp_name, arguments.dry_run)


def default_name(config: str) -> str:
    """egs/tta/audioldm/exp_config_latent_4_5_39.json -> audioldm_latent_4_5_39."""
    path = Path(config).resolve()
    parts = [path.parent.name, path.stem.removeprefix("exp_config").strip("_")]
    return "_".join(part for part in parts if part)


def train(config: Config, exp_name: str, dry_run: bool) -> None:
    """Trains `config` in <log_dir>/<exp_name> up to max_steps, from where it was left."""
    from models.base.dry_run import Rehearsal
    from models.base.run import Run

    run = Rehearsal(config) if dry_run else Run(config, exp_name)
    if run.step == 0 and config.train.init_from and not dry_run:
        run.validate()  # what the weights are worth before they learn
    loop(run)
    run.finish()


def loop(run: Run | Rehearsal) -> None:
    """Learns from where `run` is up to its last step.

    It knows a model by the few methods that models/tta/autoencoder/training.py and
    models/tta/ldm/training.py share, and the rest by models/base/run.py.
    """
    import torch

    from modules.optimizer import gradient_norm, learning_rate, update

    settings, task, accelerator = run.config.train, run.task, run.accelerator
    parts = settings.gradient_accumulation_steps
    batches = task.batches(run.step)

    while run.step < run.last_step and not run.stop_requested():
        # 1. Gradients, piece by piece of the batch, each network's right after its loss.
        finite, losses, norms = [], {}, {}
        for part in range(parts):
            waiting = time.perf_counter()
            batch = next(batches)
            run.waited += time.perf_counter() - waiting
            with synchronised(accelerator, task.wrapped, part + 1 == parts):
                for network, loss, figures in task.losses(batch, run.step, part):
                    accelerator.backward(loss / parts)
                    losses[network] = loss.detach()
                    finite.append(loss.detach().isfinite())
                    run.figures.add(figures)

        # 2. One step of every network that had a loss, or of none where anything is not finite.
        rate = learning_rate(settings, run.step)
        for network in losses:
            norms[network] = gradient_norm(task.learning[network].parameters())
            finite.append(norms[network].isfinite())
            run.figures.add({f"grad_norm_{network}": norms[network]})
        wrong = 1 - torch.stack(finite).all().float()
        skip = accelerator.reduce(wrong, reduction="sum").clamp(max=1)
        for network in losses:
            update(task.optimizers[network], rate, norms[network], settings.grad_clip, skip)
        run.figures.add(task.after_update(run.step))
        if task.ema:
            task.ema.update(task.objective.parameters(), run.step)
        run.watch.note(run.step, skip)
        run.step += 1

        # 3. What is due now: figures, validation, sounds, checkpoint.
        run.bar.update()
        if run.due(settings.save_summary_steps):
            run.summarise(rate)
        if run.due(settings.valid_interval) or run.due(settings.save_checkpoints_steps):
            run.validate()
        if run.due(settings.sample_interval):
            run.log_sounds()
        if run.due(settings.save_checkpoints_steps):
            run.save_checkpoint()


def synchronised(accelerator, modules, yes: bool) -> contextlib.ExitStack:
    """Whether processes exchange the gradients of this backward pass: at a batch's last piece."""
    stack = contextlib.ExitStack()
    if not yes:
        for module in modules:
            stack.enter_context(accelerator.no_sync(module))
    return stack


if __name__ == "__main__":
    run_main(main)
