"""A flow map of an editor, and what validation holds it to: the teacher's own guided way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from models.tta.editing.distil import EditorDistillation
from models.tta.editing.pipeline import Editor, EditSettings
from models.tta.ldm.known import Known
from models.tta.ldm.pipeline import load_pipeline
from models.tta.ldm.sampling import make_scheduler, sample, starting_noise
from tests import tiny
from tests.models.tta.editing.test_training_editing import make
from utils.errors import UserError

FLOW = {"prediction_type": "flow_prediction"}


@pytest.fixture(scope="module")
def place(edits, tmp_path_factory) -> Path:
    """<root>/teacher: the editor, as if it went along a flow, guided by text and sound."""
    root = tmp_path_factory.mktemp("distil")
    shutil.copytree(edits / "runs/audit/final", root / "teacher")
    settings = json.loads((root / "teacher/pipeline.json").read_text())
    settings["noise_scheduler"] |= FLOW
    settings["sampling"] |= {"guidance_scale": 3.0, "source_guidance": 1.5, "guidance_mean": 0.5}
    (root / "teacher/pipeline.json").write_text(json.dumps(settings))
    return root


def config_of(edits, teacher, **model):
    model = {
        "audioldm": {"span_embedding": True},
        "noise_scheduler": FLOW,
        "flow_map": {"guidance_scale": None, "jump_every": 2},
        **model,
    }
    inference = {"sampler": "euler", "num_steps": 4, "guidance_scale": 1}
    changes = {
        "model": model,
        "inference": inference,
        "train": {"init_from": str(teacher), "valid_clips": 4},
    }
    return tiny.load(edits / "stage4.json", changes)


@pytest.fixture(scope="module")
def task(edits, place) -> EditorDistillation:
    return make(config_of(edits, place / "teacher"), place / "cache")


def test_validation_goes_beside_the_guided_way_that_the_teacher_samples(place, task):
    """By the editor's own sampling, with both guidances; from the same noise, in 32 steps."""
    found, numbers = task.validate(), range(4)
    assert len(found) == 8
    assert found["loss"] == pytest.approx(sum(found[name] for name in found if name != "loss") / 7)
    first = len(task.train_records)
    batch = task._batch([first + n for n in numbers], [None] * len(numbers))
    noise, source = task._draw_for_clips(numbers)[2], task._source(batch)
    texts = [task.valid_records[n]["Caption"] for n in numbers]
    teacher: Editor = load_pipeline(place / "teacher", "cpu", Editor)
    settings = dataclasses.replace(teacher.settings.sampling, sampler="euler", num_steps=32)
    assert isinstance(settings, EditSettings)
    denoise = teacher.denoiser(texts, settings, noise, Known(source, torch.ones(8, 8).bool()))
    with torch.no_grad():
        schedule = teacher.settings.noise_scheduler
        expected = sample(denoise, make_scheduler("euler", schedule, 32), noise)
        # Cached states of texts are in half precision.
        way = task._ways[0]
        torch.testing.assert_close(way[0], expected, rtol=0.01, atol=0.01)
        # At the beginning the flow map is the teacher without guidance, in one step of Euler's.
        plain = dataclasses.replace(settings, guidance_scale=1.0, source_guidance=1.0)
        denoise = teacher.denoiser(texts, plain, noise, Known(source, torch.ones(8, 8).bool()))
        once = sample(denoise, make_scheduler("euler", schedule, 1), noise)
    missed = (once - way[0]).square().mean((1, 2, 3))
    torch.testing.assert_close(task._jump_errors(numbers)[:, 0], missed, rtol=0.02, atol=1e-3)
    assert torch.equal(task.validate()["loss"] * torch.ones(1), found["loss"] * torch.ones(1))


def test_it_learns_and_what_it_writes_samples_without_the_teacher(edits, place, task):
    batch = next(task.batches(0))
    before = [parameter.clone() for parameter in task._teacher_unet.parameters()]
    for step in range(3):
        (loss,) = task.losses(batch, step, 0)
        loss.value.backward()
        task.optimizers["unet"].step()
        task.optimizers["unet"].zero_grad()
        assert {"loss", "error_velocity"} < loss.metrics.keys()
        assert loss.metrics["loss"].isfinite()
    assert task.unet.time_embedding.cond_proj.weight.any()
    assert all(map(torch.equal, task._teacher_unet.parameters(), before))
    assert not any(p.requires_grad for p in task.text_encoder.parameters())
    (place / "map").mkdir()
    task.save_for_inference(place / "map")
    written = load_pipeline(place / "map", "cpu", Editor)
    settings = written.settings.sampling
    assert (settings.sampler, settings.num_steps, settings.guidance_scale) == ("euler", 4, 1)
    noise = starting_noise((2, 8, 8), [1], torch.device("cpu"))
    denoise, seen = written.denoiser(["add a dog"], settings, noise, None), []
    with torch.no_grad():
        one = denoise(noise, torch.tensor([1000.0, 0.0]))
        seen = denoise(noise, torch.tensor([1000.0, 1000.0]))
    assert (one - seen).abs().max() > 1e-6, "it hears where a step ends"
    assert written(["add a dog"], [1], dataclasses.replace(settings, num_steps=1)).isfinite().all()


def test_what_cannot_be_a_teacher_is_refused(edits, place, tmp_path):
    with pytest.raises(
        UserError, match="predicts epsilon, and a flow map is made of a model along"
    ):
        make(config_of(edits, edits / "runs/audit"), tmp_path)
    shutil.copytree(place / "teacher", tmp_path / "map")
    settings = json.loads((tmp_path / "map/pipeline.json").read_text())
    settings["unet"]["span_embedding"] = True
    (tmp_path / "map/pipeline.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"is a flow map; train\.init_from must"):
        make(config_of(edits, tmp_path / "map"), tmp_path)
    thirds = {"guidance_scale": None, "jump_every": 3}
    with pytest.raises(UserError, match="jump_every 3 must divide 4"):
        make(config_of(edits, place / "teacher", flow_map=thirds), tmp_path)
    with pytest.raises(UserError, match="do not fit: a flow map has all three"):
        config_of(edits, place / "teacher", flow_map=None)
    with pytest.raises(UserError, match="init_from null must name the run that a flow map"):
        tiny.load(
            edits / "stage4.json",
            {
                "model": {
                    "audioldm": {"span_embedding": True},
                    "noise_scheduler": FLOW,
                    "flow_map": {"guidance_scale": 2, "jump_every": 2},
                },
                "inference": {"sampler": "euler"},
                "train": {"init_from": None},
            },
        )
