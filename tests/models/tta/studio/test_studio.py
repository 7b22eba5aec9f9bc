"""What the studio makes, keeps and refuses, without its page."""

from __future__ import annotations

import io
import json
import os
import shutil
import wave
import zipfile
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

from models.tta.ldm.lora import Adapter
from models.tta.ldm.pipeline import load_pipeline
from models.tta.ldm.sampling import SAMPLERS, generate
from models.tta.studio import studio as studio_module
from models.tta.studio.history import History
from models.tta.studio.shelf import Limits, Shelf, Wish
from models.tta.studio.studio import Studio
from models.vocoders.load import load_vocoder
from tests.models.tta.convert.test_published import Tango
from tests.models.tta.studio.conftest import results
from utils.audio import write_wav
from utils.errors import UserError

QUICK = {"duration": 0.1, "num_steps": 2, "seed": 7}


def make(studio, model, count=1, person="", text="a dog", **settings) -> list:
    settings = {**QUICK, **settings}
    return results(studio.submit(person, "s", text, model, None, count, **settings))


def test_sounds_are_those_of_the_library_call(studio, runs, tmp_path):
    first, second = make(studio, f"{runs}/one", 2)
    pipeline = load_pipeline(runs / "one" / "final", "cpu")
    settings = pipeline.settings.sampling_with(**QUICK)
    vocoder = load_vocoder("griffin_lim", pipeline.settings.mel)
    wanted = generate(pipeline, vocoder, ["a dog", "a dog"], settings, batch_size=1)
    for kept, sound in zip((first, second), wanted, strict=True):
        write_wav(tmp_path / "wanted.wav", sound.wav, pipeline.settings.mel.sample_rate)
        bits = studio.history.file("", f"{kept.number}.wav").read_bytes()
        assert bits == (tmp_path / "wanted.wav").read_bytes()
        assert kept.receipt["seed"] == sound.seed
    assert first.receipt["seed"] == 7
    assert second.receipt["seed"] == 8


def test_the_model_that_was_asked_for_makes_the_sound(studio, runs):
    """One is in memory at a time, and none is taken for the other."""
    order = ["one", "other", "one", "other"]
    kept = [make(studio, f"{runs}/{name}")[0] for name in order]
    bits = [studio.history.file("", f"{k.number}.wav").read_bytes() for k in kept]
    assert bits[0] == bits[2] != bits[1] == bits[3]
    assert kept[0].receipt["weights"] != kept[1].receipt["weights"]
    assert "warning" not in kept[0].receipt
    [unknown] = make(studio, f"{runs}/one", text="Ein Hund bellt")
    assert "(ein, hund, bellt)" in unknown.receipt["warning"]


def test_adapters_are_added_to_their_own_model_alone(studio, runs, adapters, tmp_path):
    model, lora = f"{runs}/one", f"{adapters}/lora"
    studio.shelf.log_dirs.append(str(adapters))
    assert list(studio.shelf.adapters(model)) == [lora]
    assert studio.shelf.adapters(f"{runs}/other") == {}
    assert lora not in studio.shelf.models()
    [plain], [half] = make(studio, model), make(studio, model, lora=[f"{lora}:0.5"])
    used = Adapter.find(f"{lora}:0.5")
    pipeline = load_pipeline(runs / "one" / "final", "cpu", adapters=[used])
    settings = pipeline.settings.sampling_with(**QUICK)
    vocoder = load_vocoder("griffin_lim", pipeline.settings.mel)
    [wanted] = generate(pipeline, vocoder, ["a dog"], settings)
    write_wav(tmp_path / "wanted.wav", wanted.wav, pipeline.settings.mel.sample_rate)
    bits = [studio.history.file("", f"{kept.number}.wav").read_bytes() for kept in (plain, half)]
    assert bits[0] != bits[1] == (tmp_path / "wanted.wav").read_bytes()
    assert half.receipt["lora"] == [used.receipt()]
    assert "lora" not in plain.receipt
    assert Wish.of_receipt(half.receipt).adapters == (used,)
    jobs = [studio.replay("", "s", kept) for kept in (half, plain, half)]
    assert results(jobs) == [studio_module.SAME] * 3


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (["/etc"], "adapters '/etc' are not there, or of another model"),
        (["ADAPTERS/lora:9"], "lora:9': the number must be one from 0 to 2"),
        (["ADAPTERS/lora:nan"], "lora:nan': the number must be one from 0 to 2"),
        (["ADAPTERS/lora"] * 9, "adapters: 9; at most 8 here"),
        ("x", "adapters: must be a list of names"),
        ([3], "adapters: must be a list of names"),
    ],
)
def test_adapters_that_are_refused(studio, runs, adapters, lora, message):
    studio.shelf.log_dirs.append(str(adapters))
    if isinstance(lora, list):
        lora = [str(part).replace("ADAPTERS", str(adapters)) if part != 3 else 3 for part in lora]
    with pytest.raises(UserError) as caught:
        studio.submit("", "s", "a dog", f"{runs}/one", None, 1, lora=lora, **QUICK)
    assert message in str(caught.value)


def test_what_is_no_sound_is_not_kept(studio, runs):
    """Guidance beyond all measure gives numbers that are none."""
    [job] = studio.submit("", "s", "a", f"{runs}/one", None, 1, **QUICK, guidance_scale=1e35)
    while not job.ended:
        job.look()
    assert job.fault == "what came of it is not finite: ask for less guidance"
    assert studio.history.count("") == 0


def test_replay_gives_the_same_bits_and_says_where_they_differ(studio, runs):
    [kept] = make(studio, f"{runs}/one")
    assert results([studio.replay("", "s", kept)]) == [studio_module.SAME]
    path = studio.history.file("", f"{kept.number}.wav")
    with wave.open(str(path)) as file:
        rate, count = file.getframerate(), file.getnframes()
    write_wav(path, np.zeros(count), rate)
    [note] = results([studio.replay("", "s", kept)])
    assert note.startswith("not the same bits")


def test_replay_with_other_weights_is_refused(studio, runs, tmp_path):
    run = tmp_path / "runs" / "mine"
    shutil.copytree(runs / "one", run)
    studio.shelf.log_dirs.append(str(tmp_path / "runs"))
    [kept] = make(studio, str(run))
    weights = "final/unet.safetensors"
    shutil.copy(runs / "other" / weights, run / weights)  # as where the training went on
    job = studio.replay("", "s", kept)
    while not job.ended:
        job.look()
    assert job.fault == f"{run}/final: the weights have changed since"
    shutil.rmtree(run)
    job = studio.replay("", "s", kept)
    while not job.ended:
        job.look()
    assert job.fault == f"{run}/final: the model is no longer there"


def test_a_receipt_is_the_wish_again(studio, runs):
    [wish] = studio.shelf.wishes("a  dog\n", f"{runs}/one", None, 1, **QUICK, negative_text=" rain")
    assert (wish.text, wish.sampling.negative_text) == ("a dog", "rain")
    [kept] = make(studio, f"{runs}/one", negative_text="rain")
    assert Wish.of_receipt(kept.receipt) == wish


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "there is no text"),
        ({"text": " \n\t"}, "there is no text"),
        ({"text": None}, "text: must be text, not NoneType"),
        ({"text": ["a"]}, "text: must be text, not list"),
        ({"text": "a" * 1001}, "text: 1001 characters; at most 1000 here"),
        ({"negative_text": "a" * 1001}, "negative text: 1001 characters; at most 1000"),
        ({"text": "\ud800"}, "text: must be text in UTF-8"),
        ({"count": 0}, "number of sounds: 0 must be a whole number, 1 to 3"),
        ({"count": 4}, "number of sounds: 4 must"),
        ({"count": 1.5}, "number of sounds: 1.5 must"),
        ({"count": None}, "number of sounds: None must"),
        ({"duration": 0}, "duration"),
        ({"duration": -1.0}, "duration"),
        ({"duration": float("nan")}, "duration"),
        ({"duration": 1.01}, "duration: 1.01 s; at most 1 s here"),
        ({"duration": "long"}, "duration"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 21}, "num_steps: 21; at most 20 here"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"sampler": "euler"}, "sampler"),
        ({"model": "/etc"}, "model '/etc' is not there; choose one from the list"),
        ({"model": ""}, "model '' is not there"),
        ({"model": ["x"]}, "model"),
        ({"vocoder": "/etc"}, "vocoder '/etc' is not there"),
        ({"vocoder": "../x"}, "vocoder '../x' is not there"),
    ],
)
def test_what_is_refused(studio, runs, changes, message):
    """In words, before anything is made or written."""
    wish = {"text": "a dog", "model": f"{runs}/one", "vocoder": None, "count": 1, **QUICK}
    with pytest.raises(UserError) as caught:
        studio.submit("", "s", **{**wish, **changes})
    assert message in str(caught.value)
    assert not studio.history.folder.exists()


def test_runs_appear_with_their_first_weights(studio, runs, tmp_path):
    assert set(studio.shelf.models()) == {f"{runs}/one", f"{runs}/other"}
    studio.shelf.log_dirs.append(str(tmp_path))
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    assert f"{tmp_path}/new" not in studio.shelf.models()
    weights = tmp_path / "new" / "checkpoints" / "step-00000003"
    shutil.copytree(runs / "one" / "final", weights, copy_function=shutil.copyfile)
    os.utime(weights)
    assert next(iter(studio.shelf.models())) == f"{tmp_path}/new"
    [kept] = make(studio, None)  # a click before the page has chosen
    assert kept.receipt["checkpoint"] == str(weights)
    studio.shelf.log_dirs.clear()
    with pytest.raises(UserError, match="model None is not there"):
        make(studio, None)


def test_a_published_model_is_named_as_on_the_hub(runs, tmp_path, monkeypatch):
    folder = Tango().write(tmp_path / "tango")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(folder))
    log_dirs, cpu = [str(tmp_path / "runs"), str(runs)], torch.device("cpu")
    studio = Studio(Shelf(log_dirs, ["owner/tango"], cpu, Limits()), tmp_path / "studio")
    assert next(iter(studio.shelf.models())) == "owner/tango"
    [kept] = make(studio, None)  # the first on the list, with its own vocoder
    assert Path(kept.receipt["checkpoint"]).parent == tmp_path / "runs" / "imported"
    assert kept.receipt["vocoder"] == studio.shelf.vocoders("owner/tango")[0] != "griffin_lim"
    assert results([studio.replay("", "s", kept)]) == [studio_module.SAME]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_told_and_any_can_be_the_last(runs, sampler):
    pipeline = load_pipeline(runs / "one" / "final", "cpu")

    class Enough(Exception):
        pass

    told = []

    def on_step(done: int, steps: int) -> None:
        told.append((done, steps))
        if len(told) == 7:
            raise Enough

    settings = pipeline.settings.sampling_with(sampler=sampler, num_steps=4)
    pipeline(["a dog"], [0], settings, on_step=on_step)
    steps = 5 if sampler == "pndm" else 4  # its second step is taken twice
    assert told == [(done, steps) for done in range(1, steps + 1)]
    with pytest.raises(Enough):
        pipeline(["a dog"], [0], settings, on_step=on_step)
    assert len(told) == 7


# ---------------------------------------------------------------- history


def test_history_is_a_folder_that_survives_and_belongs_to_a_person(studio, runs, tmp_path):
    mine = make(studio, f"{runs}/one", 2, "../../me")
    make(studio, f"{runs}/one", 1, "you")
    again = History(tmp_path / "studio")
    assert [kept.number for kept in again.newest("../../me")] == ["0001", "0000"]
    assert again.newest("../../me", 1, 5) == [mine[0]]
    assert (again.count("../../me"), again.count("you"), again.count("nobody")) == (2, 1, 0)
    inside = [path for path in (tmp_path / "studio").rglob("*") if path.is_file()]
    assert len(inside) == 9
    everywhere = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(everywhere) == 9  # nothing beside the folder
    content = io.BytesIO()
    again.zip_into(content, "../../me")
    with zipfile.ZipFile(content) as archive:
        names = [f"{n}.{e}" for n in ("0000", "0001") for e in ("json", "png", "wav")]
        assert archive.namelist() == names
        assert json.loads(archive.read("0001.json")) == mine[1].receipt


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "../x/0000.wav",
        "/etc/passwd",
        "0000.txt",
        "0001.wav",
        "",
        ".",
        "0000.wav/",
        "٣.wav",
    ],
)
def test_only_numbers_are_files_of_the_history(studio, name):
    studio.history.of("x").mkdir(parents=True)
    for ending in ("wav", "txt"):
        (studio.history.of("x") / f"0000.{ending}").touch()
    assert studio.history.file("x", "0000.wav").is_file()
    with pytest.raises(UserError, match="there is no such sound"):
        studio.history.file("x", name)
