"""A sound for every reference: which caption, which seed, and what a second run does."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from bins.tta import evaluate as command
from models.tta.evaluation import generation
from models.tta.evaluation.features import BACKBONES
from models.tta.evaluation.mn04 import MN04
from models.tta.ldm.pipeline import load_pipeline
from models.tta.ldm.sampling import NOT_FINITE
from models.vocoders.load import load_vocoder
from tests import tiny
from utils.audio import read_wav, write_wav
from utils.errors import UserError


@pytest.fixture
def place(tmp_path):
    """Five prepared clips of a test split, two captions each, and mn04's weights."""
    folder = tmp_path / "data" / "Tiny"
    (folder / "wav").mkdir(parents=True)
    records = []
    for number in range(5):
        wav = np.random.default_rng(number).normal(0, 0.1, 5000)
        write_wav(folder / "wav" / f"-{number}.wav", wav, tiny.MEL.sample_rate)
        for caption in (f"a dog {number}", f"another {number}"):
            records.append({"Dataset": "Tiny", "Uid": f"-{number}", "Caption": caption})
    (folder / "test.json").write_text(json.dumps(records))
    torch.manual_seed(0)
    torch.save(MN04().state_dict(), tmp_path / BACKBONES["mn04"].file)
    return tmp_path


def run(monkeypatch, place, trained, *more):
    words = [f"--checkpoint_path={trained}/runs/ldm", "--reference=Tiny", f"--weights_dir={place}"]
    words += [f"--cache_dir={place}/cache", "--device=cpu", "--bootstrap=0", *more]
    words += [f"preprocess.processed_dir={place}/data", f"log_dir={place}/none"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    monkeypatch.chdir(place)
    config = tiny.ROOT / "egs/tta/autoencoderkl/exp_config.json"
    sys.argv += ["--config", str(config)]
    command.main()
    return place / "output" / "ldm_Tiny_test"


def test_the_first_caption_of_each_clip_with_its_own_seed(place, trained, monkeypatch, capsys):
    made = run(monkeypatch, place, trained, "--seed=7", "--num_steps=3", "--batch_size=2")
    said = capsys.readouterr().err
    assert f"model: {trained}/runs/ldm/final\nvocoder: griffin_lim\n" in said
    assert "\r" not in said  # without a terminal, progress is whole lines
    pipeline = load_pipeline(trained / "runs/ldm/final", "cpu")
    vocoder = load_vocoder("griffin_lim", tiny.MEL)
    sampling = pipeline.settings.sampling_with(num_steps=3)
    for number in range(5):
        receipt = json.loads((made / f"-{number}.json").read_text())
        assert (receipt["uid"], receipt["text"]) == (f"-{number}", f"a dog {number}")
        assert (receipt["seed"], receipt["num_steps"]) == (7 + number, 3)
        expected = vocoder(pipeline([f"a dog {number}"], [7 + number], sampling))[0]
        found = read_wav(made / f"-{number}.wav", tiny.MEL.sample_rate)
        np.testing.assert_allclose(found, expected, atol=2e-2)
        assert np.corrcoef(found, expected)[0, 1] > 0.99
    result = json.loads((made / "evaluation" / "evaluation.json").read_text())
    assert (result["protocol"]["generated"], result["pairs"]) == (5, 5)
    assert result["checks"]["missing"] == []


def test_what_is_there_is_kept_and_what_is_missing_is_made_the_same(place, trained, monkeypatch):
    made = run(monkeypatch, place, trained)
    before = {path.name: path.read_bytes() for path in made.glob("*.wav")}
    asked = []
    generate = generation.generate

    def counted(pipeline, vocoder, texts, *settings):
        asked.extend(texts)
        with pytest.raises(Timeout):  # a second program waits for this folder
            FileLock(made / ".lock").acquire(timeout=0)
        return generate(pipeline, vocoder, texts, *settings)

    monkeypatch.setattr(generation, "generate", counted)
    run(monkeypatch, place, trained)
    assert asked == []
    for number in (0, 2, 3):  # as a killed run leaves it: a receipt without its sound
        (made / f"-{number}.wav").unlink()
    run(monkeypatch, place, trained)
    assert asked == ["a dog 0", "a dog 2", "a dog 3"]
    for name, content in before.items():
        now, then = (np.frombuffer(x[44:], "<i2") for x in ((made / name).read_bytes(), content))
        assert np.abs(now.astype(int) - then).max() <= 400, name  # batches round otherwise
        assert np.corrcoef(now, then)[0, 1] > 0.99


def test_a_receipt_from_before_a_setting_means_its_default(place, trained, monkeypatch):
    made = run(monkeypatch, place, trained)
    for path in made.glob("-*.json"):
        receipt = json.loads(path.read_text())
        for name in ("guidance_mean", "region", "vae_weights", "vocoder_weights"):
            del receipt[name]
        path.write_text(json.dumps(receipt))
    before = {path.name: path.stat().st_mtime_ns for path in made.glob("*.wav")}
    run(monkeypatch, place, trained)
    assert {path.name: path.stat().st_mtime_ns for path in made.glob("*.wav")} == before
    with pytest.raises(UserError, match=r"made with guidance_mean 1\.0, not 0\.5"):
        run(monkeypatch, place, trained, "--guidance_mean=0.5")


def test_sounds_made_in_another_way_are_not_mixed(place, trained, monkeypatch):
    run(monkeypatch, place, trained)
    with pytest.raises(UserError, match="num_steps 2, not 4; give another folder by --generated"):
        run(monkeypatch, place, trained, "--num_steps=4")
    with pytest.raises(UserError, match="--num_steps 9999 must be at most 1000"):
        run(monkeypatch, place, trained, "--num_steps=9999")


def test_the_receipt_of_what_came_out_wrong_says_so(place, trained, monkeypatch):
    generate = generation.generate

    def wrong(*asked):
        return (dataclasses.replace(sound, finite=False) for sound in generate(*asked))

    monkeypatch.setattr(generation, "generate", wrong)
    receipt = json.loads((run(monkeypatch, place, trained) / "-0.json").read_text())
    assert receipt["warning"] == NOT_FINITE


@pytest.mark.parametrize("part", ["vae", "vocoder"])
def test_sounds_of_another_vae_or_vocoder_at_the_same_place(place, trained, monkeypatch, part):
    made = run(monkeypatch, place, trained)
    path = made / "-0.json"
    receipt = json.loads(path.read_text())
    path.write_text(json.dumps({**receipt, f"{part}_weights": "of before"}))
    with pytest.raises(UserError, match=f"{part}_weights 'of before', not '[0-9a-f]{{12}}'"):
        run(monkeypatch, place, trained)


def test_there_must_be_something_to_evaluate(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--reference", "Tiny"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--generated DIR or --checkpoint_path RUN" in capsys.readouterr().err


def test_names_of_runs(tmp_path):
    run_folder = tmp_path / "small"
    assert generation.run_name(run_folder / "final") == "small"
    assert (
        generation.run_name(run_folder / "checkpoints" / "step-00000005") == "small_step-00000005"
    )
    assert generation.run_name(tmp_path / "imported") == "imported"
