"""The part of a form that chooses the model, its adapters and vocoder, and how it is sampled."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import gradio as gr

from config.schedule_schema import SAMPLER_NAMES
from models.tta.studio.events import PRIVATE
from models.tta.studio.shelf import EDITOR, MODEL
from models.tta.studio.studio import Studio
from utils.errors import UserError

slider = functools.partial(gr.Slider, buttons=[])


class Sampling:
    def __init__(self, studio: Studio) -> None:
        limits = studio.limits
        self.studio = studio
        with gr.Accordion("Model and sampling", open=False):
            self.model = gr.Dropdown([], label="Model")
            self.adapters = gr.Dropdown([], label="Adapters", multiselect=True, visible=False)
            self.times = slider(
                0, limits.times, 1, step=0.05, label="Strength of the adapters", visible=False
            )
            self.vocoder = gr.Dropdown([], label="Vocoder")
            with gr.Row():
                self.steps = slider(1, limits.steps, 25, step=1, label="Steps")
                self.guidance = slider(1, 15, 4, step=0.1, label="Guidance")
            self.of_mean = slider(0, 1, 1, step=0.05, label="Share of guidance that shifts levels")
            self.by_source = slider(
                0, 5, 1, step=0.1, label="Guidance by the sound to change", visible=False
            )
            self.sampler = gr.Dropdown(list(SAMPLER_NAMES), label="Sampler")
        self.own = [self.adapters, self.times, self.vocoder, self.steps, self.guidance]
        self.own += [self.of_mean, self.by_source, self.sampler]
        self.inputs = [self.model, *self.own]
        self.model.input(self.of, self.model, self.own, **PRIVATE)

    @staticmethod
    def given(
        model: str,
        adapters: list[str] | None,
        times: float,
        vocoder: str,
        steps: int,
        guidance: float,
        of_mean: float,
        by_source: float,
        sampler: str,
    ) -> dict[str, Any]:
        """The values of `inputs`, as `Studio.submit` and `Studio.edit` take them."""
        return {
            "model": model,
            "vocoder": vocoder,
            "lora": [f"{name}:{times:g}" for name in adapters or []],
            "num_steps": steps,
            "guidance_scale": guidance,
            "guidance_mean": of_mean,
            "source_guidance": by_source,
            "sampler": sampler,
        }

    def offer(self, kind: str, model: str | None) -> list:
        """For `inputs`: the models of a kind. If `model` is there still, its settings stay."""
        names = choices(self.studio, kind)
        values = [name for _, name in names]
        if model in values:
            own = [gr.skip()] * len(self.own)
            return [gr.update(choices=names), *self._adapters_of(model, kind), *own[2:]]
        first = next(iter(values), None)
        return [gr.update(choices=names, value=first), *self.of(first)]

    def of(self, model: str | None, made: dict[str, Any] | None = None) -> list:
        """For `own`: what goes with a model, at its own settings or as a receipt has them."""
        if (kind := self.kind_of(model)) is None:
            return [gr.skip()] * len(self.own)
        try:
            settings = self.studio.shelf.settings(model, kind)
            vocoders = self.studio.shelf.vocoders(model, kind)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        made = made or dataclasses.asdict(settings.sampling)
        vocoder = made["vocoder"] if made.get("vocoder") in vocoders else vocoders[0]
        there = {str(a.folder): name for name, a in self.studio.shelf.adapters(model, kind).items()}
        used = {
            there[u["folder"]]: u["weight"] for u in made.get("lora", []) if u["folder"] in there
        }
        adapters, times = self._adapters_of(model, kind)
        return [
            {**adapters, "value": list(used)},
            {**times, "value": next(iter(used.values()), 1.0)},
            gr.update(choices=[(Path(name).name, name) for name in vocoders], value=vocoder),
            *(made["num_steps"], made["guidance_scale"], made.get("guidance_mean", 1.0)),
            gr.update(value=made.get("source_guidance", 1.0), visible=kind == EDITOR),
            gr.update(choices=list(settings.noise_scheduler.samplers), value=made["sampler"]),
        ]

    def _adapters_of(self, model: str, kind: str) -> list[dict[str, Any]]:
        """For `adapters` and `times`, which are shown where there are any."""
        names = [(Path(name).name, name) for name in self.studio.shelf.adapters(model, kind)]
        return [
            gr.update(choices=names, visible=bool(names)),
            gr.update(visible=bool(names)),
        ]

    def kind_of(self, model: str | None) -> str | None:
        """None where there is no such model any more."""
        kinds = (kind for kind in (MODEL, EDITOR) if model in list(self.studio.shelf.models(kind)))
        return next(kinds, None)


def choices(studio: Studio, kind: str) -> list[tuple[str, str]]:
    """Of a list of models: a run by its name, with the step where it goes on still."""
    found = studio.shelf.models(kind)
    steps = {name: folder.name for name, folder in found.items() if folder.name[:5] == "step-"}
    return [(", ".join(filter(None, (Path(n).name, steps.get(n)))), n) for n in found]
