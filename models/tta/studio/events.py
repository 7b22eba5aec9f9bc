"""What all tabs share: who is asking, how a job is followed, and what a card's buttons do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from models.tta.studio.cards import render, sound_card
from models.tta.studio.studio import Studio
from models.tta.studio.turns import Job
from utils.errors import UserError

if TYPE_CHECKING:
    from models.tta.studio.edit_tab import EditTab
    from models.tta.studio.generate_tab import GenerateTab

HERE = Path(__file__).parent
SCRIPT = (HERE / "studio.js").read_text(encoding="utf-8")
POLL = 0.2  # seconds between two looks at a job
HEARTBEAT = 5.0  # seconds after which a client is told the same again: it may be gone
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
MANY = {"concurrency_limit": None}  # the studio's own queue decides whose turn it is


def person(request: gr.Request) -> str:
    """Whose history it is: the name of the login; without a login there is one for all."""
    return request.username or ""


def session(request: gr.Request) -> str:
    """Who waits for a turn: a page that is open, or a program."""
    return request.session_hash


def told(event: gr.EventData, name: str) -> object:
    """A value that the page's script sent; None where a client sent something else."""
    try:
        return getattr(event, name)
    except (AttributeError, TypeError):
        return None


def fault(error: UserError) -> str:
    return render("message", text=str(error), kind="fault")


async def follow(studio: Studio, jobs: Sequence[Job]) -> AsyncIterator[tuple[str, list]]:
    """What is going on, as HTML, and the results so far, whenever one of them changes.

    The jobs are cancelled where nobody listens any more. Raises UserError where one failed.
    """
    told, quiet = None, 0.0
    try:
        while True:
            states = [job.look() for job in jobs]
            made = [job.result for job in jobs if job.state == "done"]
            now = next((job for job in jobs if not job.ended), None)
            if now is None:
                break
            before, number = studio.turns.before(now), jobs.index(now) + 1
            news = (before, number, now.step, len(made))
            if news != told or quiet >= HEARTBEAT:
                told, quiet = news, 0.0
                steps = {"step": now.step, "steps": now.steps, "left": now.seconds_left}
                yield (
                    render("progress", before=before, number=number, count=len(jobs), **steps),
                    made,
                )
            await asyncio.sleep(POLL)
            quiet += POLL
        if faults := [job.fault for job in jobs if job.fault]:
            raise UserError(faults[0])
        if "cancelled" in states:
            yield render("message", text="Cancelled; what was finished is kept.", kind="note"), made
        else:
            yield "", made
    finally:
        for job in jobs:
            job.cancel()


# HTML without a script, in the page's own looks.
plain = functools.partial(gr.HTML, js_on_load=None, apply_default_css=False)


def slot() -> gr.HTML:
    """A place for a sound, whose buttons make "click" events with an action and a number."""
    return gr.HTML("", js_on_load=SCRIPT, apply_default_css=False)


def wire_slot(
    studio: Studio, place: gr.HTML, tabs: gr.Tabs, generate: GenerateTab, edit: EditTab
) -> None:
    """What the buttons of the sound in `place` do."""
    settings, source = generate.settings, edit.filled

    async def on_click(request: gr.Request, event: gr.EventData):
        others, action = [gr.skip()] * (1 + len(settings) + len(source)), told(event, "action")
        try:
            kept = studio.history.get(person(request), told(event, "number"))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        try:
            if kept.fault and action != "source":
                raise UserError("there is nothing to make it from")
            if action == "settings":
                tab = gr.Tabs(selected="generate")
                values = await asyncio.to_thread(generate.filled_by, kept)
                yield [gr.skip(), tab, *values, *[gr.skip()] * len(source)]
            elif action == "source":
                tab = gr.Tabs(selected="edit")
                filled = await asyncio.to_thread(edit.use, request, kept.number)
                yield [gr.skip(), tab, *[gr.skip()] * len(settings), *filled]
            elif action == "again":
                job = studio.replay(person(request), session(request), kept)
                async with aclosing(follow(studio, [job])) as news:
                    async for state, notes in news:
                        yield [sound_card(kept, *notes, progress=state), *others]
        except UserError as error:
            yield [sound_card(kept, str(error)), *others]

    outputs = [place, tabs, *settings, *source]
    place.click(on_click, None, outputs, trigger_mode="once", **MANY, **PRIVATE)
