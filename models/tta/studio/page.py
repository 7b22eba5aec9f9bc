"""The studio's page: its tabs, and the models that come and go."""

from __future__ import annotations

import gradio as gr

from models.tta.studio.api import wire_api
from models.tta.studio.edit_tab import INSTRUCT, WHAT, EditTab, kind_for
from models.tta.studio.events import PRIVATE, plain, session, wire_slot
from models.tta.studio.generate_tab import GenerateTab, no_model
from models.tta.studio.guard import Page
from models.tta.studio.history_tab import HistoryTab, TrainingTab
from models.tta.studio.sampling_form import choices
from models.tta.studio.shelf import ADAPTERS, EDITOR, MODEL
from models.tta.studio.studio import Studio

SECONDS = 5  # between two looks for models
FONT = ("system-ui", "sans-serif")  # nothing is fetched from anywhere
MONO_FONT = ("ui-monospace", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Quiet: blocks without frames. Its colours are those of studio.css."""
    return gr.themes.Base(neutral_hue="zinc", font=FONT, font_mono=MONO_FONT).set(
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        panel_border_width="0px",
        input_border_width="1px",
        input_background_fill="*background_fill_primary",
        input_background_fill_dark="*background_fill_secondary",
        button_primary_background_fill="var(--accent)",
        button_primary_background_fill_dark="var(--accent)",
        button_primary_background_fill_hover="var(--accent-strong)",
        button_primary_background_fill_hover_dark="var(--accent-strong)",
        button_primary_text_color="var(--on-accent)",
        button_primary_text_color_dark="var(--on-accent)",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_border_width="1px",
        button_large_text_weight="500",
        button_large_text_size="*text_md",
        checkbox_background_color_selected="var(--accent)",
        checkbox_background_color_selected_dark="var(--accent)",
        checkbox_border_color_selected="var(--accent)",
        checkbox_border_color_selected_dark="var(--accent)",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_hover="transparent",
        checkbox_label_background_fill_hover_dark="transparent",
        checkbox_label_background_fill_selected="transparent",
        checkbox_label_background_fill_selected_dark="transparent",
        checkbox_label_border_width="0px",
        checkbox_label_border_width_dark="0px",
        input_border_color_focus="var(--accent)",
        input_border_color_focus_dark="var(--accent)",
        input_shadow_focus="none",
        input_shadow_focus_dark="none",
        checkbox_label_padding="2px 0",
        slider_color="var(--accent)",
        slider_color_dark="var(--accent)",
        link_text_color="var(--accent)",
        link_text_color_dark="var(--accent)",
        link_text_color_hover="var(--accent-strong)",
        link_text_color_hover_dark="var(--accent-strong)",
    )


def make_page(studio: Studio) -> gr.Blocks:
    """The page over a studio; it makes no sound itself."""
    with Page(title="Arion studio", analytics_enabled=False, fill_width=True) as page:
        plain("<h1>Arion studio</h1>", elem_id="title")
        empty = plain(no_model(studio), visible=False)
        with gr.Tabs() as tabs:
            with gr.Tab("Generate", id="generate"):
                generate = GenerateTab(studio)
            with gr.Tab("Edit", id="edit"):
                edit = EditTab(studio)
            with gr.Tab("History", id="history") as tab:
                history = HistoryTab(studio, tab)
            with gr.Tab("Training", id="training") as tab:
                TrainingTab(studio, tab)
        for place in (*generate.slots, edit.result, *history.slots):
            wire_slot(studio, place, tabs, generate, edit)
        _wire_models(studio, page, empty, generate, edit)
        wire_api(studio)

        def on_unload(request: gr.Request) -> None:
            studio.let_go(session(request))

        page.unload(on_unload)
    return page


def _wire_models(
    studio: Studio, page: gr.Blocks, empty: gr.HTML, generate: GenerateTab, edit: EditTab
) -> None:
    """The lists of models follow the runs; the forms follow their models."""
    made_by, edited_by = generate.sampling, edit.sampling
    outputs = [empty, generate.go, edit.go, edit.what, *generate.offered, *edited_by.inputs]

    def on_look(known: list | None, model: str | None, editor: str | None, what: str) -> list:
        there = [choices(studio, kind) for kind in (MODEL, EDITOR, ADAPTERS)]
        if there == known:
            return [gr.skip()] * (1 + len(outputs))
        models, editors, _ = there
        ways = [INSTRUCT, *WHAT] if editors else WHAT
        way = what if what in dict(map(reversed, ways)) else WHAT[0][1]
        return [
            there,
            gr.update(visible=not models),
            gr.update(interactive=bool(models)),
            gr.update(interactive=bool(models or editors)),
            gr.update(choices=ways, value=way),
            *generate.offer(model),
            *edited_by.offer(kind_for(way), editor),
        ]

    known, timer = gr.State(None), gr.Timer(SECONDS)
    inputs = [known, made_by.model, edited_by.model, edit.what]
    gr.on([page.load, timer.tick], on_look, inputs, [known, *outputs], **PRIVATE)
