"""The first tab: a text to sounds, which appear one by one."""

from __future__ import annotations

import functools
import secrets
from contextlib import aclosing
from pathlib import Path

import gradio as gr

from config.schedule_schema import SAMPLER_NAMES
from models.tta.studio.cards import render, sound_card
from models.tta.studio.events import MANY, PRIVATE, fault, follow, person, session, slot
from models.tta.studio.shelf import EDITOR, MODEL
from models.tta.studio.studio import Studio
from utils.errors import UserError

slider = functools.partial(gr.Slider, buttons=[])


class Sampling:
    """The part of a form that chooses the model, and how it is sampled."""

    def __init__(self, studio: Studio) -> None:
        limits = studio.limits
        self.studio = studio
        with gr.Accordion("Model and sampling", open=False):
            self.model = gr.Dropdown([], label="Model")
            self.vocoder = gr.Dropdown([], label="Vocoder")
            with gr.Row():
                self.steps = slider(1, limits.steps, 25, step=1, label="Steps")
                self.guidance = slider(1, 15, 4, step=0.1, label="Guidance")
            self.sampler = gr.Dropdown(list(SAMPLER_NAMES), label="Sampler")
        self.inputs = [self.model, self.vocoder, self.steps, self.guidance, self.sampler]

    def defaults(self, model: str | None) -> list:
        """The model's own [vocoder, steps, guidance, sampler]."""
        if (kind := self.kind_of(model)) is None:
            return [gr.skip()] * 4
        try:
            own = self.studio.shelf.settings(model, kind).sampling
            vocoders = self.studio.shelf.vocoders(model, kind)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        names = [(Path(name).name, name) for name in vocoders]
        return [
            gr.update(choices=names, value=vocoders[0]),
            *(own.num_steps, own.guidance_scale, own.sampler),
        ]

    def kind_of(self, model: str | None) -> str | None:
        """None where there is no such model any more."""
        kinds = (kind for kind in (MODEL, EDITOR) if model in self.studio.shelf.models(kind))
        return next(kinds, None)


class GenerateTab:
    def __init__(self, studio: Studio) -> None:
        limits = studio.limits
        self.studio = studio
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=2, min_width=320):
                self.text = gr.Textbox(
                    label="What to hear",
                    placeholder="A dog barks in the rain",
                    max_length=limits.text,
                    lines=2,
                    autofocus=True,
                )
                self.negative = gr.Textbox(label="What not to hear", max_length=limits.text)
                with gr.Row():
                    self.seconds = slider(
                        0.1, limits.seconds, min(5, limits.seconds), step=0.01, label="Seconds"
                    )
                    self.count = slider(1, limits.sounds, 1, step=1, label="Sounds")
                with gr.Row(elem_classes="seed"):
                    self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=120)
                    self.fresh = gr.Checkbox(True, label="New seed each time", min_width=120)
                with gr.Row():
                    self.go = gr.Button("Generate", variant="primary", min_width=120)
                    self.stop = gr.Button("Cancel", min_width=120)
                self.sampling = Sampling(studio)
            with gr.Column(scale=3, min_width=320):
                self.status = gr.HTML("", js_on_load=None)
                with gr.Column(elem_classes="sounds"):
                    self.slots = [slot() for _ in range(limits.sounds)]
        form = [self.text, self.negative, self.seconds, self.count, self.seed, self.fresh]
        gr.on(
            [self.go.click, self.text.submit],
            self._on_generate,
            [*form, *self.sampling.inputs],
            [self.status, self.seed, *self.slots],
            trigger_mode="once",
            **MANY,
            **PRIVATE,
        )
        self.stop.click(self._on_cancel, None, None, queue=False, **PRIVATE)

    @property
    def settings(self) -> list[gr.components.Component]:
        """What the settings of a sound fill in."""
        how = [self.sampling.steps, self.sampling.guidance, self.sampling.sampler]
        return [self.text, self.negative, self.seconds, self.seed, self.fresh, *how]

    def own_seconds(self, model: str | None) -> object:
        """The length that the model was trained on."""
        if self.sampling.kind_of(model) is None:
            return gr.skip()
        own = self.studio.shelf.settings(model).sampling.duration
        return min(own, self.studio.limits.seconds)

    async def _on_generate(
        self,
        text: str,
        negative: str,
        seconds: float,
        count: int,
        seed: int,
        fresh: bool,
        model: str,
        vocoder: str,
        steps: int,
        guidance: float,
        sampler: str,
        request: gr.Request,
    ):
        """Empties the slots and fills them one by one; a fault is told where progress is."""
        skip = [gr.skip()] * len(self.slots)
        try:
            seed = secrets.randbelow(2**31) if fresh else seed
            jobs = self.studio.submit(
                person(request),
                session(request),
                text,
                model,
                vocoder,
                count,
                negative_text=negative,
                duration=seconds,
                seed=seed,
                num_steps=steps,
                guidance_scale=guidance,
                sampler=sampler,
            )
            yield [gr.skip(), seed, *[""] * len(self.slots)]
            shown = 0
            async with aclosing(follow(self.studio, jobs)) as news:
                async for status, made in news:
                    slots = skip[:shown] + [sound_card(kept) for kept in made[shown:]]
                    shown = len(made)
                    yield [status, gr.skip(), *slots, *skip[shown:]]
        except UserError as error:
            yield [fault(error), gr.skip(), *skip]

    def _on_cancel(self, request: gr.Request) -> None:
        self.studio.turns.cancel(session(request))


def no_model(studio: Studio) -> str:
    return render("no_model", log_dirs=studio.shelf.log_dirs, page=studio.quickstart)
