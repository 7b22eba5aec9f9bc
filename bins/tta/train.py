"""Trains the model that the config is of; the same command again resumes.

sh egs/tta/{autoencoderkl,audioldm,audit,vocoder}/run_train.sh, egs/tta/audioldm/run_distil.sh
"""

from __future__ import annotations

import contextlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import add_config_arguments, new_parser, parse_arguments, run_main

if TYPE_CHECKING:  # imports of seconds, which --help does without
    from accelerate import Accelerator
    from torch import nn

    from config.schema import Config
    from models.base.dry_run import DryRun
    from models.base.run import Listener, Run
    from models.base.task import Task

# What each kind of training brings to the loop (models/base/task.py), imported when it is needed.
TASKS = {
    "AutoencoderKL": "models.tta.autoencoder.training:AutoencoderTraining",
    "AudioLDM": "models.tta.ldm.training:AudioLDMTraining",
    "AUDIT": "models.tta.editing.training:AUDITTraining",
    "Vocoder": "models.vocoders.training:VocoderTraining",
    "AudioLDM flow map": "models.tta.ldm.distil:Distillation",
    "AUDIT flow map": "models.tta.editing.distil:EditorDistillation",
}
ADAPTER_TASKS = {  # and those where train.lora asks for adapters
    "AudioLDM": "models.tta.lora_training:AudioLDMLoRATraining",
    "AUDIT": "models.tta.lora_training:AUDITLoRATraining",
}


def main() -> None:
    parser = new_parser(__doc__)
    add_config_arguments(parser, "egs/tta/audioldm/exp_config.json")
    parser.add_argument("--exp_name", help="folder in log_dir; default: the config's name")
    parser.add_argument(
        "--dry_run", action="store_true", help="try a few steps, say what to expect, write nothing"
    )
    arguments = parse_arguments(parser)

    from config.load import find_config, load_config
    from utils.errors import UserError
    from utils.run_folder import finished_at, run_folder

    config = load_config(arguments.config, arguments.overrides)
    if config.task not in TASKS:
        raise UserError(f"{arguments.config}: model_type {config.model_type} is nothing to train")
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
    from models.base.dry_run import DryRun
    from models.base.run import Run

    if dry_run:
        run = DryRun(config, make_task)
    else:
        run = Run(config, exp_name, make_task, make_listener(config))
    if run.step == 0 and run.task.begun_from and not dry_run:
        run.validate()  # what the weights are worth before they learn
    loop(run)
    run.finish()


def make_task(config: Config, accelerator: Accelerator, checkpoint: Path | None) -> Task:
    """The model of `config`, from `checkpoint` or (None) anew."""
    from processors.stream import Share

    train, rank, world_size = config.train, accelerator.process_index, accelerator.num_processes
    share = Share(train.batch_size, train.gradient_accumulation_steps, rank, world_size)
    tasks = TASKS if train.lora is None else ADAPTER_TASKS
    return pkgutil.resolve_name(tasks[config.task])(config, accelerator, share, checkpoint)


def make_listener(config: Config) -> Listener | None:
    """What hears the sounds that are logged, where train.evaluation names its weights."""
    if config.train.evaluation is None:
        return None
    from models.tta.evaluation.listening import Tagger
    from utils.device import best_device

    rate = config.preprocess.sample_rate
    return Tagger(config.train.evaluation, rate, best_device(None)).scores


def loop(run: Run | DryRun) -> None:
    """Trains from `run.step` up to its last step.

    models/base/task.py describes what a model is here, models/base/run.py the rest.
    """
    import torch

    from modules.optimizer import gradient_norm, learning_rate, optimizer_step

    settings, task, accelerator = run.config.train, run.task, run.accelerator
    micro_batches = settings.gradient_accumulation_steps
    batches = task.batches(run.step)

    while run.step < run.last_step and not run.stop_requested():
        # 1. Gradients: one micro-batch after the other, backward directly after each loss.
        networks, finite, means = {}, [], {}
        for micro in range(micro_batches):
            with run.clock.waiting():
                batch = next(batches)
            with synchronised(accelerator, task.wrapped, micro + 1 == micro_batches):
                for loss in task.losses(batch, run.step, micro):
                    accelerator.backward(loss.value / micro_batches)
                    networks[loss.network] = task.trainable[loss.network]
                    finite.append(loss.value.detach().isfinite())
                    run.metrics.add(loss.metrics)
                    for name, value in loss.means.items():
                        means.setdefault(name, []).append(value)

        # 2. One step of every network that had a loss, or of none where anything is not finite.
        rate = learning_rate(settings, run.step)
        norms = {name: gradient_norm(net.parameters()) for name, net in networks.items()}
        finite += [norm.isfinite() for norm in norms.values()]
        run.metrics.add({f"grad_norm_{name}": norm for name, norm in norms.items()})
        wrong = 1 - torch.stack(finite).all().float()
        skip = accelerator.reduce(wrong, reduction="sum").clamp(max=1)
        for name, norm in norms.items():
            optimizer_step(task.optimizers[name], rate, norm, settings.grad_clip, skip)
        means = {name: torch.stack(values).mean(0) for name, values in means.items()}
        means = accelerator.reduce(means, reduction="mean")
        run.metrics.add(task.after_step(run.step, means))
        if task.ema:
            task.ema.update(run.step)
        run.watch.note(run.step, skip)
        run.step += 1

        # 3. What is due now. The checkpoint is saved before anything that may fail.
        run.bar.update()
        saves = run.due(settings.save_checkpoints_steps)
        if saves or run.due(settings.save_summary_steps):
            run.summarise()
        if saves:
            run.save_checkpoint()
        if saves or run.due(settings.valid_interval):
            run.validate()
        if run.due(settings.sample_interval):
            run.log_sounds()


def synchronised(
    accelerator: Accelerator, modules: Sequence[nn.Module], yes: bool
) -> contextlib.ExitStack:
    """Whether processes exchange this backward pass's gradients: at a step's last micro-batch."""
    stack = contextlib.ExitStack()
    if not yes:
        for module in modules:
            stack.enter_context(accelerator.no_sync(module))
    return stack


if __name__ == "__main__":
    run_main(main)
