"""The editor's part of the loop: what it starts from, draws and makes of a batch."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bins.tta.train import make_task
from models.base.accelerator import make_accelerator
from models.tta.editing.training import AUDITTraining
from models.tta.editing.vocabulary import learn_words
from models.tta.ldm.text_encoder import TextEncoder
from processors.edits import edit_examples, sounds_of
from processors.metadata import load_split, mel_path
from tests import tiny
from tests.compare import scalars
from utils.checkpoint import read_json
from utils.errors import UserError


def config_of(edits, **model):
    """The editor's config, with changes of `model`."""
    return tiny.load(edits / "stage4.json", {"model": model})


def make(config, cache, checkpoint=None) -> AUDITTraining:
    torch.manual_seed(0)
    task = make_task(config, make_accelerator(config), checkpoint)
    task.prepare_data(cache)
    return task


@pytest.fixture(scope="module")
def task(edits, tmp_path_factory) -> AUDITTraining:
    config = config_of(edits, caption_dropout=0.3, source_dropout=0.4)
    return make(config, tmp_path_factory.mktemp("cache"))


# ---------------------------------------------------------------- data


def test_examples_are_edits_and_captioned_sounds(edits):
    config = config_of(edits)
    records = edit_examples(load_split(config, "train", sounds_of))
    drop = next(record for record in records if record["Task"] == "drop")
    assert (drop["Uid"], drop["Source"], drop["Caption"]) == ("1_out", "1_in", "drop a cat")
    (made,) = {record["Source"] for record in records if record["Task"] == "text_to_audio"}
    assert made is None
    assert {record["Task"] for record in records} == {*tiny.TASKS, "text_to_audio"}


def test_stage_1_learns_from_the_sounds_of_edits(edits):
    """Each of them once, whether it is edited or made or both."""
    config = dataclasses.replace(tiny.load(edits / "stage1.json"), dataset=["TinyEdits", "Tiny"])
    task = make_task(config, make_accelerator(config), None)
    sounds = Counter((record["Dataset"], record["Uid"]) for record in task.train_records)
    records = read_json(edits / "data/TinyEdits/train.json", list)
    wanted = {("TinyEdits", r[end]) for r in records for end in ("Input", "Output")}
    wanted |= {("Tiny", r["Uid"]) for r in read_json(edits / "data/Tiny/train.json", list)}
    assert sounds == Counter(wanted)
    assert all(mel_path(config, record).is_file() for record in task.train_records)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Task": "louder"}, "Task 'louder' must be one of add, drop"),
        ({"Input": 3}, "Input must be text, not 3"),
        ({"Output": "../x"}, r"Output '../x' must not hold"),
        ({"Instruction": " "}, "Instruction must not be empty"),
        ({"Output": "0_in"}, "Input and Output are one sound, '0_in', and Task is not keep"),
    ],
)
def test_an_edit_that_is_not_as_it_must_be(edits, tmp_path, change, said):
    records = read_json(edits / "data/TinyEdits/train.json", list)
    write_copy(edits, tmp_path, [{**records[0], **change}])
    config = tiny.load(edits / "stage4.json", {"preprocess": {"processed_dir": str(tmp_path)}})
    with pytest.raises(UserError, match=f"TinyEdits: edit '0': {said}"):
        load_split(dataclasses.replace(config, dataset=["TinyEdits"]), "train", sounds_of)


def write_copy(edits, folder, train: list[dict]) -> None:
    shutil.copytree(edits / "data/TinyEdits", folder / "TinyEdits")
    (folder / "TinyEdits/train.json").write_text(json.dumps(train))


def test_a_data_set_without_edits_is_refused(edits, tmp_path):
    config = dataclasses.replace(config_of(edits), dataset=["Tiny"])
    with pytest.raises(UserError, match=r"no edits in train.json; to make some, run: sh egs/tta/"):
        make(config, tmp_path / "cache")


def test_input_and_output_must_be_equally_long(edits, tmp_path):
    records = read_json(edits / "data/TinyEdits/train.json", list)
    write_copy(edits, tmp_path, records)
    np.save(tmp_path / "TinyEdits/mel/1_out.npy", np.zeros((16, 40), np.float32))
    changes = {"preprocess": {"processed_dir": str(tmp_path)}, "dataset": ["TinyEdits"]}
    config = tiny.load(edits / "stage4.json", changes)
    with pytest.raises(UserError, match="1_in and 1_out, input and output of an edit, must be"):
        make(config, tmp_path / "cache")


def test_text_and_source_are_dropped_at_their_rates_and_independently(task):
    empty, _ = task.text_encoder.tokenize([""])
    texts, sources = [], []
    for batch in itertools.islice(task.batches(0), 300):
        for row, uid, seen in zip(batch["token_ids"], batch["uid"], batch["edits"], strict=True):
            if uid.endswith(("_out", "_in")):
                texts.append(torch.equal(row, empty[0]))
                sources.append(not seen)
            else:
                assert not seen  # a captioned sound has none
    texts, sources = np.array(texts), np.array(sources)
    assert texts.mean() == pytest.approx(0.3, abs=0.07)
    assert sources.mean() == pytest.approx(0.4, abs=0.07)
    assert (texts & sources).mean() == pytest.approx(0.12, abs=0.05)


def test_the_source_is_the_same_window_of_the_input(task):
    """Of sounds of several windows; what is dropped is zero."""
    seen = set()
    for batch in itertools.islice(task.batches(0), 40):
        source = task._source(batch)
        for place, uid in enumerate(batch["uid"]):
            if not batch["edits"][place]:
                assert not source[place].any()
                continue
            name = uid.replace("_out", "_in")
            (clip,) = [n for n, sound in enumerate(task.examples.clips) if sound["Uid"] == name]
            (made,) = [n for n, sound in enumerate(task.examples.clips) if sound["Uid"] == uid]
            window = batch["windows"][place] - task.latents.first[made]
            mean = task.latents.posteriors([task.latents.first[clip] + window])[0, 0].float()
            torch.testing.assert_close(source[place], mean / task.vae.latent_std)
            seen.add((uid, int(window)))
    assert len({window for uid, window in seen if uid == "2_out"}) > 1


def test_what_an_edit_is_to_make_is_not_drawn(task):
    """Its latent is the posterior's mean, as the source's is; a captioned sound's is drawn."""
    for batch in itertools.islice(task.batches(0), 20):
        spread = batch["posterior"][:, 1]
        stored = task.latents.posteriors(batch["windows"])
        assert torch.equal(batch["posterior"][:, 0], stored[:, 0])
        for place, edit in enumerate(batch["edits"]):
            wanted = torch.zeros_like(spread[place]) if edit else stored[place, 1]
            assert torch.equal(spread[place], wanted)
            assert stored[place, 1].all()


# ---------------------------------------------------------------- what it starts from


def test_it_takes_vae_and_text_encoder_along(edits):
    log = (edits / "runs/audit/log.txt").read_text()
    assert f"starts from the weights in {edits}/runs/ldm/final" in log
    assert f"takes the VAE in {edits}/runs/ldm/final/vae" in log
    made_with = read_json(edits / "runs/audit/final/config.json")["made_with"]
    assert made_with["init_from"] == str((edits / "runs/ldm/final").resolve())


def test_new_words_are_tokens_that_begin_as_the_mean_of_their_pieces(edits):
    encoder = TextEncoder.from_pretrained(str(edits / "runs/ldm/final/text_encoder"), 12)
    caption, text = "a dog sounds", "Vanish: a dog, now vanish!"
    pieces, states = encoder.pieces("vanish"), encoder.encode([caption])[0].detach()
    assert len(pieces) > 1
    mean = encoder.model.shared.weight[pieces].mean(0)
    before = len(encoder.tokenizer)
    assert learn_words(encoder, [text, "a dog sounds"], before + 1) == ["vanish"]
    assert encoder.pieces("Vanish") == [before]
    torch.testing.assert_close(encoder.model.shared.weight[before], mean)
    assert torch.equal(encoder.encode([caption])[0], states)
    assert learn_words(encoder, ["unheard"], before + 1) == []  # no room
    unknown = encoder.tokenizer.unk_token_id
    assert unknown in encoder.pieces("vanish: a dog")
    assert learn_words(encoder, ["vanish: a dog"], before + 2) == [":"]
    assert unknown not in encoder.pieces("vanish: a dog")


def test_a_resumed_editor_is_the_one_that_was_saved(edits, tmp_path):
    newest = edits / "runs/audit/checkpoints/step-00000006"
    task = make(config_of(edits), tmp_path, newest)
    weights = load_file(newest / "learning.safetensors")
    for name, tensor in task.objective.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    average = load_file(newest / "editor.safetensors")
    assert torch.equal(task.ema.shadow["unet.conv_in.weight"], average["conv_in.weight"])
    began = read_json(newest / "config.json")["made_with"]["init_from"]
    assert task.made_from["init_from"] == began


def test_an_editor_goes_on_from_an_editor(edits, tmp_path):
    config = config_of(edits)
    train = dataclasses.replace(config.train, init_from=str(edits / "runs/audit"))
    task = make(dataclasses.replace(config, train=train), tmp_path)
    weights = load_file(edits / "runs/audit/final/editor.safetensors")
    assert weights["conv_in.weight"][:, 2:].any(), "it had learnt to hear"
    assert torch.equal(task.unet.conv_in.weight, weights["conv_in.weight"])


def test_another_unet_is_refused(edits, tmp_path):
    config = config_of(edits, audioldm={"pooled_text": True})
    named = r"of another U-Net than the config's; that one has 'model.audioldm.pooled_text=false'"
    with pytest.raises(UserError, match=named):
        make(config, tmp_path)


def test_another_noise_schedule_is_refused(edits, tmp_path):
    config = config_of(edits, noise_scheduler={"beta_schedule": "linear"})
    with pytest.raises(UserError, match="runs/ldm/final: its noise schedule is"):
        make(config, tmp_path)


# ---------------------------------------------------------------- looking


def test_validation_is_told_for_each_task(edits, task):
    found = task.validate()
    named = {"loss", "loss_other_text", "loss_text_to_audio", *(f"loss_{t}" for t in tiny.TASKS)}
    assert found.keys() == named
    counts = {"text_to_audio": 3, **dict.fromkeys(tiny.TASKS, 1)}
    mean = sum(found[f"loss_{name}"] * n for name, n in counts.items()) / sum(counts.values())
    assert found["loss"] == pytest.approx(mean, rel=1e-5)
    assert len(set(found.values())) == len(found)
    first = {record["Task"] for record in task.valid_records[: len(counts)]}
    assert first == counts.keys(), "however few train.valid_clips are"
    assert {f"valid/{name}" for name in found} <= scalars(edits / "runs/audit").keys()


def test_samples_are_edits_of_every_task_and_the_prompts(edits):
    folder = edits / "runs/audit/samples/step-00000006"
    assert len(list(folder.glob("*.wav"))) == 1 + 3 * len(tiny.TASKS)
