"""The vocoder: steps of the real program against the papers' equations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from models.vocoders.discriminators import Discriminators
from models.vocoders.vocos import Vocos
from processors.stream import ClipStream
from tests import golden, tiny
from tests.reference_vocoder import Vocoder

CASES = {
    "mel error alone": (3, ("model.loss.disc_start=100",)),
    "discriminators from disc_start on": (
        4,
        (
            *("model.loss.disc_start=1", "model.loss.feature_weight=300"),
            "model.loss.adversarial_weight=900",  # so that its part is as large as the mel error's
        ),
    ),
    "two micro-batches": (
        3,
        ("model.loss.disc_start=0", "train.gradient_accumulation_steps=2"),
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("golden3")
    golden.write_place(root)
    golden.train(root, 3, golden.STARTED, *golden.STILL)
    return root


def reference(root: Path, run: Path) -> Vocoder:
    """The plain implementation with the settings of `run`, at the weights that it began with."""
    config, (mels, _) = golden.config_of(run), golden.data_of(golden.config_of(run))
    model = tiny.load(root / "stage3.json").model
    generator = Vocos(
        tiny.MEL, model.vocos.dim, model.vocos.intermediate_dim, model.vocos.num_layers
    )
    sizes = model.discriminators
    discriminators = Discriminators(sizes.period_channels, sizes.resolution_channels)
    begin = golden.checkpoint(root / "runs" / golden.STARTED, 1) / "learning.safetensors"
    for name, module in (("generator", generator), ("discriminator", discriminators)):
        module.load_state_dict(golden._below(name, load_file(begin)))
    folder = root / "data" / "Tiny" / "pcm"
    clips = [(mel, np.load(folder / f"clip {number}.npy")) for number, mel in enumerate(mels)]
    stream = ClipStream(len(clips), config["train"]["random_seed"])
    return Vocoder(config, generator, discriminators, clips, stream)


def weights(reference: Vocoder) -> dict:
    found = {f"generator.{k}": v for k, v in reference.generator.named_parameters()}
    found |= {f"discriminator.{k}": v for k, v in reference.discriminators.named_parameters()}
    names = [name for name, _ in reference.generator.named_parameters()]
    averages = zip(names, reference.average.shadow, strict=True)
    found |= {f"average.{name}": value for name, value in averages}
    return {name: value.detach().clone() for name, value in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_papers(place, name):
    steps, changes = CASES[name]
    ends = (f"train.max_steps={steps}", f"train.save_checkpoints_steps={steps}")
    run = golden.train(place, 3, name, *changes, *ends)
    expected = reference(place, run)
    began = weights(expected)
    for step in range(steps):
        expected.step(step)
    played = [seen for seen in expected.seen if "d_loss" in seen]
    assert len(played) == {"mel error alone": 0}.get(name, 3)
    folder = golden.checkpoint(run, steps)
    found = load_file(folder / "learning.safetensors")
    found |= {f"average.{k}": v for k, v in load_file(folder / "vocoder.safetensors").items()}
    assert found.keys() == weights(expected).keys()
    golden.assert_reached(found, weights(expected), began)
    golden.assert_curves(run, expected.seen)
