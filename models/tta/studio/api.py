"""The studio for programs: what gradio's client calls by name."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr

from models.tta.studio.events import MANY, follow, person, session
from models.tta.studio.history import Kept
from models.tta.studio.shelf import EDITOR, MODEL
from models.tta.studio.studio import Studio
from models.tta.studio.turns import Job
from utils.errors import UserError

HOUR = 3600  # seconds


def wire_api(studio: Studio) -> None:
    """Adds the endpoints. None stands for the model's own setting, or the newest model."""

    async def generate(
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
        vocoder: str | None = None,
    ):
        """A text to sounds: (wav files, their receipts)."""
        try:
            jobs = studio.submit(
                person(request),
                session(request),
                text,
                model or next(iter(studio.shelf.models()), None),
                vocoder,
                1 if num_sounds is None else num_sounds,
                negative_text=negative_text,
                duration=duration,
                seed=0 if seed is None else seed,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
            )
            async with aclosing(follow(studio, jobs)) as news:
                async for _ in news:
                    yield None, None  # by which a client that is gone is noticed
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        yield answer(person(request), jobs)

    async def edit(
        request: gr.Request,
        audio: str,
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
        sampler: str | None = None,
        model: str | None = None,
        vocoder: str | None = None,
    ):
        """A sound changed: from begin to end, or by strength, extend or task.

        Without any of these the text is an instruction, for an editor.
        """
        try:
            region = None if begin is None and end is None else ((begin or 0.0, end),)
            how = {"region": region, "strength": strength, "extend": extend, "task": task}
            instruct = not any(value is not None for value in how.values())
            how = {"instruct": True} if instruct else how
            models = studio.shelf.models(EDITOR if instruct else MODEL)
            name = await asyncio.to_thread(studio.take, person(request), audio)
            job = await asyncio.to_thread(
                studio.edit,
                person(request),
                session(request),
                name,
                text,
                model or next(iter(models), None),
                vocoder,
                **how,
                cutoff=cutoff,
                seed=0 if seed is None else seed,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
            )
            async with aclosing(follow(studio, [job])) as news:
                async for _ in news:
                    yield None, None
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        yield answer(person(request), [job])

    def answer(who: str, jobs: Sequence[Job]) -> tuple[list[str], list[dict[str, Any]]]:
        made = [job.result for job in jobs if job.state == "done"]
        return [handed_out(studio, who, kept) for kept in made], [kept.receipt for kept in made]

    with gr.Group(visible=False):
        of_sampling = ["seed", "num_steps", "guidance_scale", "sampler", "model", "vocoder"]
        of_text = ["text", "negative_text", "duration", "num_sounds", *of_sampling]
        of_sound = ["text", "begin", "end", "strength", "extend", "task", "cutoff", *of_sampling]
        outputs = [gr.File(label="wavs", file_count="multiple"), gr.JSON(label="receipts")]
        ask, change = gr.Button(), gr.Button()
        ask.click(generate, fields(of_text), outputs, api_name="generate", **MANY)
        sound = gr.File(label="audio", type="filepath")
        change.click(edit, [sound, *fields(of_sound)], outputs, api_name="edit", **MANY)


def fields(names: Sequence[str]) -> list[gr.components.Component]:
    """An input for each name; all but `text` may be left out."""
    texts = ("text", "negative_text", "sampler", "model", "vocoder", "task")
    whole = ("num_sounds", "seed", "num_steps")
    return [
        gr.Textbox(None, label=name)
        if name in texts
        else gr.Number(None, label=name, precision=0 if name in whole else None)
        for name in names
    ]


def handed_out(studio: Studio, who: str, kept: Kept) -> str:
    """A copy of the wav that gradio may give away, as it gives nothing of other folders.

    It is there for an hour at least.
    """
    shared = Path(os.environ["GRADIO_TEMP_DIR"])
    for old in shared.glob("wav-*"):
        if old.stat().st_mtime < time.time() - HOUR:
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix="wav-", dir=shared)
    return shutil.copy(studio.history.file(who, f"{kept.number}.wav"), folder)
