"""The first tab: a text to sounds, which appear one by one."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from pathlib import Path

import gradio as gr

from models.tta.studio.cards import render, sound_card
from models.tta.studio.events import MANY, PRIVATE, fault, follow, person, plain, session, slot
from models.tta.studio.history import Kept
from models.tta.studio.sampling_form import Sampling, slider
from models.tta.studio.shelf import MODEL
from models.tta.studio.studio import Studio
from utils.errors import UserError

EMPTY = "Sounds appear here, one by one."


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
                    # The first look for models lets it be pressed, and fills in their settings.
                    self.go = gr.Button(
                        "Generate", variant="primary", min_width=120, interactive=False
                    )
                    self.stop = gr.Button("Cancel", min_width=120)
                self.sampling = Sampling(studio)
            with gr.Column(scale=3, min_width=320):
                self.status = plain(render("message", text=EMPTY, kind="note"))
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
        self.sampling.model.input(self._own_seconds, self.sampling.model, self.seconds, **PRIVATE)
        self.stop.click(self._on_cancel, None, None, queue=False, **PRIVATE)

    @property
    def settings(self) -> list[gr.components.Component]:
        """What `filled_by` fills."""
        return [
            self.text,
            self.negative,
            self.seconds,
            self.seed,
            self.fresh,
            *self.sampling.inputs,
        ]

    def filled_by(self, kept: Kept) -> list:
        """What made a sound; where its model is not there any more, that one's part is left."""
        made, shelf = kept.receipt, self.studio.shelf
        text = [made["text"], made["negative_text"], made["duration"], made["seed"], False]
        folder = Path(made["checkpoint"])
        model = next((n for n, place in shelf.models().items() if place == folder), None)
        return [*text, model or gr.skip(), *self.sampling.of(model, made)]

    @property
    def offered(self) -> list[gr.components.Component]:
        """What `offer` fills."""
        return [self.seconds, *self.sampling.inputs]

    def offer(self, model: str | None) -> list:
        """The models that are there. If `model` is there still, its settings stay."""
        models = self.studio.shelf.models()
        same = model in models
        seconds = gr.skip() if same else self._own_seconds(next(iter(models), None))
        return [seconds, *self.sampling.offer(MODEL, model)]

    def _own_seconds(self, model: str | None) -> object:
        """The length that the model was trained on."""
        if self.sampling.kind_of(model) != MODEL:
            return gr.skip()
        own = self.studio.shelf.settings(model).sampling.duration
        return min(own, self.studio.limits.seconds)

    async def _on_generate(
        self,
        request: gr.Request,
        text: str,
        negative: str,
        seconds: float,
        count: int,
        seed: int,
        fresh: bool,
        *sampling: object,
    ):
        """Empties the slots and fills them one by one; a fault is told where progress is."""
        skip = [gr.skip()] * len(self.slots)
        how = self.sampling.given(*sampling)
        del how["source_guidance"]  # of editors
        try:
            seed = secrets.randbelow(2**31) if fresh else seed
            jobs = self.studio.submit(
                person(request),
                session(request),
                text,
                count=count,
                negative_text=negative,
                duration=seconds,
                seed=seed,
                **how,
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
