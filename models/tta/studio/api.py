"""The studio for programs: what gradio's client calls by name."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from models.tta.studio.events import MANY, follow, person, session
from models.tta.studio.history import Kept
from models.tta.studio.shelf import EDITOR
from models.tta.studio.studio import Studio
from models.tta.studio.turns import Job
from models.tta.studio.uploads import given_away, used_up
from utils.errors import UserError


class Api:
    """The endpoints. None stands for the model's own setting, or the newest model."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def generate(
        self,
        request: gr.Request,
        text: str,
        negative_text: str | None = None,
        duration: float | None = None,
        num_sounds: int | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        model: str | None = None,
        lora: list[str] | None = None,
        vocoder: str | None = None,
        guidance_mean: float | None = None,
    ):
        """A text to sounds: (wav files, their receipts)."""

        def submit() -> list[Job]:
            return self.studio.submit(
                person(request),
                session(request),
                text,
                model or None,
                vocoder,
                1 if num_sounds is None else num_sounds,
                lora=lora,
                negative_text=negative_text,
                duration=duration,
                seed=0 if seed is None else seed,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                guidance_mean=guidance_mean,
                sampler=sampler,
            )

        async with aclosing(self._answers(request, submit)) as answers:
            async for answer in answers:
                yield answer

    async def edit(
        self,
        request: gr.Request,
        audio: str | None,
        text: str,
        begin: float | None = None,
        end: float | None = None,
        strength: float | None = None,
        extend: float | None = None,
        task: str | None = None,
        cutoff: float | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        source_guidance: float | None = None,
        sampler: str | None = None,
        model: str | None = None,
        lora: list[str] | None = None,
        vocoder: str | None = None,
        guidance_mean: float | None = None,
    ):
        """A sound changed: from begin to end, or by strength, extend or task.

        Without any of these the text is an instruction; with an editor as model, which can be kept
        to a part, it is one in any case.
        """

        holder = secrets.token_hex()

        def submit() -> list[Job]:
            if audio is None:
                raise UserError("audio: there is no sound to change")
            with used_up(audio):
                name = self.studio.take(person(request), audio, holder)
            region = None if begin is None and end is None else ((begin or 0.0, end),)
            ways = {"region": region, "strength": strength, "extend": extend, "task": task}
            asked = {name: value for name, value in ways.items() if value is not None}
            of_editor = asked.keys() <= {"region"} and model in self.studio.shelf.models(EDITOR)
            instruct = of_editor or not asked
            if instruct:
                asked |= {"instruct": True, "source_guidance": source_guidance}
            job = self.studio.edit(
                person(request),
                session(request),
                name,
                text,
                model or None,
                vocoder,
                lora=lora,
                cutoff=cutoff,
                seed=0 if seed is None else seed,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                guidance_mean=guidance_mean,
                sampler=sampler,
                **asked,
            )
            return [job]

        try:
            async with aclosing(self._answers(request, submit)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self.studio.let_go(holder)

    async def _answers(
        self, request: gr.Request, submit: Callable[[], list[Job]]
    ) -> AsyncIterator[tuple[list[str] | None, list[dict[str, Any]] | None]]:
        """(None, None) while the jobs go on, by which a client that is gone is noticed."""
        try:
            jobs = await asyncio.to_thread(submit)
            async with aclosing(follow(self.studio, jobs)) as news:
                async for _ in news:
                    yield None, None
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        made: list[Kept] = [job.result for job in jobs if job.state == "done"]
        find = functools.partial(self.studio.history.file, person(request))
        wavs = [given_away(find(f"{kept.number}.wav")) for kept in made]
        yield wavs, [kept.receipt for kept in made]


def wire_api(studio: Studio) -> None:
    """Adds the endpoints to a page."""
    api = Api(studio)
    with gr.Group(visible=False):
        of_sampling = ["sampler", "model", "lora", "vocoder", "guidance_mean"]
        of_both = ["seed", "num_steps", "guidance_scale"]
        of_text = ["text", "negative_text", "duration", "num_sounds", *of_both, *of_sampling]
        of_sound = ["text", "begin", "end", "strength", "extend", "task", "cutoff"]
        of_sound += [*of_both, "source_guidance", *of_sampling]
        outputs = [gr.File(label="wavs", file_count="multiple"), gr.JSON(label="receipts")]
        ask, change = gr.Button(), gr.Button()
        ask.click(api.generate, fields(of_text), outputs, api_name="generate", **MANY)
        sound = gr.File(label="audio", type="filepath")
        change.click(api.edit, [sound, *fields(of_sound)], outputs, api_name="edit", **MANY)


def fields(names: Sequence[str]) -> list[gr.components.Component]:
    """An input for each name; all but `text` may be left out."""
    texts = ("text", "negative_text", "sampler", "model", "vocoder", "task")

    def field(name: str) -> gr.components.Component:
        if name in texts:
            return gr.Textbox(None, label=name)
        if name == "lora":
            return gr.Dropdown([], label=name, multiselect=True, allow_custom_value=True)
        return gr.Number(None, label=name)  # which passes on what is none, too, to be refused

    return [field(name) for name in names]
