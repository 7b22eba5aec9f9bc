"""The tab in which a sound is changed: a part of it, all of it, what follows it, its treble."""

from __future__ import annotations

import asyncio
import functools
import secrets
from contextlib import aclosing

import gradio as gr

from config.schema import MelConfig
from models.tta.studio.cards import render, sound_card, source_card
from models.tta.studio.events import (
    MANY,
    PRIVATE,
    SCRIPT,
    fault,
    follow,
    person,
    plain,
    session,
    slot,
    told,
)
from models.tta.studio.sampling_form import Sampling, slider
from models.tta.studio.shelf import EDITOR, MODEL
from models.tta.studio.studio import Studio
from models.tta.studio.uploads import used_up
from utils.audio import read_recording
from utils.errors import UserError

INSTRUCT = ("Follow an instruction", "instruct")  # where there is an editor
INPAINT, TRANSFER, EXTEND, TREBLE = "inpaint", "transfer", "extend", "super_resolution"
WHAT = [
    ("Make a part anew", INPAINT),
    ("Turn it into the text", TRANSFER),
    ("Go on after its end", EXTEND),
    ("Make the treble anew", TREBLE),
]
SHOWN_FOR = ((INSTRUCT[1], INPAINT), (TRANSFER,), (EXTEND,), (TREBLE,))  # parts of the form
TEXTS = {  # the field for the text, without and with an instruction
    False: {"label": "What to hear", "placeholder": ""},
    True: {"label": "Instruction", "placeholder": "Drop the sound of the dog"},
}
EMPTY = "Load a sound, or press Edit below one that was made."
NOTHING_TAKEN = "there is no sound to change; load one, or press Edit on one that was made"


class EditTab:
    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.taken = gr.State(None)  # the name of what is to be changed
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=2, min_width=320):
                self._lay_out_form()
            with gr.Column(scale=3, min_width=320):
                self.source = gr.HTML(
                    render("message", text=EMPTY, kind="note"),
                    js_on_load=SCRIPT,
                    apply_default_css=False,
                )
                self.status = plain("")
                self.result = slot()
        self._wire()

    def _lay_out_form(self) -> None:
        limits = self.studio.limits
        types = ["audio", "video"]
        self.file = gr.File(
            label="Sound to change",
            file_types=types,
            type="filepath",
            height=130,
            elem_classes="drop",
        )
        self.what = gr.Radio(WHAT, value=INPAINT, label="What to do")
        self.text = gr.Textbox(max_length=limits.text, **TEXTS[False])
        second = functools.partial(gr.Number, minimum=0, step=0.1, min_width=120)
        with gr.Row() as self.part:
            self.begin, self.end = second(0, label="From second"), second(1, label="To second")
        self.strength = slider(
            0.05, 1, 0.5, step=0.05, label="Strength", info="1: wholly new", visible=False
        )
        most = limits.seconds
        self.extend = slider(0.1, most, min(2, most), step=0.1, label="Seconds more", visible=False)
        info = "empty: half of the sound's rate"
        self.cutoff = gr.Number(None, label="Above, in Hz", info=info, visible=False)
        with gr.Row(elem_classes="seed"):
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=120)
            self.fresh = gr.Checkbox(True, label="New seed each time", min_width=120)
        with gr.Row():
            self.go = gr.Button("Edit", variant="primary", min_width=120, interactive=False)
            self.stop = gr.Button("Cancel", min_width=120)
        self.sampling = Sampling(self.studio)

    def _wire(self) -> None:
        sampling = self.sampling
        parts = [self.part, self.strength, self.extend, self.cutoff, self.text]
        what = [self.what, sampling.model]
        self.what.change(self._on_what, what, [*parts, *sampling.inputs], **PRIVATE)
        upload = [self.file, sampling.model]
        self.file.upload(self._on_upload, upload, [self.file, *self.filled], **PRIVATE)
        self.source.select(self._on_mark, None, [self.begin, self.end], **PRIVATE)
        region = [self.taken, self.begin, self.end, sampling.model]
        for number in (self.begin, self.end):
            last = {"trigger_mode": "always_last"}  # of many keys, the last one counts
            number.input(self._on_typed, region, self.source, **last, **PRIVATE)
        form = [self.taken, self.what, self.text, self.begin, self.end, self.strength]
        form += [self.extend, self.cutoff, self.seed, self.fresh, *sampling.inputs]
        outputs = [self.status, self.seed, self.result]
        asked = [self.go.click, self.text.submit]
        gr.on(asked, self._on_edit, form, outputs, trigger_mode="once", **MANY, **PRIVATE)
        self.stop.click(self._on_cancel, None, None, queue=False, **PRIVATE)

    def _on_what(self, what: str, model: str | None) -> list:
        """Shows what belongs to it, and the models that can do it."""
        shown = [gr.update(visible=what in ways) for ways in SHOWN_FOR]
        text = gr.update(**TEXTS[what == INSTRUCT[1]])
        return [*shown, text, *self.sampling.offer(kind_for(what), model)]

    # ------------------------------------------------------------ what is to be changed

    @property
    def filled(self) -> list[gr.components.Component]:
        """What `use` fills."""
        return [self.taken, self.source, self.begin, self.end, self.status]

    def use(self, request: gr.Request, number: str) -> list:
        """Takes a sound of the history; values of `filled`."""
        path = self.studio.history.file(person(request), f"{number}.wav")
        return self._taken(request, path, None)

    def _taken(self, request: gr.Request, path: object, model: str | None) -> list:
        who = person(request)
        name = self.studio.take(who, path, session(request))
        axes = self.studio.draw(who, name, self._mel(model))
        return [name, source_card(name, axes, None), 0, round(axes["duration"], 2), ""]

    def _mel(self, model: str | None) -> MelConfig:
        """What the model hears; where none is chosen, the first one."""
        models = self.studio.shelf.models
        model = model or next(iter([*models(MODEL), *models(EDITOR)]), None)
        kind = self.sampling.kind_of(model)
        if kind is None:
            raise UserError("there is no model yet")
        return self.studio.shelf.settings(model, kind).mel

    def _on_upload(self, path: str, model: str | None, request: gr.Request) -> list:
        """The form's field is emptied: the sound is shown beside it, under no name."""
        try:
            with used_up(path):
                return [None, *self._taken(request, path, model)]
        except UserError as error:
            return [None, *[gr.skip()] * 4, fault(error)]

    def _on_mark(self, event: gr.EventData) -> list:
        marked = [told(event, name) for name in ("begin", "end")]
        return [round(time, 2) if isinstance(time, (int, float)) else gr.skip() for time in marked]

    def _on_typed(
        self, name: str | None, begin: float, end: float, model: str, request: gr.Request
    ) -> object:
        if name is None or begin is None or end is None or not 0 <= begin < end:
            return gr.skip()
        axes = self.studio.draw(person(request), name, self._mel(model))
        return source_card(name, axes, (begin, min(end, axes["duration"])))

    # ------------------------------------------------------------ changing it

    async def _on_edit(
        self,
        request: gr.Request,
        name: str | None,
        what: str,
        text: str,
        begin: float | None,
        end: float | None,
        strength: float,
        extend: float,
        cutoff: float | None,
        seed: int,
        fresh: bool,
        *sampling: object,
    ):
        try:
            if name is None:
                raise UserError(NOTHING_TAKEN)
            if begin is None or end is None:
                raise UserError("from and to: say both, in seconds")
            who = person(request)
            path = self.studio.source(who, name)
            seconds = (await asyncio.to_thread(read_recording, path)).seconds
            end = min(end, seconds)  # what is drawn may end with the last frame
            whole = begin == 0 and end > seconds - 0.01
            how = {
                INSTRUCT[1]: {"instruct": True, "region": None if whole else ((begin, end),)},
                INPAINT: {"region": ((begin, end),)},
                TRANSFER: {"strength": strength},
                EXTEND: {"extend": extend},
                TREBLE: {"task": TREBLE, "cutoff": cutoff},
            }[what]
            how |= self.sampling.given(*sampling)
            if what != INSTRUCT[1]:
                del how["source_guidance"]
            seed = secrets.randbelow(2**31) if fresh else seed
            job = await asyncio.to_thread(
                self.studio.edit, who, session(request), name, text, seed=seed, **how
            )
            yield [gr.skip(), seed, ""]
            async with aclosing(follow(self.studio, [job])) as news:
                async for status, made in news:
                    yield [status, gr.skip(), sound_card(made[0]) if made else gr.skip()]
        except UserError as error:
            yield [fault(error), gr.skip(), gr.skip()]

    def _on_cancel(self, request: gr.Request) -> None:
        self.studio.turns.cancel(session(request))


def kind_for(what: str) -> str:
    """Of the models that can do it."""
    return EDITOR if what == INSTRUCT[1] else MODEL
