"""Edits beside their targets: what counts as followed and kept, and the command."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bins.tta import evaluate as command
from models.tta.autoencoder.saved import load_vae
from models.tta.evaluation.clips import Clip
from models.tta.evaluation.edits import Judge, Triplet, read_triplets
from models.tta.evaluation.features import BACKBONES, Features
from models.tta.evaluation.mn04 import MN04
from models.tta.evaluation.protocol import PROTOCOLS
from models.vocoders.check import reconstructed
from models.vocoders.load import load_vocoder
from processors.mel import MelExtractor
from tests import tiny
from tests.sounds import make_config
from utils.audio import read_wav, write_wav
from utils.errors import UserError

DOG, CAT, RAIN, WIND, CLASSES = 0, 1, 2, 3, 4


def judged(triplets, **heard):
    """A Judge of sounds that are heard with these probabilities of dog, cat, rain and wind."""
    sets = {name: [Clip(one.uid, None) for one in triplets] for name in heard}
    features = {
        name: Features(
            [torch.tensor([row], dtype=torch.float32) for row in rows],
            torch.tensor(rows, dtype=torch.float64).logit(),
        )
        for name, rows in heard.items()
    }
    evaluation = SimpleNamespace(
        heard={name: SimpleNamespace(clips=clips) for name, clips in sets.items()},
        features={"mn04": features},
        protocol=PROTOCOLS["arion"],
    )
    return Judge(evaluation, triplets)


def triplet(uid, task, events, bed="rain"):
    return Triplet(uid, task, "", None, None, events, bed)


def verdict(task, events, before, after, edited):
    judge = judged([triplet("a", task, events)], reference=[after], identity=[before], row=[edited])
    return judge.verdict("a", judge._heard("row")["a"])


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ([0.9, 0.01, 0.8, 0.01], (False, True)),  # nothing done
        ([0.1, 0.01, 0.8, 0.01], (True, True)),
        ([0.1, 0.01, 0.2, 0.01], (True, False)),  # the rain went, too
        ([0.52, 0.01, 0.8, 0.01], (False, True)),  # less than half of the way from 0.9 to 0.1
        ([0.48, 0.01, 0.41, 0.01], (True, True)),
        ([0.48, 0.01, 0.39, 0.01], (True, False)),  # less than half of the rain's 0.8
    ],
)
def test_a_drop_is_followed_by_half_of_the_real_change(edited, expected):
    before, after = [0.9, 0.01, 0.8, 0.01], [0.1, 0.01, 0.85, 0.01]
    assert verdict("drop", {"dog": -1}, before, after, edited) == expected
    # An add is the same the other way round.
    undone = [1 - edited[0], *edited[1:]]
    assert verdict("add", {"dog": 1}, after, before, undone) == expected


def test_a_replacement_needs_one_to_go_and_the_other_to_come():
    before, after = [0.9, 0.02, 0.8, 0.01], [0.05, 0.7, 0.8, 0.01]
    events = {"dog": -1, "cat": 1}
    triplets = [
        triplet("a", "replace", events),
        triplet("b", "drop", {"dog": -1}),  # which tells the two kinds apart
        triplet("c", "add", {"cat": 1}),
    ]
    rows = {
        "reference": [after, [0.05, 0.02, 0.8, 0.01], [0.02, 0.8, 0.8, 0.01]],
        "identity": [before, [0.9, 0.02, 0.8, 0.01], [0.02, 0.02, 0.8, 0.01]],
    }
    judge = judged(triplets, **rows)
    assert judge.classes == {"dog": DOG, "cat": CAT}
    for edited, followed in (
        ([0.05, 0.7, 0.8, 0.01], True),
        ([0.05, 0.02, 0.8, 0.01], False),
        ([0.9, 0.7, 0.8, 0.01], False),
    ):
        assert judge.verdict("a", torch.tensor(edited)) == (followed, True)


def test_what_the_tagger_does_not_hear_in_the_real_sounds_is_not_judged():
    soft = ([0.9, 0.01, 0.8, 0.01], [0.85, 0.01, 0.8, 0.01])
    assert verdict("drop", {"dog": -1}, *soft, [0.1, 0.01, 0.8, 0.01]) is None
    no_rest = ([0.9, 0.01, 0.05, 0.01], [0.1, 0.01, 0.05, 0.01])
    assert verdict("drop", {"dog": -1}, *no_rest, [0.1, 0.01, 0.05, 0.01]) is None
    assert verdict("inpaint", {}, [0.1, 0, 0.8, 0], [0.1, 0, 0.8, 0], [0.1, 0, 0.8, 0]) is None


def test_figures_are_shares_of_the_judged_triplets_of_a_task():
    before, after = [0.9, 0.01, 0.8, 0.01], [0.1, 0.01, 0.8, 0.01]
    triplets = [triplet(uid, "drop", {"dog": -1}) for uid in "abc"]
    triplets.append(triplet("d", "keep", {}))
    judge = judged(
        triplets,
        reference=[after, after, after, before],
        identity=[before] * 4,
        row=[after, before, [0.1, 0.01, 0.1, 0.01], before],
    )
    found = judge.figures("row", {"a", "b", "c"})
    shares = {name: found[name] for name in ("clips", "judged", "followed", "kept", "both")}
    third = pytest.approx(1 / 3)
    assert shares == {
        "clips": 3,
        "judged": 3,
        "followed": pytest.approx(2 / 3),
        "kept": pytest.approx(2 / 3),
        "both": third,
    }
    assert judge.figures("identity", {"a", "b", "c"})["followed"] == 0
    assert judge.figures("row", {"d"})["judged"] == 0
    p, q = (torch.tensor(x, dtype=torch.float64).logit() for x in (after, before))
    kl = [(p.softmax(0) * (p.log_softmax(0) - x.log_softmax(0))).sum() for x in (p, q)]
    first = judge.figures("row", {"a", "b"})
    assert first["KL"] == pytest.approx(float(sum(kl) / 2))


@pytest.fixture
def place(tmp_path):
    """Four prepared triplets: a tone over noise goes in three, a gap is filled in one."""
    folder, rate = tmp_path / "data" / "Edits", tiny.MEL.sample_rate
    (folder / "wav").mkdir(parents=True)
    records = []
    for number in range(4):
        bed = np.random.default_rng(number).normal(0, 0.05, 6000)
        event, gap = np.zeros(6000), bed.copy()
        event[3000:5000] = 0.3 * np.sin(np.arange(2000))
        gap[2000:4000] = 0
        drop = number < 3
        source = bed + event if drop else gap
        uid = f"{number:06d}"
        write_wav(folder / "wav" / f"{uid}_in.wav", source, rate)
        write_wav(folder / "wav" / f"{uid}_out.wav", bed, rate)
        records.append(
            {
                "Dataset": "Edits",
                "Uid": uid,
                "Task": "drop" if drop else "inpaint",
                "Instruction": "Drop the tone" if drop else "Inpaint",
                "Caption": "noise",
                "Input": f"{uid}_in",
                "Output": f"{uid}_out",
                "EventKind": "tone",
                "BedKind": "noise",
            }
        )
        (tmp_path / "edits").mkdir(exist_ok=True)
        if number != 2:
            write_wav(tmp_path / "edits" / f"{uid}.wav", 0.5 * bed, rate)
    (folder / "test.json").write_text(json.dumps(records))
    torch.manual_seed(0)
    torch.save(MN04().state_dict(), tmp_path / BACKBONES["mn04"].file)
    return tmp_path


def test_the_command(place, trained, monkeypatch, capsys):
    words = [f"--edits={place}/edits", "--triplets=Edits", f"--weights_dir={place}"]
    words += [f"--cache_dir={place}/cache", "--device=cpu", "--bootstrap=0"]
    words += [f"--vae={trained}/runs/vae", "--vocoder=griffin_lim", f"--sdedit={trained}/runs/ldm"]
    words += ["--config", str(trained / "stage1.json"), f"preprocess.processed_dir={place}/data"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    command.main()
    result = json.loads((place / "edits" / "evaluation" / "evaluation.json").read_text())
    made = ("VAE + vocoder", "SDEdit 0.25", "SDEdit 0.5", "SDEdit 0.75")
    rows = {"generated", "identity", "white noise", *made}
    assert {*rows, "silence"} <= result["rows"].keys()
    assert result["checks"]["missing"] == ["000002"]
    head, *cells = result["edits"]
    table = {name: dict(zip(head[1:], values, strict=True)) for name, *values in cells}
    assert table.keys() == {f"{task}, {row}" for task in ("drop", "inpaint") for row in rows}
    # Half as loud: log10(4) in every bin, and outside the edit, too.
    for task, clips in (("drop", "2"), ("inpaint", "1")):
        row = table[f"{task}, generated"]
        assert row["clips"] == clips
        assert float(row["LSD"]) == pytest.approx(np.log10(4), abs=0.03)
        assert float(row["LSD outside"]) == pytest.approx(np.log10(4), abs=0.03)
        assert float(table[f"{task}, identity"]["LSD outside"]) < 0.01
        assert float(table[f"{task}, identity"]["LSD"]) > 0.05
    assert table["inpaint, generated"]["followed"] == "–"
    assert "drop, VAE + vocoder" in capsys.readouterr().out
    assert "drop, identity" in (place / "edits" / "evaluation" / "index.html").read_text()

    folders = sorted((place / "edits" / "evaluation" / "made").iterdir())
    assert [len(list(folder.glob("*.wav"))) for folder in folders] == [4] * 4
    # Other targets under the old names, or another vocoder, are made anew and beside these.
    records = json.loads((place / "data/Edits/test.json").read_text())
    records[0]["Caption"] = "a louder noise"
    (place / "data/Edits/test.json").write_text(json.dumps(records))
    command.main()
    assert len(list((place / "edits" / "evaluation" / "made").iterdir())) == 8
    made = folders[-1]
    vae, vocoder = load_vae(trained / "runs/vae/final").vae, load_vocoder("griffin_lim", tiny.MEL)
    target = read_wav(place / "data/Edits/wav/000001_out.wav", tiny.MEL.sample_rate)
    mel = MelExtractor(tiny.MEL)(torch.from_numpy(target)[None])
    expected = vocoder(reconstructed(vae, mel))[0, : len(target)]
    found = read_wav(made / "000001.wav", tiny.MEL.sample_rate)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)


def test_what_is_no_triplet_is_named(place):
    config = make_config(place / "data")
    path = place / "data" / "Edits" / "test.json"
    triplets, split = read_triplets("Edits", config, None)
    assert (split, len(triplets), triplets[0].events) == ("test", 4, {"tone": -1})
    assert triplets[3].events == {}
    with pytest.raises(UserError, match=r"splits in .*: test; to make triplets"):
        read_triplets("Edits", config, "valid")
    records = json.loads(path.read_text())
    del records[2]["Output"]
    path.write_text(json.dumps(records))
    with pytest.raises(UserError, match="record '000002' has no Output: no triplet"):
        read_triplets("Edits", config, None)
