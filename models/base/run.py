"""One training run: its folder, its clock, its figures; all of the loop that is not learning."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import set_seed
from tqdm import tqdm

from config.schema import Config
from models.base.accelerator import make_accelerator, make_task
from models.base.metrics import Board, Figures, open_log
from models.base.watch import PATIENCE, Watch
from models.vocoders.load import load_vocoder
from processors.mel import check_mel_settings
from processors.metadata import dataset_dir
from utils.checkpoint import (
    Checkpoints,
    load_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
    whole_folder,
    write_json,
)
from utils.device import compiles
from utils.errors import UserError
from utils.run_folder import check_same_model, claim, described, run_folder

SHOWN = ("loss", "rec_loss", "d_loss", "latent_std")  # beside the progress bar
STOP_CHECK = 10  # steps after which several processes agree on whether to stop
INSIST_AFTER = 2.0  # seconds; launchers pass a Ctrl-C on, so that it comes twice at once
START = {"step": 0, "best_step": None, "best_loss": None, "watch": None}


class Run:
    """Builds everything, or restores it from the newest checkpoint of <log_dir>/<exp_name>.

    Attributes: step, the updates done so far; last_step, where it ends; task, the model's part;
    figures, what was measured since the last summary; waited, seconds spent waiting for batches
    since then.
    """

    def __init__(self, config: Config, exp_name: str) -> None:
        self.config, self.folder = config, run_folder(config.log_dir, exp_name)
        self.accelerator = make_accelerator(config)
        self.main = self.accelerator.is_main_process
        for dataset in config.dataset:
            check_mel_settings(dataset_dir(config, dataset), config.preprocess.mel)
        if self.main and self.folder.is_dir():  # before the newest checkpoint is looked for
            self.lock = claim(self.folder)
        self.accelerator.wait_for_everyone()
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", config.train.keep_checkpoint_max
        )
        checkpoint, state = self.checkpoints.newest() or (None, START)
        self.step, self.last_step = state["step"], config.train.max_steps
        self.best = (state["best_loss"], state["best_step"])
        self.changes = []
        if checkpoint:
            self.changes = check_same_model(checkpoint, config.to_dict(), config.SHAPES)
        set_seed(config.train.random_seed)
        self.task = make_task(config, self.accelerator, checkpoint)
        self._open(checkpoint)
        self._restore(checkpoint, state["watch"])
        self.task.load_data(cached=True)
        self._start(exp_name)

    def _open(self, checkpoint: Path | None) -> None:
        """Makes the run's folder, its log and its board, or goes on with them."""
        self.board = None
        if self.main:
            stage_2 = self.config.model_type == "AudioLDM"
            name = self.config.inference.vocoder if stage_2 else "griffin_lim"
            self.vocoder = load_vocoder(name, self.config.preprocess.mel)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = getattr(self, "lock", None) or claim(self.folder, patience=0)
            self.checkpoints.clear_unfinished()
            write_json(self.folder / "config.json", described(self.config.to_dict(), self.step))
            self.board = Board(self.folder, self.step)
        self.log = open_log(self.folder if self.main else None)
        if checkpoint and self.main:
            self.log.info("goes on from %s", checkpoint)
            for change in self.changes:
                self.log.info("changed since: %s", change)

    def _restore(self, checkpoint: Path | None, memory: dict | None) -> None:
        unread = None
        if checkpoint:
            for name, optimizer in self.task.optimizers.items():
                restore_optimizer(optimizer, load_tensors(checkpoint / f"adam_{name}.safetensors"))
            unread = load_tensors(checkpoint / "unread_figures.safetensors")
        self.figures = Figures(self.accelerator, unread)
        train = self.config.train
        patience = train.warmup_steps + PATIENCE if train.init_from is None else float("inf")
        self.watch = Watch(self.log, self.task.clips_of, patience, memory)

    def _start(self, exp_name: str) -> None:
        """Says what is about to happen; starts clock and progress bar."""
        if self.main:
            self.log.info(
                "%s: %s, %.1f M parameters, on %s, %s, %d process(es), %s step %d of %d",
                self.folder,
                self.config.model_type,
                sum(p.numel() for p in self.task.objective.parameters()) / 1e6,
                self.accelerator.device,
                self.accelerator.mixed_precision,
                self.accelerator.num_processes,
                "resumes at" if self.step else "from",
                self.step,
                self.last_step,
            )
        self.bar = tqdm(
            total=self.last_step,
            initial=self.step,
            desc=exp_name,
            unit="step",
            disable=not self.main,
            dynamic_ncols=True,
        )
        self.waited, self._since, self._since_step = 0.0, time.perf_counter(), self.step
        self._stop_signal: int | None = None
        self._stop_time = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)

    # ------------------------------------------------------------ the clock

    def due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.last_step

    def _note_signal(self, number: int, _frame) -> None:
        now = time.monotonic()
        if self._stop_signal is None:
            self._stop_signal, self._stop_time = number, now
        elif number == signal.SIGINT and now - self._stop_time > INSIST_AFTER:
            raise KeyboardInterrupt

    def stop_requested(self) -> bool:
        """Whether the run was asked to stop, or gave up; several processes agree now and then."""
        asked = self._stop_signal is not None
        if self.accelerator.num_processes > 1:
            if self.step % STOP_CHECK:
                return self.watch.gave_up
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(flag, reduction="sum").item())
        return asked or self.watch.gave_up

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """What is done within the `with` block is not part of a step's time."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    # ------------------------------------------------------------ what is due

    def summarise(self, rate: float) -> None:
        """Logs the means since the last summary; the one place where the loop reads the device."""
        reading = time.perf_counter()
        means = self.figures.read()
        now = time.perf_counter()
        elapsed = max(1e-9, now - self._since)
        # Where reading has to wait, the device is behind: it did not wait for the loader.
        waiting = max(0.0, self.waited - (now - reading)) / elapsed
        self.watch.check(means, self.step, waiting)
        if self.main:
            seconds = elapsed / max(1, self.step - self._since_step)
            clock = {"learning_rate": rate, "seconds_per_step": seconds, "waiting": waiting}
            self.board.scalars("train", {**means, **clock}, self.step)
            shown = {k: v for k, v in means.items() if k in SHOWN}
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
        self.waited, self._since, self._since_step = 0.0, now, self.step

    @contextlib.contextmanager
    def _for_use(self) -> Iterator[None]:
        """Within the `with` block the weights are those for inference: the average, if there is.

        Nothing is compiled for the shapes that occur there.
        """
        ema, device = self.task.ema, self.accelerator.device
        with contextlib.ExitStack() as stack:
            if ema:
                stack.enter_context(ema.swapped(self.task.objective.parameters()))
            if compiles(self.config.train.compile, device):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    def validate(self) -> None:
        """Measures valid.json and remembers the best checkpoint."""
        with self._aside(), self._for_use():
            figures = self.task.validate()
        if not figures:
            return
        loss, (best_loss, _) = figures["loss"], self.best
        saved_now = self.step > 0 and self.due(self.config.train.save_checkpoints_steps)
        if saved_now and (best_loss is None or loss < best_loss):
            self.best = (loss, self.step)
        if self.main:
            self.board.scalars("valid", figures, self.step)
            listed = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self.log.info("step %d: valid %s", self.step, listed)

    def log_sounds(self) -> None:
        """Pictures and audio for TensorBoard and samples/, by the main process."""
        with self._aside():
            if self.main:
                with self._for_use():
                    named = self.task.samples()
                sounds = [
                    (name, mel, self.vocoder(torch.from_numpy(mel)[None])[0].numpy())
                    for name, mel in named
                ]
                self.board.sounds(sounds, self.config.preprocess.sample_rate, self.step)
            self.accelerator.wait_for_everyone()

    def save_checkpoint(self) -> None:
        """Writes checkpoints/step-N/ by the main process."""
        with self._aside():
            self.watch.read_flags()
            unread = self.figures.unread()
            if self.main:
                self.board.flush()
                best_loss, best_step = self.best
                state = {"best_loss": best_loss, "best_step": best_step, "watch": self.watch.memory}
                self.checkpoints.save(self.step, state, lambda f: self._write_all(f, unread))
            self.accelerator.wait_for_everyone()

    def _write_all(self, folder: Path, unread: dict[str, torch.Tensor]) -> None:
        self._write_for_use(folder)
        self.task.write_training(folder)
        for name, optimizer in self.task.optimizers.items():
            save_tensors(folder / f"adam_{name}.safetensors", optimizer_tensors(optimizer))
        save_tensors(folder / "unread_figures.safetensors", unread)

    def _write_for_use(self, folder: Path) -> None:
        write_json(folder / "config.json", described(self.config.to_dict(), self.step))
        with self._for_use():
            self.task.write(folder)

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Writes final/ after the last step; a run that was stopped says how to go on."""
        self.bar.close()
        done = self.step >= self.last_step
        if done and self.main:
            with whole_folder(self.folder / "final") as folder:
                self._write_for_use(folder)
            self.log.info("step %d: finished, weights in %s", self.step, self.folder / "final")
        if not done:
            newest = self.checkpoints.all()[-1:]
            if not newest or newest[0].name != f"step-{self.step:08d}":
                self.save_checkpoint()
            if self.main:
                self.log.info(
                    "step %d: stopped and saved; to go on, run the same command again", self.step
                )
        if self.board:
            self.board.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if self.watch.gave_up:
            raise UserError(self.watch.advice)
        if not done:
            sys.exit(128 + (self._stop_signal or signal.SIGTERM))
