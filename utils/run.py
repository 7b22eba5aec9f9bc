"""One training run: its folder, its clock, its figures; all of the loop that is not learning."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from processors.mel import check_mel_settings
from processors.metadata import dataset_dir
from processors.stream import Share
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
from utils.config import Config
from utils.device import precision
from utils.errors import UserError
from utils.tracking import Board, open_log
from utils.typed_json import REPOSITORY
from utils.watch import Watch


class Run:
    """Builds everything, or restores it from the newest checkpoint of <log_dir>/<exp_name>.

    Attributes: step, the updates done so far; task, the model's part; figures, what was measured
    since the last summary; waited, seconds spent waiting for batches since then.
    """

    def __init__(self, config: Config, exp_name: str) -> None:
        if Path(exp_name).name != exp_name or exp_name in ("", ".", ".."):
            raise UserError(f"--exp_name {exp_name!r} must be a plain folder name")
        self.config, self.folder = config, Path(config.log_dir) / exp_name
        self.accelerator = make_accelerator(config)
        self.main = self.accelerator.is_main_process
        for dataset in config.dataset:
            check_mel_settings(dataset_dir(config, dataset), config.preprocess.mel)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", config.train.keep_checkpoint_max
        )
        found = self.checkpoints.newest()
        checkpoint, state = found or (None, {"step": 0, "best_step": None, "best_loss": None})
        self.step, self.best = state["step"], (state["best_loss"], state["best_step"])
        if checkpoint:
            self._check_same_model()
        set_seed(config.train.random_seed)
        self.task = make_task(config, self.accelerator, checkpoint)
        if checkpoint:
            for name, optimizer in self.task.optimizers.items():
                restore_optimizer(optimizer, load_tensors(checkpoint / f"adam_{name}.safetensors"))
        self._open(exp_name)
        self.task.load_data()
        self.figures = Figures(self.accelerator)
        self.watch = Watch(self.log)
        self.waited, self._since, self._since_step = 0.0, time.perf_counter(), self.step
        self._stop_signal: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)

    def _check_same_model(self) -> None:
        """A run goes on with the model and the mel that it began with."""
        path = self.folder / "config.json"
        before, now = read_json(path), self.config.to_dict()
        for section in ("model_type", "model"):
            for key in sorted(different_keys(before.get(section), now[section], section)):
                if key not in ("model.autoencoder_path",):
                    raise UserError(
                        f"{path}: this run was started with another {key}; go on with that one,"
                        " or choose another --exp_name"
                    )

    def _open(self, exp_name: str) -> None:
        """Creates the run's folder, log, board and progress bar."""
        self.vocoder = None
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "config.json").exists():
                write_json(self.folder / "config.json", self._description())
        self.log = open_log(self.folder if self.main else None)
        self.board = Board(self.folder, self.step + 1) if self.main else None
        if self.main:
            parameters = sum(p.numel() for p in self.task.objective.parameters())
            self.log.info(
                "%s: %s, %.1f M parameters, on %s, %s, %d process(es), %s step %d of %d",
                self.folder,
                self.config.model_type,
                parameters / 1e6,
                self.accelerator.device,
                self.accelerator.mixed_precision,
                self.accelerator.num_processes,
                "resumes at" if self.step else "from",
                self.step,
                self.config.train.max_steps,
            )
        self.bar = tqdm(
            total=self.config.train.max_steps,
            initial=self.step,
            desc=exp_name,
            unit="step",
            disable=not self.main,
            dynamic_ncols=True,
        )

    def _description(self) -> dict:
        import accelerate
        import diffusers
        import transformers

        modules = (torch, transformers, diffusers, accelerate)
        versions = {module.__name__: module.__version__ for module in modules}
        return {**self.config.to_dict(), "made_with": {"commit": git_commit(), **versions}}

    # ------------------------------------------------------------ the clock

    def due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.train.max_steps

    def _note_signal(self, number: int, _frame) -> None:
        if self._stop_signal is not None:  # a second Ctrl-C means now
            raise KeyboardInterrupt
        self._stop_signal = number

    def stop_requested(self) -> bool:
        """Whether the run was asked to stop; several processes agree, at summaries only."""
        asked = self._stop_signal is not None
        if self.accelerator.num_processes > 1:
            if self.step % self.config.train.save_summary_steps:
                return False
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(flag, reduction="sum").item())
        return asked or self.watch.gave_up

    # ------------------------------------------------------------ what is due

    def summarise(self, rate: float) -> None:
        """Logs the means since the last summary; the one place where the loop reads the device."""
        means = self.figures.read()
        now = time.perf_counter()
        seconds = (now - self._since) / max(1, self.step - self._since_step)
        waiting = self.waited / max(1e-9, now - self._since)
        self.watch.check(means, self.step, waiting)
        if self.main:
            clock = {"learning_rate": rate, "seconds_per_step": seconds, "waiting": waiting}
            self.board.scalars("train", {**means, **clock}, self.step)
            shown = {k: v for k, v in means.items() if k in SHOWN}
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
        self.waited, self._since, self._since_step = 0.0, time.perf_counter(), self.step

    def _for_use(self):
        """Within the `with` block the weights are those for inference: the average, if there is."""
        ema = self.task.ema
        return ema.swapped(self.task.objective.parameters()) if ema else nullcontext()

    def validate(self) -> None:
        """Measures valid.json and remembers the best checkpoint."""
        with self._for_use():
            self.valid = self.task.validate()
        if not self.valid:
            return
        loss, (best_loss, _) = self.valid["loss"], self.best
        saved_now = self.due(self.config.train.save_checkpoints_steps)
        if saved_now and (best_loss is None or loss < best_loss):
            self.best = (loss, self.step)
        if self.main:
            self.board.scalars("valid", self.valid, self.step)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in self.valid.items())
            self.log.info("step %d: valid %s", self.step, figures)
        self._restart_clock()

    def log_sounds(self) -> None:
        """Pictures and audio for TensorBoard and samples/, by the main process."""
        if self.main:
            from models.vocoder import load_vocoder

            inference = self.config.inference
            if self.vocoder is None:
                name = inference.vocoder if inference else "griffin_lim"
                self.vocoder = load_vocoder(name, self.config.preprocess.mel)
            with self._for_use():
                named = self.task.samples()
            sounds = [
                (name, mel, self.vocoder(torch.from_numpy(mel)[None])[0].numpy())
                for name, mel in named
            ]
            self.board.sounds(sounds, self.config.preprocess.sample_rate, self.step)
        self.accelerator.wait_for_everyone()
        self._restart_clock()

    def save_checkpoint(self) -> Path | None:
        """Writes checkpoints/step-N/ by the main process."""
        path = None
        if self.main:
            best_loss, best_step = self.best
            state = {"best_loss": best_loss, "best_step": best_step}
            path = self.checkpoints.save(self.step, state, self._write_all)
        self.accelerator.wait_for_everyone()
        self._restart_clock()
        return path

    def _write_all(self, folder: Path) -> None:
        self._write_for_use(folder)
        self.task.write_training(folder)
        for name, optimizer in self.task.optimizers.items():
            save_tensors(folder / f"adam_{name}.safetensors", optimizer_tensors(optimizer))

    def _write_for_use(self, folder: Path) -> None:
        write_json(folder / "config.json", self._description())
        with self._for_use():
            self.task.write(folder)

    def _restart_clock(self) -> None:
        """What was just done is not part of a step's time."""
        if self.step % self.config.train.save_summary_steps == 0:
            self.waited, self._since, self._since_step = 0.0, time.perf_counter(), self.step

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Writes final/ after the last step; a run that was stopped says how to go on."""
        self.bar.close()
        done = self.step >= self.config.train.max_steps
        if done and self.main:
            with whole_folder(self.folder / "final") as folder:
                self._write_for_use(folder)
            self.log.info("step %d: finished, weights in %s", self.step, self.folder / "final")
        if not done:
            saved = self.checkpoints.newest()
            if saved is None or saved[1]["step"] != self.step:
                self.save_checkpoint()
            self.log.info("step %d: stopped and saved; the same command goes on", self.step)
        if self.board:
            self.board.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if self.watch.gave_up:
            raise UserError(self.watch.advice)


class Figures:
    """Tensors measured at every step, read together at a summary: nothing waits before."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._values: dict[str, list[torch.Tensor]] = {}

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def read(self) -> dict[str, float]:
        """Means over steps and processes since the last call, left out where nothing is finite."""
        if not self._values:
            return {}
        means = torch.stack([torch.stack(v).float().nanmean() for v in self._values.values()])
        means = self.accelerator.reduce(means, reduction="mean").tolist()
        names = list(self._values)
        self._values = {}
        return dict(zip(names, means, strict=True))


SHOWN = ("loss", "rec_loss", "d_loss", "latent_std")  # beside the progress bar


def make_accelerator(config: Config) -> Accelerator:
    """The engine for precision, devices and processes."""
    probe = Accelerator()
    share = config.train.gradient_accumulation_steps * probe.num_processes
    if config.train.batch_size % share:
        raise UserError(
            f"train.batch_size {config.train.batch_size} must be a multiple of"
            f" {share} = {probe.num_processes} process(es) x train.gradient_accumulation_steps"
            f" {config.train.gradient_accumulation_steps}"
        )
    torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32 on a GPU
    chosen = precision(config.train.mixed_precision, probe.device)
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=chosen)


def make_task(config: Config, accelerator: Accelerator, checkpoint: Path | None):
    """The model's part of the loop."""
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


def different_keys(before: object, now: object, path: str) -> set[str]:
    """Dotted paths of the keys whose values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return set().union(
            *(different_keys(before.get(k), now.get(k), f"{path}.{k}") for k in keys)
        )
    return set() if before == now else {path}


def git_commit() -> str | None:
    """The repository's commit, "+" where files differ from it; None outside git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
