"""From an editor that goes along a flow to a flow map, as models/tta/ldm/distil.py has it."""

from __future__ import annotations

from models.tta.editing.pipeline import Editor
from models.tta.editing.training import AUDITTraining
from models.tta.ldm.distil import Distillation


class EditorDistillation(Distillation, AUDITTraining):
    """A flow map of an editor: a models/base Task. Each guidance of the teacher is learnt."""

    kind = Editor
