"""One training run: its folder, its checkpoints, what is due between steps."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from config.schema import Config
from models.base.accelerator import make_accelerator
from models.base.clock import Clock
from models.base.log import open_log
from models.base.metrics import Metrics, shown
from models.base.stop import StopRequest
from models.base.task import Sample, Task
from models.base.tensorboard import TensorBoard
from models.base.watch import Watch
from modules.optimizer import learning_rate
from processors.json_lines import digest_of
from processors.kept_records import cache_dir
from processors.mel import check_mel_settings
from processors.metadata import dataset_dir
from utils.checkpoint import (
    Checkpoints,
    load_tensors,
    optimizer_tensors,
    read_json,
    restore_optimizer,
    save_tensors,
    whole_folder,
    write_json,
)
from utils.device import compiles
from utils.errors import UserError
from utils.files import hold
from utils.progress import progress
from utils.run_folder import check_same_model, described, run_folder
from utils.threads import ThreadWatch

PATIENCE = 30.0  # seconds that another training in the folder may take to save and stop
START = {"step": 0, "best_step": None, "best_loss": None}
Listener = Callable[[Sequence[Sample]], dict[str, float]]
TaskMaker = Callable[[Config, Accelerator, Path | None], Task]


class Run:
    """Builds everything, or restores it from the newest checkpoint of <log_dir>/<exp_name>.

    Attributes that the loop uses: config, accelerator, task, metrics, watch, clock, bar; step, the
    number of steps done so far; last_step, where it ends.
    """

    def __init__(
        self, config: Config, exp_name: str, make_task: TaskMaker, listen: Listener | None = None
    ) -> None:
        """`listen` gives figures of the sounds that are logged, by their names in TensorBoard."""
        self.listen = listen
        self.config, self.folder = config, run_folder(config.log_dir, exp_name)
        self.accelerator = make_accelerator(config)
        self.main = self.accelerator.is_main_process
        check_mels(config)
        self.lock = None
        if self.main and self.folder.is_dir():  # before the newest checkpoint is looked for
            self.lock = hold(self.folder, "training", PATIENCE)
        try:
            self._begin(exp_name, make_task)
        except BaseException:
            if self.lock is not None:  # not when the collector comes to it
                self.lock.release()
            raise

    def _begin(self, exp_name: str, make_task: TaskMaker) -> None:
        """Takes up the newest checkpoint, makes the task, opens the folder's files."""
        config = self.config
        self.accelerator.wait_for_everyone()
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", config.train.keep_checkpoint_max
        )
        checkpoint, state = self.checkpoints.newest() or (None, START)
        changes = []
        if checkpoint:
            changes = check_same_model(checkpoint, config.to_dict(), config.SHAPES)
        self.step, self.last_step = state["step"], config.train.max_steps
        self.best = (state["best_loss"], state["best_step"])
        if self.best[0] is not None and not math.isfinite(self.best[0]):
            self.best = (None, None)  # of a run of before: nothing would ever be less
        set_seed(config.train.random_seed)
        self.task = make_task(config, self.accelerator, checkpoint)
        if checkpoint:
            for name, optimizer in self.task.optimizers.items():
                moments = checkpoint / f"adam_{name}.safetensors"
                restore_optimizer(optimizer, load_tensors(moments), moments)
        self.records = self._records()
        if checkpoint:
            changes += self._changed_records(checkpoint)
        self._open_folder()
        if checkpoint:
            self.log.info("goes on from %s", checkpoint)
        for change in changes:
            self.log.info("changed since: %s", change)
        for note in self.task.notes:
            self.log.info(note)
        self.task.prepare_data(cache_dir(config))
        self._start(exp_name)

    def _open_folder(self) -> None:
        """Makes the run's folder and opens its files, by the main process alone."""
        if self.main:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{self.folder}: cannot be made ({error.strerror}); choose another log_dir"
                ) from None
            if self.lock is None:
                self.lock = hold(self.folder, "training", patience=0)
            self.checkpoints.clear_unfinished()
            write_json(self.folder / "config.json", self._described())
            self.log = open_log(self.folder)
            self._inode = self.folder.stat().st_ino
        else:
            self.log = open_log(None, logging.WARNING)
        self.tensorboard = TensorBoard(self.folder if self.main else None, self.step, self.log)

    def _start(self, exp_name: str) -> None:
        """Says what is about to happen; starts what watches the run, and the clock."""
        accelerator, begins = self.accelerator, "resumes at" if self.step else "from"
        precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
        size = sum(count(network) for network in self.task.trainable.values()) / 1e6
        self.log.info(
            f"{self.folder}: {self.config.model_type}, {size:.1f} M parameters, on"
            f" {accelerator.device}, {precision}, {accelerator.num_processes}"
            f" process(es), {begins} step {self.step} of {self.last_step}"
        )
        self.metrics = Metrics(self.accelerator)
        self.watch = Watch(self.log, self.task)
        self.threads = ThreadWatch(self.log, self.accelerator.device)
        self.bar = progress(
            total=self.last_step,
            initial=self.step,
            title=exp_name,
            unit="step",
            disable=not self.main,
        )
        self.clock = Clock()
        self.clock.start(self.step)
        self.stop = StopRequest()

    # ------------------------------------------------------------ between steps

    def due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.last_step

    def stop_requested(self) -> bool:
        """Whether the run was asked to stop, or gave up."""
        return self.watch.gave_up or self.stop.agreed(self.accelerator, self.step)

    def summarise(self) -> None:
        """Logs the means since the last summary; the one place where the loop reads the device."""
        self._keep_folder()
        began = time.perf_counter()
        means = self.metrics.read()
        seconds, waiting = self.clock.read(self.step, time.perf_counter() - began)
        self.watch.check(means, self.step, waiting)
        rate = learning_rate(self.config.train, self.step - 1)
        clock = {"learning_rate": rate, "seconds_per_step": seconds, "waiting": waiting}
        self.tensorboard.scalars("train", {**means, **clock}, self.step)
        beside = {name: f"{means[name]:.4g}" for name in self.task.shown if name in means}
        self.bar.set_postfix(beside, refresh=False)
        self.threads.check(seconds)

    def validate(self) -> None:
        """Measures valid.json, and remembers the checkpoint of this step if it is the best."""
        with self.clock.paused(), self._inference_weights():
            metrics = self.task.validate()
        if not metrics:
            return
        self.tensorboard.scalars("valid", metrics, self.step)
        self.log.info("step %d: valid %s", self.step, shown(metrics))
        loss, (best_loss, _) = metrics["loss"], self.best
        finite = self.watch.check_validation(loss, self.step)
        saved_now = finite and self.step > 0 and self.due(self.config.train.save_checkpoints_steps)
        if saved_now and (best_loss is None or loss < best_loss):
            self.best = (loss, self.step)
            if self.main:
                self.checkpoints.keep_best(self.step, loss)

    def log_sounds(self) -> None:
        """Pictures and audio for TensorBoard and samples/; a failure is one line in the log."""
        with self.clock.paused():
            if self.main:
                try:
                    with self._inference_weights():
                        samples = self.task.samples()
                    rate = self.config.preprocess.sample_rate
                    self.tensorboard.sounds(samples, rate, self.step)
                    if self.listen is not None:
                        scores = self.listen(samples)
                        self.tensorboard.scalars("sounds", scores, self.step)
                        self.log.info("step %d: sounds %s", self.step, shown(scores))
                except Exception as error:  # whatever it is, the weights are well
                    self.log.warning(
                        "step %d: no sounds: %s: %s", self.step, type(error).__name__, error
                    )
            self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _inference_weights(self) -> Iterator[None]:
        """Within the `with` block the weights are those for inference: the average, if there is.

        Nothing is compiled for the shapes that occur there.
        """
        with contextlib.ExitStack() as stack:
            if self.task.ema:
                stack.enter_context(self.task.ema.swapped())
            if compiles(self.config.train.compile, self.accelerator.device):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    # ------------------------------------------------------------ files

    def save_checkpoint(self) -> None:
        """Writes checkpoints/step-N/ by the main process."""
        with self.clock.paused():
            self.watch.read_flags()
            if self.main:
                best_loss, best_step = self.best
                state = {"best_loss": best_loss, "best_step": best_step}
                self.checkpoints.save(self.step, state, self._write_checkpoint)
            self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, folder: Path) -> None:
        self._write_for_inference(folder)
        self.task.save_training(folder)
        for name, optimizer in self.task.optimizers.items():
            save_tensors(folder / f"adam_{name}.safetensors", optimizer_tensors(optimizer))

    def _write_for_inference(self, folder: Path) -> None:
        write_json(folder / "config.json", self._described())
        with self._inference_weights():
            self.task.save_for_inference(folder)

    def _described(self) -> dict:
        return described(
            self.config.to_dict(), step=self.step, records=self.records, **self.task.made_from
        )

    def _records(self) -> dict[str, str]:
        """The number of records of each split, with a hash of them."""
        splits = {"train": self.task.train_records, "valid": self.task.valid_records}
        return {name: f"{len(all_of)} ({digest_of(all_of)})" for name, all_of in splits.items()}

    def _changed_records(self, checkpoint: Path) -> list[str]:
        """What differs from those that the run learnt from before, as "key: old -> new"."""
        before = read_json(checkpoint / "config.json")["made_with"].get("records", {})
        return [
            f"records in {split}: {before[split]} -> {now}"
            for split, now in self.records.items()
            if before.get(split, now) != now  # a run of before says nothing of them
        ]

    def _keep_folder(self) -> None:
        """Makes the run's folder anew where it was renamed or removed while training."""
        if not self.main:
            return
        if not self.folder.exists() or self.folder.stat().st_ino != self._inode:
            self.log.warning(
                f"step {self.step}: {self.folder} was renamed or removed; the run goes on in a new"
                " folder there, from which the same command resumes"
            )
            self.tensorboard.close()
            self.lock = None
            self._open_folder()

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Writes final/ after the last step; a run that was stopped says how to go on."""
        self.bar.close()
        done = self.step >= self.last_step
        if done and self.watch.check_weights(self.step) and not self.watch.gave_up and self.main:
            with whole_folder(self.folder / "final") as folder:
                self._write_for_inference(folder)
            self.log.info("step %d: finished, weights in %s", self.step, self.folder / "final")
        if not done:
            newest = self.checkpoints.all()[-1:]
            if not newest or newest[0].name != f"step-{self.step:08d}":
                if self.clock.since_step < self.step:
                    self.summarise()
                self.save_checkpoint()
            if not self.watch.gave_up:  # else the same command would end as this one
                again = "step %d: stopped and saved; to go on, run the same command again"
                self.log.info(again, self.step)
        self.tensorboard.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if self.watch.gave_up:
            raise UserError(self.watch.advice)
        if not done:
            sys.exit(128 + (self.stop.signal or signal.SIGTERM))


def check_mels(config: Config) -> None:
    """Raises UserError unless the mels of all data sets are those of the config."""
    for dataset in config.dataset:
        check_mel_settings(dataset_dir(config, dataset), config.preprocess.mel)


def count(module: torch.nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
