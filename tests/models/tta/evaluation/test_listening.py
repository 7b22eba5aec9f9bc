"""What a training says of the sounds that it logs."""

import numpy as np
import pytest
import torch

from models.base.task import Sample
from models.tta.evaluation.features import BACKBONES
from models.tta.evaluation.listening import Tagger
from models.tta.evaluation.mn04 import MN04
from tests import tiny, warm
from tests.compare import scalars
from utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = MN04()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)  # or the classes of all sounds are alike
    path = tmp_path_factory.mktemp("weights") / BACKBONES["mn04"].file
    torch.save(net.state_dict(), path)
    return path


def test_each_sound_is_compared_with_the_original_of_its_clip(weights):
    tagger = Tagger(str(weights), 16000, torch.device("cpu"))
    time = np.arange(16000) / 16000
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    tone = (0.2 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)
    mel = np.zeros((1, 1), np.float32)
    wavs = {"0/original": noise, "0/half": noise / 2, "0/same": noise}
    wavs |= {"1/original": tone, "1/half": tone / 2, "a dog/barks": tone, "1/same": tone}
    scores = tagger.scores([Sample(name, mel, wav) for name, wav in wavs.items()])
    assert scores.keys() == {"KL_half", "level_half", "KL_same", "level_same"}
    assert scores["KL_same"] == scores["level_same"] == 0
    assert scores["level_half"] == pytest.approx(20 * np.log10(0.5))
    heard = [[tagger._hear(wav)[0].double() for wav in (x, x / 2)] for x in (noise, tone)]
    kl = [(p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum().item() for p, q in heard]
    assert scores["KL_half"] == pytest.approx(np.mean(kl), rel=1e-6)
    assert min(kl) > 0


def test_a_training_reports_it(weights, tmp_path):
    """Stage 2: sounds of held-out captions beside their clips, in TensorBoard."""
    tiny.write_data(tmp_path)
    for stage, name, tags in (
        (1, "vae", {"sounds/KL_reconstruction", "sounds/level_reconstruction"}),
        (2, "ldm", {"sounds/KL_generated", "sounds/level_generated"}),
    ):
        config = tiny.write_config(tmp_path, stage, sample_interval=2, max_steps=2)
        log = tmp_path / f"{name}.log"
        arguments = ["--config", config, "--exp_name", name, f"train.evaluation={weights}"]
        assert warm.run(log, *arguments) == 0, log.read_text()
        found = scalars(tmp_path / "runs" / name)
        assert tags <= found.keys()
        assert all(np.isfinite(value) for tag in tags for _, value in found[tag])


def test_weights_that_are_not_there_are_named():
    with pytest.raises(
        UserError, match=r"train.evaluation nowhere.pt: no such file; it is mn04_as_mAP_432.pt"
    ):
        Tagger("nowhere.pt", 16000, torch.device("cpu"))
