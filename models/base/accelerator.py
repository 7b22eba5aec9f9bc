"""Processes, devices and precision, by accelerate."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, get_int_from_env, parse_flag_from_env

from config.schema import Config
from utils.device import precision
from utils.errors import UserError

PATIENCE = timedelta(hours=2)  # of processes that wait while another encodes, validates or saves
# Where launchers (torchrun, Open MPI, Intel MPI, MVAPICH) say how many processes there are.
WORLD_SIZES = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"]
RANKS = ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"]


def make_accelerator(config: Config) -> Accelerator:
    """accelerate's object for precision, devices and processes.

    Raises UserError where the batch cannot be shared out evenly, or where the environment speaks
    of processes that no launcher started.
    """
    world_size = _world_size()
    micro_batches = config.train.gradient_accumulation_steps
    if config.train.batch_size % (micro_batches * world_size):
        raise UserError(
            f"train.batch_size {config.train.batch_size} must be a multiple of"
            f" {micro_batches * world_size} = {world_size} process(es) x"
            f" train.gradient_accumulation_steps {micro_batches}"
        )
    # Without a GPU, accelerate takes note of a launcher's processes only if told to use the CPU.
    launched = world_size > 1
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    on_cpu = on_cpu or (launched and not torch.cuda.is_available())
    state = PartialState(cpu=on_cpu, **({"timeout": PATIENCE} if launched else {}))
    if state.num_processes != world_size:
        raise _no_launcher(f"accelerate found {state.num_processes}")
    torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32 on a GPU
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=precision(config.train.mixed_precision, state.device),
        kwargs_handlers=[
            # No buffer differs between processes; gradients lie where they are exchanged.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
    )


def _world_size() -> int:
    """The number of processes that a launcher started, 1 without a launcher."""
    try:
        world_size = max(1, get_int_from_env(WORLD_SIZES, 1))
    except ValueError:
        raise _no_launcher("that is no number") from None
    if world_size > 1 and not any(name in os.environ for name in RANKS):
        raise _no_launcher("none of " + ", ".join(RANKS) + " says which one this is")
    return world_size


def _no_launcher(found: str) -> UserError:
    names = [name for name in WORLD_SIZES if name in os.environ]
    return UserError(
        f"the environment has {', '.join(f'{name}={os.environ[name]}' for name in names)}, as a"
        f" launcher of several processes sets it, but {found}. To train with one process, run: env"
        f" {' '.join(f'-u {name}' for name in names)} COMMAND; to train with several, start them"
        " with torchrun or accelerate launch"
    )
