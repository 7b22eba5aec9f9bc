"""Triplets as they are made, measured on their wavs by other means than those that made them."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from preprocessors.edits.plan import draw_plan
from preprocessors.edits.prepare import make_pairs, prepare_edits
from preprocessors.edits.sources import read_sources
from processors import mel_folder
from processors.mel import mel_of_wav
from processors.metadata import SPLITS
from tests import triplets as small
from tests.sounds import make_mels_in_process, noise
from tests.triplets import RATE, SAMPLES
from utils.audio import read_wav, write_wav
from utils.checkpoint import file_hash
from utils.errors import UserError

LSB = 1 / 32767


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


def read(root: Path, split: str, dataset: str = "Made") -> list[dict]:
    return json.loads((root / dataset / f"{split}.json").read_text())


def sound(root: Path, uid: str) -> np.ndarray:
    """A made sound, [samples] float64 in units of what was written."""
    with wave.open(str(root / "Made" / "wav" / f"{uid}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float) * LSB


def both(root: Path, record: dict) -> tuple[np.ndarray, np.ndarray]:
    return sound(root, record["Input"]), sound(root, record["Output"])


def of(task: str, triplets: list[dict]) -> list[dict]:
    found = [record for record in triplets if record["Task"] == task]
    assert len(found) >= 8
    return found


def loudest(wav: np.ndarray) -> float:
    """Mean magnitude of the loudest 1024 samples of a grid, dB."""
    return 20 * np.log10(max(np.abs(wav[i : i + 1024]).mean() for i in range(0, len(wav), 1024)))


def file_of(root: Path, of: dict) -> np.ndarray:
    return read_wav(root / of["Dataset"] / "wav" / f"{of['Uid']}.wav", RATE)


def test_as_many_as_asked_and_all_sounds_and_mels_are_there(root, triplets):
    for split, counts in small.COUNTS.items():
        made = read(root, split)
        assert {task: sum(r["Task"] == task for r in made) for task in counts} == counts
        assert all(record["Dataset"] == "Made" and record["Caption"] for record in made)
    assert len({record["Uid"] for record in triplets}) == len(triplets)
    mel = small.edits_config(root).preprocess.mel
    for record in triplets[::9]:
        for uid in (record["Input"], record["Output"]):
            wav = read_wav(root / "Made" / "wav" / f"{uid}.wav", RATE)
            assert len(wav) == SAMPLES
            np.testing.assert_array_equal(
                np.load(root / "Made" / "mel" / f"{uid}.npy"), mel_of_wav(wav, mel)
            )


@pytest.mark.parametrize("task", ["add", "drop"])
def test_an_event_comes_or_goes_at_its_level_and_place_and_nothing_else_changes(
    root, triplets, task
):
    config = small.edits_config(root).edits
    levels, seen = {}, set()
    for record in of(task, triplets):
        without, mixed = both(root, record)[:: 1 if task == "add" else -1]
        bed = np.zeros(SAMPLES)
        start = round(record["Bed"]["Offset"] * RATE)
        piece = file_of(root, record["Bed"])[start : start + SAMPLES]
        bed[: len(piece)] = piece
        np.testing.assert_allclose(without, record["Gain"] * bed, atol=LSB)
        # Where it is: nothing differs outside, and something does within a frame of both ends.
        first, last = (round(record[end] * RATE) for end in ("Start", "End"))
        event = mixed - without
        heard = np.flatnonzero(np.abs(event) > 2 * LSB)
        assert first <= heard[0] < first + 1024
        assert last - 1024 <= heard[-1] < last
        # How loud it is, and where by the rules.
        assert loudest(event) - loudest(without) == pytest.approx(record["Level"], abs=0.1)
        where = record["Position"]
        seen.add(where)
        levels.setdefault(where == "background", []).append(record["Level"])
        low, high = (0, 0) if where == "background" else config.positions[where]
        assert SAMPLES * low - 1 <= first <= SAMPLES * high + 1
        assert last - first <= (SAMPLES if where == "background" else 0.4 * RATE)
    assert seen == {"beginning", "middle", "end", "background"}
    for background, (low, high) in ((False, config.levels), (True, config.background_levels)):
        assert low <= min(levels[background]) < max(levels[background]) <= high
        if not background:
            assert np.ptp(levels[background]) > (high - low) / 2


def test_drop_is_add_the_other_way_round(root):
    records = read(root, "train")
    add, drop = ([r for r in records if r["Task"] == task] for task in ("add", "drop"))
    for one, other in zip(add, drop, strict=False):
        assert (one["Input"], one["Output"]) == (other["Output"], other["Input"])
        assert other["Caption"] == "A " + other["BedKind"] + " sounds"
        assert one["Caption"].lower().count("sounds") == 2


def test_of_a_replacement_one_event_comes_where_the_other_was(root, triplets):
    low, high = small.edits_config(root).edits.replace_start
    for record in of("replace", triplets):
        before, after = both(root, record)
        first, last = (round(record[end] * RATE) for end in ("Start", "End"))
        assert SAMPLES * low - 1 <= first <= SAMPLES * high + 1
        assert np.abs(before - after)[:first].max() <= LSB
        assert np.abs(before - after)[last:].max(initial=0) <= LSB
        assert len({record["BedKind"], record["EventKind"], record["EventKind2"]}) == 3
        for wav, number in ((before, ""), (after, "2")):
            kind = record[f"EventKind{number}"]
            take = int(record[f"Event{number}"]["Uid"][4:5]) * 2
            take += record[f"Event{number}"]["Uid"].endswith("B")
            tone = 600 + 400 * small.EVENTS.index(kind) + 7 * take
            power = np.abs(np.fft.rfft(wav, 8 * SAMPLES))
            peak = np.argmax(power[8 * SAMPLES * 500 // RATE :]) * RATE / SAMPLES / 8 + 500
            assert peak == pytest.approx(tone, abs=4)


def test_a_gap_is_silent_and_all_else_is_kept(root, triplets):
    config = small.edits_config(root).edits
    for record in of("inpaint", triplets):
        before, after = both(root, record)
        start, end = (round(second * RATE) for second in record["Region"])
        assert not before[start:end].any()
        np.testing.assert_array_equal(before[:start], after[:start])
        np.testing.assert_array_equal(before[end:], after[end:])
        assert config.gap_start[0] <= start / SAMPLES <= config.gap_start[1]
        assert config.gap_end[0] <= end / SAMPLES <= config.gap_end[1]


def test_a_low_pass_takes_the_upper_band_alone_without_delay(root, triplets):
    for record in of("super_resolution", triplets):
        before, after = both(root, record)
        assert record["Cutoff"] == 2000
        f, power_in = scipy.signal.welch(before, RATE, nperseg=512)
        _, power_out = scipy.signal.welch(after, RATE, nperseg=512)
        assert power_in[f > 2100].sum() < 1e-5 * power_out[f > 2100].sum()
        # By scipy, whose filter without delay stands for what is below the cutoff.
        low = scipy.signal.butter(8, 1500, fs=RATE, output="sos")
        kept, was = (scipy.signal.sosfiltfilt(low, wav)[200:-200] for wav in (before, after))
        assert np.abs(kept - was).max() < 0.01 * np.abs(was).max()


def test_what_is_kept_is_one_sound_and_asks_for_what_is_not_there(root, triplets):
    kept = of("keep", triplets)
    for record in kept:
        assert record["Input"] == record["Output"]
        heard = {record["BedKind"], record.get("EventKind")}
        if record["Asked"] in ("drop", "replace"):
            assert record["Absent"] not in heard
            assert record["Absent"] in record["Instruction"]
    assert {record["Asked"] for record in kept} >= {"drop", "replace", "inpaint"}
    assert all(r["Input"] != r["Output"] for r in triplets if r["Task"] != "keep")


def test_no_sound_is_clipped_and_a_pair_is_scaled_as_one(root, triplets):
    scaled = [record for record in triplets if record["Gain"] < 1]
    assert scaled
    for record in triplets:
        peak = max(np.abs(wav).max() for wav in both(root, record))
        assert peak <= 0.98 + LSB
        if record["Gain"] < 1:
            assert peak == pytest.approx(0.98, abs=2 * LSB)


def test_no_recording_and_no_sound_is_on_both_sides_of_a_split(root):
    """By the names of the files and by their bytes; takes and twins of the held out are unused."""
    found = {}
    for split in ("train", "valid", "test"):
        used = [r[key] for r in read(root, split) for key in ("Bed", "Event", "Event2") if key in r]
        uids = {(of["Dataset"], of["Uid"]) for of in used}
        found[split] = {
            "recordings": {(dataset, uid.rpartition("-")[0] or uid) for dataset, uid in uids},
            "bytes": {(root / d / "wav" / f"{uid}.wav").read_bytes() for d, uid in uids},
        }
        assert uids
    for what in ("recordings", "bytes"):
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
            assert found[one][what].isdisjoint(found[other][what])
    report = json.loads((root / "Made" / "preprocess_report.json").read_text())
    (held,) = (r["names"] for why, r in report["sounds_left_out"].items() if "held out" in why)
    assert {n for n in held if "again" in n} == {f"Beds/again {kind}" for kind in small.BEDS}
    assert {n for n in held if "Events" in n} == {
        f"Events/{kind}-{number}{kind}-B" for kind in range(3) for number in (105, 106)
    }


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [*folder.rglob("*.wav"), *folder.rglob("*.npy"), *folder.glob("*.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


FEW = {
    "train": {"add": 4, "drop": 3, "replace": 2, "inpaint": 2, "super_resolution": 1, "keep": 1},
    "valid": {"add": 1},
    "test": {"add": 1, "drop": 1},
}


def test_killed_and_gone_on_with_and_in_any_order_the_bytes_are_the_same(root, monkeypatch):
    """A kill leaves a line half written, a file that is none yet, and sounds without a line."""
    whole = small.edits_config(root, "dataset=Whole", counts=FEW)
    prepare_edits(whole, 1)

    class Killed(Exception):
        pass

    def until_killed(tasks, _):
        yield tasks[-1].run()
        tasks[0].run()  # made, but the line was not written
        raise Killed

    def backwards(tasks, _):
        return (task.run() for task in tasks[::-1])

    resumed = small.edits_config(root, "dataset=Resumed", counts=FEW)
    with monkeypatch.context() as patch:
        patch.setattr(mel_folder, "run_tasks", until_killed)
        with pytest.raises(Killed):
            prepare_edits(resumed, 1)
    folder = root / "Resumed"
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('{"name": "train_mix_0')
    (folder / "wav" / ".0123456789abcdef.part").write_bytes(b"RIFF")
    with monkeypatch.context() as patch:
        patch.setattr(mel_folder, "run_tasks", backwards)
        prepare_edits(resumed, 1)
    made, expected = files_of(folder), files_of(root / "Whole")
    for files in (made, expected):
        del files["preprocess_report.json"]  # hashes of records that name their data set
    made = {name: content.replace(b"Resumed", b"Whole") for name, content in made.items()}
    assert len(expected) > 30
    assert made == expected
    # A second run makes nothing, and one with fewer triplets removes what is left over.
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    monkeypatch.setattr(mel_folder, "run_tasks", lambda tasks, _: iter(tasks[:0]))
    prepare_edits(resumed, 1)
    names = [p for p in times if p.suffix in (".wav", ".npy", ".json") and "config" not in p.name]
    assert [path.name for path in names if path.stat().st_mtime_ns != times[path]] == []
    fewer = {**FEW, "train": {**FEW["train"], "inpaint": 1}}
    prepare_edits(small.edits_config(root, "dataset=Resumed", counts=fewer), 1)
    assert len([*folder.glob("wav/train_inpaint*")]) == len([*folder.glob("mel/train_inp*")]) == 2


def test_in_processes_the_bytes_are_the_same(root, tmp_path):
    """Two real processes mix the pairs that one made."""
    config = small.edits_config(root)
    beds, events, _ = read_sources(config)
    (tmp_path / "mel").mkdir()
    plan = dict([*draw_plan(config, beds, events).items()][::4])
    pairs = make_pairs(config, tmp_path, plan, 2)
    made = files_of(tmp_path)
    assert len(made) > 20
    assert {pair.fault for pair in pairs.values()} == {None}
    assert made == {
        name: content for name, content in files_of(root / "Made").items() if name in made
    }


def test_another_seed_makes_other_triplets(root):
    """In the same folder, where no sound of the first seed is taken for one of the second."""
    of_seed = {}
    for seed in (0, 1):
        given = ("dataset=Other", f"train.random_seed={seed}")
        prepare_edits(small.edits_config(root, *given, counts=FEW), 1)
        of_seed[seed] = {**files_of(root / "Other" / "wav"), "Seed": read(root, "train", "Other")}
    assert of_seed[0].keys() == of_seed[1].keys()
    assert [name for name in of_seed[0] if of_seed[0][name] == of_seed[1][name]] == []


def test_pairs_of_no_use_are_replaced_or_left_out_with_their_reason(root, monkeypatch):
    """Tones have no upper band to restore; the one bed that has makes one pair, not four."""
    tones = root / "Tones"
    rows = []
    time = np.arange(SAMPLES) / RATE
    for number in range(4):
        (tones / "wav").mkdir(parents=True, exist_ok=True)
        wav = 0.3 * np.sin(2 * np.pi * (300 + 50 * number) * time)
        if number == 3:
            wav = wav + 0.3 * noise(SAMPLES / RATE, 1, RATE)
        write_wav(tones / "wav" / f"{number}.wav", wav, RATE)
        rows.append(f"{number}.wav,A tone,{'train' if number else 'test'},tone\n")
    (tones / "captions.csv").write_text("file,caption,split,kind\n" + "".join(rows))
    small.prepare_sources(root, "Tones")
    counts = {"train": {"super_resolution": 4}, "test": {"super_resolution": 1}}
    texts = ("edits.beds=Tones", "edits.mixed_share=0", "preprocess.valid_fraction=0")
    table = prepare_edits(small.edits_config(root, "dataset=Few", *texts, counts=counts), 1)
    assert [record["Bed"]["Uid"] for record in read(root, "train", "Few")] == ["3"]
    assert read(root, "test", "Few") == []
    assert "triplets left out 3: the very pair of another triplet" in table
    assert "triplets left out 1: an edit that is hardly heard" in table


def test_records_that_the_user_edited_stay(root):
    """And are never those of other sounds under the same names."""
    others = ("dataset=Theirs", "train.random_seed=5")
    config = small.edits_config(root, "dataset=Theirs", counts=FEW)
    prepare_edits(config, 1)
    path = root / "Theirs" / "train.json"
    path.write_text(json.dumps(read(root, "train", "Theirs")[:2]))
    edited = path.read_bytes()
    assert "train.json: written by you" in prepare_edits(config, 1)
    assert path.read_bytes() == edited
    report = json.loads((root / "Theirs" / "preprocess_report.json").read_text())
    sources = [root / name / f"{split}.json" for name in ("Beds", "Events") for split in SPLITS]
    with pytest.raises(UserError, match=r"train\.json: is written by you, and \d+ of its pairs"):
        prepare_edits(small.edits_config(root, *others, counts=FEW), 1)
    assert path.read_bytes() == edited
    assert report["made_of"] == {f"../{p.parent.name}/{p.name}": file_hash(p) for p in sources}
