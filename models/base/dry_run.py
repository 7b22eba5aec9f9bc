"""--dry_run: a few steps for real, a validation micro-batch, what to expect; no files are kept."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

from accelerate.utils import broadcast_object_list, set_seed
from tqdm import tqdm

from config.schema import Config
from models.base.accelerator import make_accelerator
from models.base.clock import Clock
from models.base.log import open_log
from models.base.metrics import Metrics, shown
from models.base.run import TaskMaker, check_mels, count
from models.base.watch import Watch
from utils.device import peak_memory, synchronise
from utils.table import text_table

STEPS = 3  # of which the first one compiles, loads kernels and asks for memory


class DryRun:
    """What the loop takes for a run, where every network learns and nothing is kept.

    Attributes: as of models/base/run.py's Run.
    """

    def __init__(self, config: Config, make_task: TaskMaker) -> None:
        train = config.train
        self.accelerator = make_accelerator(config)
        # Caches, of the few clips that are needed, in a folder that ends with this process.
        self._folder = tempfile.TemporaryDirectory(prefix="arion-dry-run-")
        cache = Path(broadcast_object_list([self._folder.name])[0])
        self.config = dataclasses.replace(
            config,
            train=dataclasses.replace(train, valid_clips=train.batch_size),
            preprocess=dataclasses.replace(config.preprocess, cache_dir=str(cache)),
        )
        check_mels(config)
        set_seed(train.random_seed)
        self.task = make_task(self.config, self.accelerator, None)
        self.task.train_records = self.task.train_records[: STEPS * train.batch_size]
        self.task.valid_records = self.task.valid_records[: train.batch_size]
        self.task.prepare_data(cache)
        self.step = self.task.joint_step
        self.last_step = self.step + STEPS
        self.metrics = Metrics(self.accelerator)
        self.watch = Watch(open_log(None), self.task)
        self.clock = Clock()
        self.bar = self  # which the loop updates after every step
        self._times = [time.perf_counter()]

    def update(self) -> None:
        """Notes when a step is done, to the end of the device's work, in place of a bar."""
        synchronise(self.accelerator.device)
        self._times.append(time.perf_counter())

    def stop_requested(self) -> bool:
        return False

    def due(self, interval: int) -> bool:
        """In a dry run nothing is."""
        return False

    def finish(self) -> None:
        """Validates a few clips and prints what was found."""
        metrics = self.metrics.read()
        self.watch.check(metrics, self.last_step, 0.0)
        valid = self.task.validate()
        if self.accelerator.is_main_process:
            print(text_table(self._findings(metrics, valid), left=(0, 1)))
        self.accelerator.wait_for_everyone()
        self._folder.cleanup()
        self.accelerator.end_training()

    def _findings(self, metrics: dict, valid: dict) -> list[tuple[str, str]]:
        accelerator, train = self.accelerator, self.config.train
        clips = train.batch_size
        seconds = min(end - start for start, end in itertools.pairwise(self._times[1:]))
        to_the_end = tqdm.format_interval(seconds * train.max_steps)
        mixed = accelerator.mixed_precision
        return [
            ("model", self.config.model_type),
            *((f"parameters, {name}", f"{count(m):,}") for name, m in self.task.trainable.items()),
            *self.task.summary.items(),
            ("processes", f"{accelerator.num_processes} on {accelerator.device.type}"),
            ("precision", {"no": "fp32"}.get(mixed, mixed)),
            ("memory", f"{peak_memory(accelerator.device) / 2**30:.2f} GiB, each process"),
            ("a step", f"{seconds:.3f} s, {clips} clips, {clips / seconds:.1f} clips/s"),
            ("to the end", f"{train.max_steps} steps, {to_the_end}"),
            ("metrics of a step", shown(metrics)),
            ("one validation batch", shown(valid) if valid else "valid.json holds no clip"),
            *(("note", note) for note in self.task.notes),
            ("written", "nothing"),
        ]
