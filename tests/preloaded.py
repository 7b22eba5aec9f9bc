"""What each process that starts at once would otherwise do again: done before it is forked."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from config.load import read_json5
from models.tta.evaluation import recognition
from models.tta.ldm.text_encoder import TextEncoder
from models.vocoders import griffin_lim
from tests import tiny

for name in ("audioldm", "audit", "autoencoderkl", "base", "vocoder"):
    if (path := tiny.ROOT / "config" / f"{name}.json").is_file():
        read_json5(path)  # which remembers it

with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
    config = tiny.load(tiny.write_config(Path(folder), 2))
    encoder = TextEncoder.small(config.model.text_encoder.small, tiny.WORDS, 12)
    encoder.save(Path(folder) / "t5")  # which makes tables of names in transformers

# Programs of the tests sound after a few steps of training, when nobody listens: how well phases
# are found is looked at in test_vocoder.py, and how well kinds are heard in test_recognition.py.
griffin_lim.MAGNITUDE_STEPS = griffin_lim.PHASE_STEPS = 2
recognition.train_classifier = partial(recognition.train_classifier, steps=10)
