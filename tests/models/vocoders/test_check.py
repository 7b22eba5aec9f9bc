import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from bins.tta import preprocess
from models.tta.autoencoder.saved import load_vae
from models.tta.evaluation.clips import Clip
from models.tta.evaluation.features import BACKBONES
from models.tta.evaluation.mn04 import MN04
from models.vocoders.check import check_vae, check_vocoder, reconstructed, round_trip
from models.vocoders.load import load_vocoder
from tests import tiny
from tests.models.tta.convert.small_models import write_vocoder
from tests.tiny import MEL
from utils.audio import read_wav, write_wav
from utils.errors import UserError


@pytest.fixture
def clips(tmp_path):
    """Two sounds, one that is none and one that is too short."""
    random = np.random.default_rng(0)
    wavs = {"noise.wav": random.normal(0, 0.1, 3000), "-tone <b>.wav": np.sin(np.arange(50000))}
    for name, wav in {**wavs, "short.wav": np.ones(5)}.items():
        write_wav(tmp_path / name, wav * 0.5, MEL.sample_rate)
    (tmp_path / "text.wav").write_text("hello")
    names = ("text.wav", *wavs, "short.wav")
    return [Clip(name, tmp_path / name, kind=name[:5].strip("-")) for name in names]


def rows_of(text):
    """The numbers of each line of the tables, by the line's name."""
    found = {}
    for line in text.splitlines():
        name, *numbers = re.split(r"\s{2,}", line.replace(" dB", ""))
        if numbers and all(re.fullmatch(r"[-+]?[\d.]+", number) for number in numbers):
            found[name] = [float(number) for number in numbers]
    return found


def test_a_table_and_sounds_side_by_side(clips, tmp_path):
    vocoder, out = write_vocoder(tmp_path / "hifigan"), tmp_path / "out"
    text = check_vocoder(str(tmp_path / "hifigan"), clips, MEL, out)
    rows = rows_of(text)
    sounds = [read_wav(clip.path, MEL.sample_rate)[:40000] for clip in clips[1:3]]
    each = [round_trip(wav, vocoder, MEL)[1] for wav in sounds]
    means = [np.mean([getattr(one, name) for one in each]) for name in ("level", "log_mel", "stft")]
    assert rows["vocoder"] == pytest.approx(means, abs=6e-3)
    assert rows["griffin_lim"][1] < rows["vocoder"][1], "random weights are worse than none"
    assert rows["noise"] == [
        1,
        pytest.approx(rows["noise"][1]),
        pytest.approx(each[0].level, abs=6e-3),
    ]

    names = {path.name for path in out.iterdir()}
    kinds = ("original", "griffin_lim", "vocoder")
    files = {f"0{n}_{kind}.{end}" for n in (0, 1) for kind in kinds for end in ("wav", "png")}
    assert names == files | {"index.html"}
    assert len(read_wav(out / "01_original.wav", MEL.sample_rate)) == 40000, "ten seconds"
    page = (out / "index.html").read_text()
    assert all(name in page for name in files)
    assert "-tone &lt;b&gt;.wav" in page


def test_what_comes_back_changed_in_level_alone():
    """Half as loud: -6.02 dB, and ln 2 of every band."""
    wav = np.random.default_rng(0).normal(0, 0.1, 64 * MEL.hop_size).astype(np.float32)
    for factor, log_mel in ((1.0, 0.0), (0.5, np.log(2))):
        result, one = round_trip(wav, lambda _, f=factor: torch.from_numpy(f * wav)[None], MEL)
        assert one.log_mel == pytest.approx(log_mel, abs=1e-3)
        assert one.level == pytest.approx(20 * np.log10(factor), abs=1e-3)
        assert (one.stft == 0) == (factor == 1)
        np.testing.assert_array_equal(result, factor * wav)


def test_griffin_lim_alone_and_nothing_to_try(clips, tmp_path):
    text = check_vocoder("griffin_lim", clips, MEL, tmp_path / "out")
    assert not (tmp_path / "out" / "00_vocoder.wav").exists()
    assert "griffin_lim" in text
    with pytest.raises(UserError, match="none of the clips can be decoded"):
        check_vocoder("griffin_lim", clips[:1], MEL, tmp_path / "out")


def test_a_vocoder_or_a_vae_of_another_mel_is_named(clips, tmp_path, trained):
    write_vocoder(tmp_path / "hifigan")
    mel = dataclasses.replace(MEL, fmax=1900.0)
    with pytest.raises(UserError, match=r"fmax 2000(\.0)? and 1900\.0"):
        check_vocoder(str(tmp_path / "hifigan"), clips, mel, tmp_path / "out")
    with pytest.raises(UserError, match=r"fmax 2000(\.0)? and 1900\.0|fmax 1900\.0 and 2000(\.0)?"):
        check_vae(trained / "runs/vae/final", "griffin_lim", clips, mel, tmp_path / "out")
    assert load_vocoder(str(tmp_path / "hifigan"), MEL)


def prepared(root):
    """A data set of 20 sounds, eight of them held out with two kinds, and the stage-1 config."""
    folder = root / "data" / "Tiny"
    (folder / "wav").mkdir(parents=True)
    records = []
    for number in range(20):
        wav = np.random.default_rng(number).normal(0, 0.1, 2000)
        write_wav(folder / "wav" / f"{number:02d}.wav", wav, MEL.sample_rate)
        kind = ("rain", "wind")[number % 2]
        record = {"Dataset": "Tiny", "Uid": f"{number:02d}", "Caption": "noise", "kind": kind}
        records.append(record)
    rows = "".join(f"{number:02d}.wav,noise\n" for number in range(20))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    (folder / "valid.json").write_text(json.dumps(records[:8]))
    return folder, tiny.write_config(root, 1)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["preprocess.py", *map(str, arguments)])
    preprocess.main()
    return capsys.readouterr().out


def test_a_vocoder_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Eight clips of a data set, before anything is prepared."""
    folder, config = prepared(tmp_path)
    (folder / "valid.json").unlink()
    write_vocoder(tmp_path / "hifigan")
    arguments = ["--config", config, "--check_vocoder", tmp_path / "hifigan"]
    rows = rows_of(command(monkeypatch, capsys, *arguments))
    assert rows.keys() == {"griffin_lim", "vocoder"}
    out = tmp_path / "data" / "vocoder_check" / "Tiny"
    assert len(list(out.glob("*_vocoder.wav"))) == 8
    assert not (folder / "mel").exists()


def test_a_vae_from_the_command_line(tmp_path, monkeypatch, capsys, trained):
    """The held-out clips, by the vocoder alone and through the VAE; a tagger hears all three."""
    _, config = prepared(tmp_path)
    torch.manual_seed(0)
    torch.save(MN04().state_dict(), tmp_path / BACKBONES["mn04"].file)
    monkeypatch.setattr(preprocess, "EVALUATION", tmp_path)
    run = trained / "runs/vae"
    arguments = ["--config", config, "--check_vae", run, f"--check_vocoder={'griffin_lim'}"]
    text = command(monkeypatch, capsys, *arguments)
    rows = rows_of(text)
    assert "8 clips of its split valid" in text
    assert "FD mn04" in text
    assert rows["rain"][0] == rows["wind"][0] == 4
    out = tmp_path / "data" / "vae_check" / "Tiny"
    vae = load_vae(run / "final").vae
    vocoder = load_vocoder("griffin_lim", MEL)
    wav = read_wav(out / "00_original.wav", MEL.sample_rate)
    found = read_wav(out / "00_vae_vocoder.wav", MEL.sample_rate)
    expected, _ = round_trip(wav, lambda mel: vocoder(reconstructed(vae, mel)), MEL)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert rows["vae_vocoder"][1] > rows["vocoder"][1], "a VAE of six steps blurs"
