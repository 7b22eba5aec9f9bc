"""Trains stage 1 or stage 2, whichever model the config is of; the same command again resumes.

sh egs/tta/autoencoderkl/run_train.sh        sh egs/tta/audioldm/run_train.sh
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import add_config_arguments, parse_arguments, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_config_arguments(parser, "egs/tta/audioldm/exp_config.json")
    parser.add_argument("--exp_name", help="folder in log_dir; default: the config's name")
    arguments = parse_arguments(parser)

    from utils.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    train(config, arguments.exp_name or default_name(arguments.config))


def default_name(config: str) -> str:
    """egs/tta/audioldm/exp_config_latent_4_5_39.json -> audioldm_latent_4_5_39."""
    path = Path(config).resolve()
    return path.parent.name + path.stem.removeprefix("exp_config")


def train(config, exp_name: str) -> None:
    """Trains `config` in <log_dir>/<exp_name> up to max_steps, from where it was left.

    The loop knows a model by the few methods that models/tta/autoencoder/training.py and
    models/tta/ldm/training.py share.
    """
    import torch

    from modules.optimizer import clip_gradients, learning_rate, update
    from utils.run import Run

    settings = config.train
    run = Run(config, exp_name)
    task, accelerator = run.task, run.accelerator
    parts = settings.gradient_accumulation_steps
    batches = task.batches(run.step)

    while run.step < settings.max_steps and not run.stop_requested():
        # 1. Gradients, piece by piece of the batch, each network's right after its loss.
        names, finite, losses = [], [], {}
        for part in range(parts):
            waiting = time.perf_counter()
            batch = next(batches)
            run.waited += time.perf_counter() - waiting
            names += batch["uid"]
            with synchronised(accelerator, task.wrapped, part + 1 == parts):
                for network, loss, figures in task.losses(batch, run.step, part):
                    accelerator.backward(loss / parts)
                    losses[network] = loss.detach()
                    finite.append(loss.detach().isfinite())
                    run.figures.add(figures)

        # 2. One step of every network that had a loss, or of none where anything is not finite.
        rate = learning_rate(settings, run.step)
        for network in losses:
            norm = clip_gradients(task.learning[network].parameters(), settings.grad_clip)
            finite.append(norm.isfinite())
            run.figures.add({f"grad_norm_{network}": norm})
        skip = accelerator.reduce(1 - torch.stack(finite).all().float(), reduction="sum").clamp(
            max=1
        )
        for network in losses:
            update(task.optimizers[network], rate, skip)
        run.figures.add(task.after_update(run.step))
        if task.ema:
            task.ema.update(task.objective.parameters(), run.step)
        run.step += 1
        run.watch.note(run.step, skip, names)

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

    run.finish()


def synchronised(accelerator, modules, yes: bool) -> contextlib.ExitStack:
    """Whether processes exchange the gradients of this backward pass: at a batch's last piece."""
    stack = contextlib.ExitStack()
    if not yes:
        for module in modules:
            stack.enter_context(accelerator.no_sync(module))
    return stack


if __name__ == "__main__":
    run_main(main)
