"""What was made, a page of it at a time; and the trainings."""

from __future__ import annotations

import gradio as gr

from models.tta.studio.cards import render, sound_card, training_cards
from models.tta.studio.events import PRIVATE, person, plain, slot
from models.tta.studio.runs import trainings
from models.tta.studio.studio import Studio

ON_PAGE = 12  # sounds that are shown at a time
SECONDS = 10  # between two looks at the trainings


class HistoryTab:
    def __init__(self, studio: Studio, tab: gr.Tab) -> None:
        self.studio = studio
        summary = plain("")
        with gr.Column(elem_classes="sounds two"):
            self.slots = [slot() for _ in range(ON_PAGE)]
        with gr.Row():
            newer, older = gr.Button("Newer", visible=False), gr.Button("Older", visible=False)
        start = gr.State(0)
        outputs = [start, summary, newer, older, *self.slots]
        tab.select(self._on_select, None, outputs, **PRIVATE)
        newer.click(self._on_newer, start, outputs, **PRIVATE)
        older.click(self._on_older, start, outputs, **PRIVATE)

    def _on_select(self, request: gr.Request) -> list:
        return self._from(0, person(request))

    def _on_newer(self, start: int, request: gr.Request) -> list:
        return self._from(start - ON_PAGE, person(request))

    def _on_older(self, start: int, request: gr.Request) -> list:
        return self._from(start + ON_PAGE, person(request))

    def _from(self, start: int, who: str) -> list:
        """A page of it, from the `start`-th newest sound on."""
        history, total = self.studio.history, self.studio.history.count(who)
        start = min(max(start, 0), max(total - 1, 0))
        cards = [sound_card(kept) for kept in history.newest(who, start, ON_PAGE)]
        return [
            start,
            render("history", total=total, start=start, shown=len(cards)),
            gr.update(visible=start > 0),
            gr.update(visible=start + ON_PAGE < total),
            *(cards + [""] * ON_PAGE)[:ON_PAGE],
        ]


class TrainingTab:
    def __init__(self, studio: Studio, tab: gr.Tab) -> None:
        self.studio = studio
        runs, shown, timer = plain(""), gr.State(""), gr.Timer(SECONDS)
        gr.on([tab.select, timer.tick], self._on_look, shown, [runs, shown], **PRIVATE)

    def _on_look(self, shown: str) -> list:
        """What has not changed is not shown anew: one may be listening to it."""
        cards = training_cards(trainings(self.studio.shelf.log_dirs), self.studio.quickstart)
        return [gr.skip(), gr.skip()] if cards == shown else [cards, cards]
