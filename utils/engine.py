"""Processes, devices and precision, by accelerate; the model's part of the loop on them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs

from processors.stream import Share
from utils.config import Config
from utils.device import precision
from utils.errors import UserError

PATIENCE = timedelta(hours=2)  # of processes that wait while another encodes, validates or saves


def make_accelerator(config: Config) -> Accelerator:
    """The engine for precision, devices and processes.

    Raises UserError where the batch cannot be shared out evenly.
    """
    # Without a GPU, accelerate takes note of a launcher's processes only if told to use the CPU.
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on")
    on_cpu = on_cpu or (launched and not torch.cuda.is_available())
    state = PartialState(cpu=on_cpu, **({"timeout": PATIENCE} if launched else {}))
    parts = config.train.gradient_accumulation_steps
    if config.train.batch_size % (parts * state.num_processes):
        raise UserError(
            f"train.batch_size {config.train.batch_size} must be a multiple of"
            f" {parts * state.num_processes} = {state.num_processes} process(es) x"
            f" train.gradient_accumulation_steps {parts}"
        )
    torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32 on a GPU
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=precision(config.train.mixed_precision, state.device),
        kwargs_handlers=[
            # No buffer differs between processes; gradients lie where they are exchanged.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
    )


def make_task(config: Config, accelerator: Accelerator, checkpoint: Path | None):
    """The model's part of the loop, from `checkpoint` or (None) anew."""
    share = Share(
        config.train.batch_size,
        config.train.gradient_accumulation_steps,
        accelerator.process_index,
        accelerator.num_processes,
    )
    if config.model_type == "AutoencoderKL":
        from models.tta.autoencoder.training import AutoencoderTraining

        return AutoencoderTraining(config, accelerator, share, checkpoint)
    from models.tta.ldm.training import AudioLDMTraining

    return AudioLDMTraining(config, accelerator, share, checkpoint)
