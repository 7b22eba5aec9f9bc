"""Adapters of published pipelines: AudioLDM's kind of U-Net and Tango's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bins.tta.train import make_task
from models.base.accelerator import make_accelerator
from models.tta.convert.published import find_model
from models.tta.ldm.lora import Adapter, adapter_tensors
from models.tta.ldm.pipeline import PipelineSettings, read_pipeline
from tests import tiny
from tests.models.tta.convert import test_published
from tests.models.tta.convert.test_published import TEXTS, Tango

FRAMES, LATENT = 32, (2, 8, 16, 8)
audioldm_pipeline = test_published.audioldm_pipeline


@pytest.fixture(params=["AudioLDM", "Tango"])
def published(request, tmp_path) -> Path:
    if request.param == "Tango":
        return Tango().write(tmp_path / "tango")
    return request.getfixturevalue("audioldm_pipeline")[1]


def config_for(published: Path, root: Path):
    """The config that suits it; its few keys are those that a refusal would name."""
    folder = root / "data/Tiny"
    (folder / "mel").mkdir(parents=True)
    np.save(folder / "mel/0.npy", np.zeros((64, FRAMES), np.float32))
    record = {"Dataset": "Tiny", "Uid": "0", "Caption": TEXTS[0]}
    for split, records in (("train", [record]), ("valid", [])):
        (folder / f"{split}.json").write_text(json.dumps(records))
    found = PipelineSettings.read(find_model(str(published), str(root)))
    clap = found.unet.class_embed_dim is not None
    name = "exp_config_clap.json" if clap else "exp_config_audioldm_vae.json"
    model = {
        "latent": LATENT[1:],
        "audioldm": dataclasses.asdict(found.unet),
        "noise_scheduler": dataclasses.asdict(found.noise_scheduler),
    }
    lora = {"rank": 2, "alpha": 2, "target": "all"}
    changes = {
        **{"dataset": ["Tiny"], "log_dir": str(root), "model": model},
        "preprocess": {"processed_dir": str(root / "data"), "segment_frames": FRAMES},
        "train": {"init_from": str(published), "lora": lora, "mixed_precision": "no"},
    }
    return tiny.load(tiny.ROOT / "egs/tta/audioldm" / name, changes)


def test_a_published_pipeline_learns_by_adapters(published, tmp_path):
    config = config_for(published, tmp_path)
    task = make_task(config, make_accelerator(config), None)
    base = find_model(str(published), str(tmp_path))
    text, mask = task.text_encoder.encode(TEXTS)
    latent, noise, times = torch.randn(LATENT), torch.randn(LATENT), torch.tensor([3, 800])
    with torch.no_grad():
        before = task.unet(latent, times, text, mask)
        for tensor in adapter_tensors(task.unet).values():
            tensor.normal_(0, 0.1)
    task.objective(latent, noise, times, text, mask).mean().backward()
    for name, parameter in task.objective.named_parameters():
        assert (parameter.grad is not None and parameter.grad.any()) == (".lora_" in name), name
    (tmp_path / "lora").mkdir()
    task.save_for_inference(tmp_path / "lora")
    with torch.no_grad():
        pipeline = read_pipeline(base, adapters=[Adapter.find(str(tmp_path / "lora"))])
        found, expected = (u(latent, times, text, mask) for u in (pipeline.unet, task.unet))
    assert (expected - before).std() > 0.1 * expected.std()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert pipeline.settings == PipelineSettings.read(base)
