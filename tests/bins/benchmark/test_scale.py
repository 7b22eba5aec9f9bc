"""The probe of starts measures what it says: on links, of which all is done and nothing is read."""

import json
import os

import pytest

from bins.benchmark import scale
from config.load import load_config
from processors import kept_records
from processors.metadata import read_records


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """Its configs and overrides."""
    root = tmp_path_factory.mktemp("probe")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DISTINCT": 4, "VALID": 3, "PER_FOLDER": 10}.items():
            patch.setattr(scale, name, value)
        configs = scale.write_configs(root)
        overrides = scale.write_data(root, 24, load_config(configs["audioldm"]).preprocess.mel)
    for path in root.rglob("*"):
        if path.is_dir() or path.suffix == ".json":
            os.utime(path, (1e9, 1e9))
    overrides += ["train.num_workers=0"]
    return {"root": root, "overrides": overrides, **configs}


@pytest.fixture
def start(probe, capsys):
    def start(name: str, *flags: str) -> dict:
        config = str(probe.get(name, probe["autoencoderkl"]))
        scale.main([*flags, name, config, *probe["overrides"]])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return start


def test_the_data_are_links_with_texts_of_their_own(probe):
    folder = probe["root"] / scale.DATASET
    mels = list((folder / "mel").rglob("*.npy"))
    assert (len(mels), len({os.stat(mel).st_ino for mel in mels})) == (24, 4)
    train, valid = (
        read_records(folder / f"{split}.json", scale.DATASET) for split in ("train", "valid")
    )
    assert (len(train), len(valid)) == (21, 3)
    assert len({record["Caption"] for record in train + valid}) == 24


def test_preprocessing_finds_that_all_is_done(probe, start):
    folder = probe["root"] / scale.DATASET / "mel"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    assert start("preprocess")["resident"] > 20
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == before
    assert start("evaluate")["files"] > 3


def test_what_is_measured_is_a_start_with_warm_caches(probe, start, monkeypatch):
    for path in (probe["root"] / scale.DATASET).rglob("*"):
        if path.is_dir() or path.suffix in (".json", ".npy"):
            os.utime(path, (1e9, 1e9))
    start("audioldm", "--fill")
    blocks = sorted((probe["root"] / "cache").rglob("*.npy"))
    assert {path.parent.name.partition("-")[0] for path in blocks} == {"latent", "text", "tokens"}
    monkeypatch.setattr(kept_records, "usable_records", None)
    monkeypatch.setattr("processors.latent.mel_frames", None)
    monkeypatch.setattr("processors.cache.write_array", None)
    found = start("audioldm")
    assert found["peak"] >= found["resident"] > 20
