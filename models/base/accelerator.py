"""Processes, devices and precision, by accelerate; the model's part of the loop on them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, get_int_from_env

from config.schema import Config
from processors.stream import Share
from utils.device import precision
from utils.errors import UserError

PATIENCE = timedelta(hours=2)  # of processes that wait while another encodes, validates or saves
# Where launchers (torchrun, Open MPI, Intel MPI, MVAPICH) say how many processes there are.
PROCESS_COUNTS = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"]


def make_accelerator(config: Config) -> Accelerator:
    """The engine for precision, devices and processes.

    Raises UserError where the batch cannot be shared out evenly.
    """
    processes = get_int_from_env(PROCESS_COUNTS, 1)
    parts = config.train.gradient_accumulation_steps
    if config.train.batch_size % (parts * processes):  # each process finds that before they connect
        raise UserError(
            f"train.batch_size {config.train.batch_size} must be a multiple of"
            f" {parts * processes} = {processes} process(es) x"
            f" train.gradient_accumulation_steps {parts}"
        )
    # Without a GPU, accelerate takes note of a launcher's processes only if told to use the CPU.
    launched = processes > 1
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on")
    on_cpu = on_cpu or (launched and not torch.cuda.is_available())
    state = PartialState(cpu=on_cpu, **({"timeout": PATIENCE} if launched else {}))
    if state.num_processes != processes:
        raise UserError(
            f"the launcher started {processes} processes and accelerate found {state.num_processes}"
            " of them; start them with torchrun or accelerate launch"
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
