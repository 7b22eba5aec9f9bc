"""The models that are there, one of them in memory, and sounds made by it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.tta.convert.published import find_model
from models.tta.editing.instructions import check_task, task_of, way_of
from models.tta.editing.pipeline import MODEL_TYPE as EDITOR
from models.tta.editing.pipeline import Editor, EditorSettings, EditSettings
from models.tta.editing.source import SoundToEdit
from models.tta.ldm.lora import MODEL_TYPE as ADAPTERS
from models.tta.ldm.lora import Adapter, AdapterSettings, hash_of
from models.tta.ldm.pipeline import MODEL_TYPE as MODEL
from models.tta.ldm.pipeline import Pipeline, PipelineSettings, load_pipeline
from models.tta.ldm.sampling import SamplingSettings, Sound, generate
from models.tta.ldm.source import Source
from models.tta.pipeline_json import read_settings
from models.tta.studio.receipts import settings_of
from models.vocoders.load import GRIFFIN_LIM, load_vocoder
from models.vocoders.saved import VocoderSettings
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
    adapters: int = 8
    times: float = 2.0  # that adapters are added

    def check(self, settings: SamplingSettings) -> None:
        """Raises UserError where a sound would take longer than one may."""
        if settings.duration > self.seconds:
            raise UserError(f"duration: {settings.duration:g} s; at most {self.seconds:g} s here")
        if settings.num_steps > self.steps:
            raise UserError(f"num_steps: {settings.num_steps}; at most {self.steps} here")


@dataclass(frozen=True)
class Wish:
    """A sound that is to be made."""

    text: str
    folder: str  # of weights
    vocoder: str  # as `load_vocoder` knows it
    sampling: SamplingSettings
    adapters: tuple[Adapter, ...] = ()

    @classmethod
    def of_receipt(cls, receipt: dict[str, Any]) -> Wish:
        """That which the sound of this receipt, as `read_receipt` has it, fulfilled."""
        lora = [f"{used['folder']}:{used['weight']}" for used in receipt.get("lora", [])]
        made_by = receipt["text"], receipt["checkpoint"], receipt["vocoder"]
        return cls(*made_by, settings_of(receipt), tuple(map(Adapter.find, lora)))


class Shelf:
    """Models in `log_dirs` and those named besides. The one that was used last is in memory."""

    def __init__(
        self, log_dirs: Sequence[str], named: Sequence[str], device: torch.device, limits: Limits
    ) -> None:
        """`named` are runs, folders of weights or hub models, of adapters, too.

        Raises UserError where one is none.
        """
        self.log_dirs, self.device, self.limits = list(log_dirs), device, limits
        self.named = {name: _find(name, self.log_dirs[0]) for name in named}
        self._loaded: dict[str, Any] | None = None  # of what the pipeline is, as in a receipt
        self._pipeline: Pipeline | None = None
        self._vocoders: dict[str, Vocoder] = {}  # one at most

    # ------------------------------------------------------------ what is there

    def models(self, kind: str = MODEL) -> dict[str, Path]:
        """Weights of a kind (MODEL, EDITOR or ADAPTERS) by the name of their run.

        Those that were named come first, then the newest.
        """
        runs = [run for log_dir in self.log_dirs for run in Path(log_dir).expanduser().glob("*/")]
        found = {str(run): weights_folder(run, kind) for run in runs}
        there = {run: folder for run, folder in found.items() if folder}
        newest = sorted(there, key=lambda run: there[run].stat().st_mtime, reverse=True)
        named = {name: folder for name, folder in self.named.items() if kind_of(folder) == kind}
        return {**named, **{run: there[run] for run in newest}}

    def chosen(self, model: object, kind: str) -> object:
        """The model; for None the first on the list, where a click or a client did not choose."""
        return next(iter(self.models(kind)), None) if model is None else model

    def folder(self, model: object, kind: str) -> Path:
        """The weights of a model on the list: nothing else is opened, whatever a client sends."""
        models = self.models(kind)
        if model not in list(models):  # it may be anything, and not hashable
            raise UserError(f"model {model!r} is not there; choose one from the list")
        return models[model]

    def settings(self, model: object, kind: str = MODEL) -> PipelineSettings:
        return settings_type(kind).read(self.folder(model, kind))

    def adapters(self, model: object, kind: str = MODEL) -> dict[str, Adapter]:
        """Those that were trained on this model, by the name of their run."""
        fitting, folder = {}, self.folder(model, kind)
        for name, place in self.models(ADAPTERS).items():
            with contextlib.suppress(UserError):  # damaged, or of newer code: nothing to offer
                settings = read_settings(place, ADAPTERS, AdapterSettings)
                if (settings.adapts, settings.base_weights) == (kind, _hash_of(folder)):
                    fitting[name] = Adapter(place, 1.0, settings)
        return fitting

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
        self,
        text: object,
        model: object,
        vocoder: object,
        count: object,
        lora: Sequence[str] | None = None,
        **sampling: object,
    ) -> list[Wish]:
        """A wish for each sound, the seeds one after the other.

        `vocoder` and the values of `sampling` may be None: the model's own. `lora` are adapters on
        the model's list, "NAME" or, to add them half as strongly, "NAME:0.5".

        Raises:
            UserError: a value is missing, of another type, out of its range or beyond a limit.
        """
        most, negative = self.limits.sounds, sampling.get("negative_text")
        if negative is not None:
            sampling["negative_text"] = self._checked_text(negative, "negative text")
        if not isinstance(count, int) or not 1 <= count <= most:
            raise UserError(f"number of sounds: {count} must be a whole number, 1 to {most}")
        settings = self.settings(model).sampling_with(**sampling)
        first = self._wish(text, model, MODEL, vocoder, settings, lora)
        seeds = range(settings.seed, settings.seed + count)
        return [replace(first, sampling=replace(settings, seed=seed)) for seed in seeds]

    def instruction(
        self,
        text: object,
        model: object,
        vocoder: object,
        audio: str,
        lora: Sequence[str] | None = None,
        **sampling: object,
    ) -> Wish:
        """What an editor is to do with the sound in the file `audio`. As `wishes`."""
        folder, editor = self.folder(model, EDITOR), self.settings(model, EDITOR)
        task = task_of(self._checked_text(text, "text"))
        check_task(task, editor.tasks, folder)
        source = SoundToEdit.read_for(audio, editor.mel)
        only = way_of(self._checked_text(text, "text"))
        settings = source.settings_for(editor, audio, task, only=only, **sampling)
        return self._wish(text, model, EDITOR, vocoder, settings, lora)

    def _wish(
        self,
        text: object,
        model: object,
        kind: str,
        vocoder: object,
        settings: SamplingSettings,
        lora: Sequence[str] | None,
    ) -> Wish:
        text = self._checked_text(text, "text")
        if not text:
            raise UserError("there is no text; say what to hear")
        self.limits.check(settings)
        vocoders = self.vocoders(model, kind)
        if vocoder is not None and vocoder not in vocoders:
            raise UserError(f"vocoder {vocoder!r} is not there, or made for another mel")
        adapters = self._adapters([] if lora is None else lora, model, kind)
        folder = str(self.folder(model, kind))
        return Wish(text, folder, vocoder or vocoders[0], settings, adapters)

    def _adapters(self, lora: object, model: object, kind: str) -> tuple[Adapter, ...]:
        if not isinstance(lora, list) or not all(isinstance(text, str) for text in lora):
            raise UserError("adapters: must be a list of names")
        there, most, found = self.adapters(model, kind) if lora else {}, self.limits.times, []
        if len(lora) > self.limits.adapters:
            raise UserError(f"adapters: {len(lora)}; at most {self.limits.adapters} here")
        for text in lora:
            name, _, weight = (text, "", "1") if text in there else text.rpartition(":")
            if name not in there:
                raise UserError(f"adapters {text!r} are not there, or of another model")
            if not re.fullmatch(r"\d+(\.\d*)?", weight) or float(weight) > most:
                raise UserError(f"adapters {text!r}: the number must be one from 0 to {most:g}")
            found.append(replace(there[name], weight=float(weight)))
        return tuple(found)

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
        self,
        wish: Wish,
        on_step: Callable[[int, int], None],
        receipt: dict[str, Any] | None = None,
    ) -> tuple[Sound, dict[str, Any]]:
        """The sound, and what its receipt says of what made it.

        It is alone in its batch, so that its bits depend on nothing else. Raises UserError where
        there is a receipt already, and other weights are in the folders now.
        """
        pipeline, made_of = self._load(wish)
        if receipt and any(receipt.get(name, is_now) != is_now for name, is_now in made_of.items()):
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
        if not sound.finite:
            raise UserError(sound.fault)
        return sound, {
            **({"warning": "; ".join(faults)} if faults else {}),
            "vocoder": wish.vocoder,
            **made_of,
            "device": str(self.device),
            "mel": dataclasses.asdict(mel),
        }

    def _load(self, wish: Wish) -> tuple[Pipeline, dict[str, Any]]:
        """The pipeline, and what a receipt says of its weights."""
        folder = Path(wish.folder)
        if not (folder / WEIGHTS[kind_of(folder)]).is_file():
            raise UserError(f"{folder}: the model is no longer there")
        wanted = {"checkpoint": wish.folder, "weights": _hash_of(folder)}
        if wish.adapters:
            wanted["lora"] = [adapter.receipt() for adapter in wish.adapters]
        if wanted != self._loaded:
            self._loaded = self._pipeline = None  # gone before the next comes in
            self._vocoders.clear()
            gc.collect()
            network = Editor if kind_of(folder) == EDITOR else Pipeline
            self._pipeline = load_pipeline(folder, self.device, network, wish.adapters)
            self._loaded = wanted
        return self._pipeline, wanted


def kind_of(folder: Path) -> str:
    """Of weights: MODEL where they are neither of the others."""
    return next((kind for kind in (EDITOR, ADAPTERS) if (folder / WEIGHTS[kind]).is_file()), MODEL)


def _hash_of(folder: Path) -> str:
    """As `hash_of`; a file is read once."""
    kind = kind_of(folder)
    return _hash_at(folder, kind, (folder / WEIGHTS[kind]).stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_at(folder: Path, kind: str, written: int) -> str:
    return hash_of(folder, kind)


def settings_type(kind: str) -> type[PipelineSettings]:
    return EditorSettings if kind == EDITOR else PipelineSettings


def _find(name: str, log_dir: str) -> Path:
    """The weights that a user named; a published pipeline is imported into the `log_dir`.

    Raises UserError where there are none, of any kind.
    """
    try:
        return find_model(name, log_dir)
    except UserError:
        for kind in (EDITOR, ADAPTERS):
            with contextlib.suppress(UserError):
                return find_weights(name, log_dir, kind)
        raise
