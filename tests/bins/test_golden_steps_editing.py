"""The editor: steps of the real program against the papers' equations in tests/reference.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.unet import UNet
from processors.stream import ClipStream
from tests import golden, tiny, warm
from tests.reference import Stage2, Text, moments, segment, window_starts

STEPS = 3
SETTINGS = (
    *("train.warmup_steps=0", "train.save_summary_steps=1", "train.valid_interval=1000"),
    *("train.adam.lr=1e-2", "train.adam.eps=1e-2", "train.adam.weight_decay=0.1"),
    *("train.grad_clip=1e6", f"train.max_steps={STEPS}", f"train.save_checkpoints_steps={STEPS}"),
    "model.text_encoder.small.vocab_size=64",  # no room for new words
)
CASES = {
    "a text encoder that learns, half the sources dropped": (
        *("model.source_dropout=0.5", "model.caption_dropout=0"),
    ),
    "frozen text encoder, two micro-batches, texts and sources dropped": (
        *("model.source_dropout=0.3", "model.caption_dropout=0.3"),
        "train.gradient_accumulation_steps=2",
        "model.text_encoder.pretrained=any",
    ),
}


class Editing(Stage2):
    """Stage 2 that also reads a latent: the mean of the posterior of the sound to edit, or zeros.

    Text and source are dropped independently (Brooks et al. 2023, arXiv:2211.09800, section 3.2.1
    drops either, or both, with 5% each). Records are (sound to make, text, sound to edit or None).
    """

    def batch(self, step: int) -> tuple[Tensor, list[str], dict]:
        made, texts, sources = [], [], []
        seen = {"windows": [], "dropped": [], "source": []}
        first = step * self.train["batch_size"]
        for position in range(first, first + self.train["batch_size"]):
            sound, text, source = self.records[self.stream.clip(position)]
            random = self.stream.random(position)
            starts = window_starts(self.mels[sound].shape[1], self.frames)
            start = starts[int(random.integers(len(starts)))]
            made.append(segment(self.mels[sound], start, self.frames))
            dropped = random.random() < self.model["caption_dropout"]
            texts.append("" if dropped else text)
            kept = source is not None and random.random() >= self.model["source_dropout"]
            mel = segment(self.mels[source], start, self.frames) if kept else None
            sources.append(None if mel is None else torch.from_numpy(mel)[None, None])
            seen["windows"].append(start)
            seen["dropped"].append(dropped)
            seen["source"].append((source is not None, kept))
        zeros = torch.zeros(1, *self.model["latent"])
        with torch.no_grad():
            means = [zeros if s is None else moments(self.vae, s)[0] for s in sources]
        self.edits = [source is not None for source in sources]
        self.source = torch.cat(means).half().float() / self.vae.latent_std
        return torch.from_numpy(np.stack(made)[:, None]), texts, seen

    def inputs(self, x_t: Tensor) -> Tensor:
        return torch.cat([x_t, self.source], dim=1)

    def spread(self, std: Tensor) -> Tensor:
        """What an edit is to make is the posterior's mean."""
        return std * torch.tensor([not edit for edit in self.edits])[:, None, None, None]


def data_of(config: dict) -> tuple[dict[tuple, np.ndarray], list[tuple]]:
    """The mel of every sound, and (sound to make, text, sound to edit) of every record."""
    mels, records = {}, []
    for dataset in config["dataset"]:
        folder = Path(config["preprocess"]["processed_dir"]) / dataset
        mels |= {(dataset, path.stem): np.load(path) for path in (folder / "mel").glob("*.npy")}
        for record in json.loads((folder / "train.json").read_text()):
            if "Task" in record:
                text, made, edited = (record[k] for k in ("Instruction", "Output", "Input"))
                records.append(((dataset, made), text, (dataset, edited)))
            else:
                records.append(((dataset, record["Uid"]), record["Caption"], None))
    return mels, records


def reference(root: Path, run: Path) -> Editing:
    """The plain implementation with the settings of `run`, at the weights that it began with."""
    config, start = golden.config_of(run), root / "runs/ldm/final"
    mels, records = data_of(config)
    vae = AutoencoderKL(tiny.load(root / "stage1.json").model.autoencoderkl)
    vae.load_state_dict(load_file(start / "vae/vae.safetensors"))
    model = tiny.load(root / "stage4.json").model
    unet = UNet(model.audioldm, NoiseSchedule(model.noise_scheduler))
    weights = load_file(start / "unet.safetensors")
    z = config["model"]["latent"][0]
    old, new = weights["conv_in.weight"], unet.conv_in.weight.detach()
    weights["conv_in.weight"] = torch.cat([old, torch.zeros_like(new[:, z:])], dim=1)
    unet.load_state_dict({**unet.state_dict(), **weights})  # with a new way past the network
    settings = config["model"]["text_encoder"]
    text = Text(
        T5EncoderModel.from_pretrained(start / "text_encoder"),
        AutoTokenizer.from_pretrained(start / "text_encoder"),
        settings["max_tokens"],
        frozen=settings["pretrained"] is not None,
    )
    stream = ClipStream(len(records), config["train"]["random_seed"])
    return Editing(config, vae, unet, text, (mels, records), stream)


@pytest.mark.parametrize("name", CASES)
def test_steps_of_the_editor_are_those_of_the_papers(edits, name, tmp_path):
    log, run = tmp_path / "log", edits / "runs" / name
    arguments = ("--config", edits / "stage4.json", "--exp_name", name, *SETTINGS, *CASES[name])
    started = f"train.init_from={edits}/runs/ldm"
    assert warm.run(log, *arguments, started) == 0, log.read_text()
    plain = reference(edits, run)
    began = golden.weights_2(plain, plain.adam.parameters)
    for step in range(STEPS):
        plain.step(step)
    of_edits = [kept for seen in plain.seen for edit, kept in seen["source"] if edit]
    assert 0 < sum(of_edits) < len(of_edits) < 4 * STEPS, "some dropped, some text-to-audio"
    if "frozen" in name:
        assert 0 < sum(sum(seen["dropped"]) for seen in plain.seen) < 4 * STEPS
    found = golden.learnt_2(run, STEPS)
    expected = golden.weights_2(plain, plain.adam.parameters)
    assert found.keys() - expected.keys() <= {"text_encoder.model.encoder.embed_tokens.weight"}
    golden.assert_reached(found, expected, began)
    golden.assert_curves(run, plain.seen)
