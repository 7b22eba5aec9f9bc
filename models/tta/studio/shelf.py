"""The models that are there, one of them in memory, and sounds made by it."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from config.typed_json import build
from models.tta.editing.instructions import check_task, task_of
from models.tta.editing.pipeline import MODEL_TYPE as EDITOR
from models.tta.editing.pipeline import Editor, EditorSettings, EditSettings
from models.tta.editing.source import SoundToEdit
from models.tta.ldm.pipeline import MODEL_TYPE as MODEL
from models.tta.ldm.pipeline import Pipeline, PipelineSettings, load_pipeline
from models.tta.ldm.sampling import SamplingSettings, Sound, generate
from models.tta.ldm.source import Source
from models.vocoders.load import GRIFFIN_LIM, load_vocoder
from models.vocoders.saved import VocoderSettings
from utils.checkpoint import file_hash
from utils.errors import UserError
from utils.run_folder import WEIGHTS, all_weights, find_weights, weights_folder

if TYPE_CHECKING:
    from models.vocoders.load import Vocoder


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    seconds: float = 30.0
    sounds: int = 8
    steps: int = 200
    text: int = 1000  # characters
    upload_mb: int = 20


@dataclass(frozen=True)
class Wish:
    """A sound that is to be made."""

    text: str
    folder: str  # of weights
    vocoder: str  # as `load_vocoder` knows it
    sampling: SamplingSettings

    @classmethod
    def of_receipt(cls, receipt: dict[str, Any]) -> Wish:
        """That which the sound of this receipt fulfilled."""
        kind = EditSettings if "source_guidance" in receipt else SamplingSettings
        names = [field.name for field in dataclasses.fields(kind)]
        given = {name: receipt[name] for name in names if name in receipt}
        sampling = build(kind, given, "the receipt")
        try:
            return cls(receipt["text"], receipt["checkpoint"], receipt["vocoder"], sampling)
        except KeyError as error:
            raise UserError(f"the receipt does not say its {error}") from None


class Shelf:
    """Models in `log_dirs` and those named besides. The one that was used last is in memory."""

    def __init__(
        self, log_dirs: Sequence[str], named: Sequence[str], device: torch.device, limits: Limits
    ) -> None:
        """`named` are runs, folders of weights or hub models. UserError where one is none."""
        self.log_dirs, self.device, self.limits = list(log_dirs), device, limits
        self.named = {name: _find(name) for name in named}
        self._loaded: tuple[str, int] | None = None  # folder, and when its weights were written
        self._pipeline: Pipeline | None = None
        self._weights = ""  # the beginning of their hash
        self._vocoders: dict[str, Vocoder] = {}  # one at most

    # ------------------------------------------------------------ what is there

    def models(self, kind: str = MODEL) -> dict[str, Path]:
        """Weights by the name of their run; those that were named come first, then the newest."""
        runs = [run for log_dir in self.log_dirs for run in Path(log_dir).expanduser().glob("*/")]
        found = {str(run): weights_folder(run, kind) for run in runs}
        there = {run: folder for run, folder in found.items() if folder}
        newest = sorted(there, key=lambda run: there[run].stat().st_mtime, reverse=True)
        named = {name: folder for name, folder in self.named.items() if kind_of(folder) == kind}
        return {**named, **{run: there[run] for run in newest}}

    def folder(self, model: object, kind: str) -> Path:
        """The weights of a model on the list: nothing else is opened, whatever a client sends."""
        models = self.models(kind)
        if model not in list(models):  # it may be anything, and not hashable
            raise UserError(f"model {model!r} is not there; choose one from the list")
        return models[model]

    def settings(self, model: object, kind: str = MODEL) -> PipelineSettings:
        return settings_type(kind).read(self.folder(model, kind))

    def vocoders(self, model: object, kind: str = MODEL) -> list[str]:
        """Those that fit the model's mel: its own, else the newest, first."""
        folder, settings = self.folder(model, kind), self.settings(model, kind)
        found = [place for log_dir in self.log_dirs for place in all_weights(log_dir, "Vocoder")]
        found.sort(key=lambda place: place.stat().st_mtime, reverse=True)
        fitting = [str(place) for place in found if VocoderSettings.read(place).mel == settings.mel]
        own = settings.vocoder_of(folder)
        first = [own] if own != GRIFFIN_LIM else []
        return list(dict.fromkeys([*first, *fitting, GRIFFIN_LIM]))

    # ------------------------------------------------------------ wishes

    def wishes(
        self, text: object, model: object, vocoder: object, count: object, **sampling: object
    ) -> list[Wish]:
        """A wish for each sound, the seeds one after the other.

        `vocoder` and the values of `sampling` may be None: the model's own.

        Raises:
            UserError: a value is missing, of another type, out of its range or beyond a limit.
        """
        most, negative = self.limits.sounds, sampling.get("negative_text")
        if negative is not None:
            sampling["negative_text"] = self._checked_text(negative, "negative text")
        if not isinstance(count, int) or not 1 <= count <= most:
            raise UserError(f"number of sounds: {count} must be a whole number, 1 to {most}")
        settings = self.settings(model).sampling_with(**sampling)
        first = self._wish(text, model, MODEL, vocoder, settings)
        seeds = range(settings.seed, settings.seed + count)
        return [replace(first, sampling=replace(settings, seed=seed)) for seed in seeds]

    def instruction(
        self, text: object, model: object, vocoder: object, audio: str, **sampling: object
    ) -> Wish:
        """What an editor is to do with the sound in the file `audio`. Raises UserError."""
        folder, editor = self.folder(model, EDITOR), self.settings(model, EDITOR)
        task = task_of(self._checked_text(text, "text"))
        check_task(task, editor.tasks, folder)
        source = SoundToEdit.read_for(audio, editor.mel)
        settings = source.settings_for(editor, audio, task, **sampling)
        return self._wish(text, model, EDITOR, vocoder, settings)

    def _wish(
        self, text: object, model: object, kind: str, vocoder: object, settings: SamplingSettings
    ) -> Wish:
        text, limits = self._checked_text(text, "text"), self.limits
        if not text:
            raise UserError("there is no text; say what to hear")
        if settings.duration > limits.seconds:
            raise UserError(f"duration: {settings.duration:g} s; at most {limits.seconds:g} s here")
        if settings.num_steps > limits.steps:
            raise UserError(f"num_steps: {settings.num_steps}; at most {limits.steps} here")
        vocoders = self.vocoders(model, kind)
        if vocoder is not None and vocoder not in vocoders:
            raise UserError(f"vocoder {vocoder!r} is not there, or made for another mel")
        return Wish(text, str(self.folder(model, kind)), vocoder or vocoders[0], settings)

    def _checked_text(self, text: object, name: str) -> str:
        """The text in one line. Raises UserError where it is none, or too long."""
        if not isinstance(text, str):
            raise UserError(f"{name}: must be text, not {type(text).__name__}")
        if text.encode("utf-8", "replace").decode() != text:
            raise UserError(f"{name}: must be text in UTF-8")
        if len(text) > self.limits.text:
            raise UserError(f"{name}: {len(text)} characters; at most {self.limits.text} here")
        return " ".join(text.split())

    # ------------------------------------------------------------ making sounds

    def make(
        self, wish: Wish, on_step: Callable[[int, int], None], weights: str | None = None
    ) -> tuple[Sound, dict[str, Any]]:
        """The sound, and what its receipt says of what made it.

        It is alone in its batch, so that its bits depend on nothing else. Raises UserError where
        `weights` are wanted, the beginning of a hash, and others are in the folder now.
        """
        pipeline = self._load(wish.folder)
        if weights not in (None, self._weights):
            raise UserError(f"{wish.folder}: the weights have changed since")
        mel = pipeline.settings.mel
        if wish.vocoder not in self._vocoders:
            self._vocoders.clear()
            self._vocoders[wish.vocoder] = load_vocoder(wish.vocoder, mel).to(self.device)
        vocoder = self._vocoders[wish.vocoder]
        audio = wish.sampling.audio
        source = None
        if audio and isinstance(wish.sampling, EditSettings):
            source = SoundToEdit.read_for(audio, mel)
        elif audio:
            source = Source.read(audio, mel.sample_rate)
        [sound] = generate(
            pipeline, vocoder, [wish.text], wish.sampling, source=source, on_step=on_step
        )
        faults = pipeline.text_encoder.faults_of([wish.text])
        return sound, {
            **({"warning": "; ".join(faults)} if faults else {}),
            "vocoder": wish.vocoder,
            "checkpoint": wish.folder,
            "weights": self._weights,
            "device": str(self.device),
            "mel": dataclasses.asdict(mel),
        }

    def _load(self, folder: str) -> Pipeline:
        kind = kind_of(Path(folder))
        weights = Path(folder) / WEIGHTS[kind]
        if not weights.is_file():
            raise UserError(f"{folder}: the model is no longer there")
        wanted = (folder, weights.stat().st_mtime_ns)
        if wanted != self._loaded:
            self._loaded = self._pipeline = None  # gone before the next comes in
            self._vocoders.clear()
            gc.collect()
            network = Editor if kind == EDITOR else Pipeline
            self._pipeline = load_pipeline(Path(folder), self.device, network)
            self._weights = file_hash(weights)[:12]
            self._loaded = wanted
        return self._pipeline


def kind_of(folder: Path) -> str:
    return EDITOR if (folder / WEIGHTS[EDITOR]).is_file() else MODEL


def settings_type(kind: str) -> type[PipelineSettings]:
    return EditorSettings if kind == EDITOR else PipelineSettings


def _find(name: str) -> Path:
    """The weights that a user named. Raises UserError where there are none, of either kind."""
    try:
        return find_weights(name, "", EDITOR)
    except UserError:
        return find_weights(name, "", MODEL)
