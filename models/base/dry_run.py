"""--dry_run: the loop's first steps for real, a validation batch, what to expect; no files."""

from __future__ import annotations

import dataclasses
import itertools
import time

import torch
from accelerate.utils import set_seed

from config.schema import Config
from models.base.accelerator import make_accelerator, make_task
from models.base.metrics import Figures, open_log
from models.base.watch import Watch
from processors.mel import check_mel_settings
from processors.metadata import dataset_dir
from utils.device import peak_memory, synchronise

STEPS = 3  # of which the first one compiles, loads kernels and asks for memory


class Rehearsal:
    """What the loop takes for a run: every network learns, and nothing is written.

    With `cached`, what is frozen is read from a cache, which is written; else it is computed.
    """

    def __init__(self, config: Config, cached: bool = False) -> None:
        train = config.train
        self.config = dataclasses.replace(
            config, train=dataclasses.replace(train, valid_clips=train.batch_size)
        )
        self.accelerator = make_accelerator(config)
        for dataset in config.dataset:
            check_mel_settings(dataset_dir(config, dataset), config.preprocess.mel)
        set_seed(train.random_seed)
        self.task = make_task(self.config, self.accelerator, None)
        self.task.load_data(cached)
        stage_1 = config.model_type == "AutoencoderKL"
        self.step = config.model.loss.disc_start if stage_1 else 0  # here every network learns
        self.last_step = self.step + STEPS
        self.figures = Figures(self.accelerator)
        self.watch = Watch(open_log(None), self.task.clips_of, float("inf"))
        self.waited = 0.0
        if config.model_type == "AudioLDM" and not cached:  # a run reads them from its cache
            count = STEPS * train.gradient_accumulation_steps
            ready = list(itertools.islice(self.task.batches(self.step), count))
            self.task.batches = lambda _step: iter(ready)
        self.bar = Stopwatch(self.accelerator.device)

    def stop_requested(self) -> bool:
        return False

    def due(self, interval: int) -> bool:
        """Nothing is, in a dry run."""
        return False

    def finish(self) -> None:
        """Validates one batch and prints what was found."""
        figures = self.figures.read()
        self.watch.check(figures, self.last_step, 0.0)
        seconds = min(self.bar.seconds[1:])
        valid = self.task.validate()
        if self.accelerator.is_main_process:
            for name, text in self._findings(figures, valid, seconds):
                print(f"{name:<26}{text}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _findings(self, figures: dict, valid: dict, seconds: float) -> list[tuple[str, str]]:
        engine, train = self.accelerator, self.config.train
        clips = train.batch_size
        return [
            ("model", self.config.model_type),
            *((f"parameters, {name}", f"{count(m):,}") for name, m in self.task.learning.items()),
            ("latent", " x ".join(map(str, self.task.latent_shape)) + " per clip"),
            ("processes", f"{engine.num_processes} on {engine.device.type}"),
            ("precision", {"no": "fp32"}.get(engine.mixed_precision, engine.mixed_precision)),
            ("memory", f"{peak_memory(engine.device) / 2**30:.2f} GiB, each process"),
            ("a step", f"{seconds:.3f} s, {clips} clips, {clips / seconds:.1f} clips/s"),
            ("to the end", f"{train.max_steps} steps, {duration(seconds * train.max_steps)}"),
            ("figures of a step", shown(figures)),
            ("one validation batch", shown(valid) if valid else "valid.json holds no clip"),
            ("written", "nothing"),
        ]


class Stopwatch:
    """Times the steps, each to the end of the device's work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self._since = time.perf_counter()

    def update(self) -> None:
        """One step is done."""
        synchronise(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self._since)
        self._since = now


def count(module: torch.nn.Module) -> int:
    """Parameters that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def duration(seconds: float) -> str:
    """93784 -> "26 h 3 min"; 75 -> "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
