import dataclasses
import re

import numpy as np
import pytest

from bins.tta import preprocess
from models.vocoders.check import check_vocoder, round_trip
from models.vocoders.load import load_vocoder
from tests import tiny
from tests.models.tta.convert.small_models import write_vocoder
from tests.tiny import MEL
from utils.audio import read_wav, write_wav
from utils.errors import UserError


@pytest.fixture
def sounds(tmp_path):
    """Two sounds, one that is none and one that is too short."""
    random = np.random.default_rng(0)
    wavs = {"noise.wav": random.normal(0, 0.1, 3000), "-tone <b>.wav": np.sin(np.arange(50000))}
    for name, wav in {**wavs, "short.wav": np.ones(5)}.items():
        write_wav(tmp_path / name, wav * 0.5, MEL.sample_rate)
    (tmp_path / "text.wav").write_text("hello")
    return [tmp_path / name for name in ("text.wav", *wavs, "short.wav")]


def test_a_table_and_sounds_side_by_side(sounds, tmp_path):
    vocoder, out = write_vocoder(tmp_path / "hifigan"), tmp_path / "out"
    text = check_vocoder(str(tmp_path / "hifigan"), sounds, MEL, out)
    numbers = [[float(x) for x in re.findall(r"\d+\.\d{3}", line)] for line in text.splitlines()]
    noise, tone, mean = (row for row in numbers if row)
    assert mean == pytest.approx(np.mean([noise, tone], axis=0), abs=2e-3)
    assert noise[0] < noise[1], "random weights are worse than none"
    _, error = round_trip(read_wav(sounds[1], MEL.sample_rate), vocoder, MEL)
    assert noise[1] == pytest.approx(error, abs=1e-3)

    names = {path.name for path in out.iterdir()}
    kinds = ("original", "griffin_lim", "vocoder")
    assert names == {f"0{n}_{kind}.wav" for n in (0, 1) for kind in kinds} | {"index.html"}
    assert len(read_wav(out / "01_original.wav", MEL.sample_rate)) == 40000, "ten seconds"
    page = (out / "index.html").read_text()
    assert all(name in page for name in names - {"index.html"})
    assert "-tone &lt;b&gt;.wav" in page


def test_what_comes_back_unchanged_has_no_error():
    wav = np.random.default_rng(0).normal(0, 0.1, 64 * MEL.hop_size).astype(np.float32)

    class Perfect:
        def __call__(self, mel):
            import torch

            return torch.from_numpy(wav)[None]

    result, error = round_trip(wav, Perfect(), MEL)
    assert error == 0
    np.testing.assert_array_equal(result, wav)


def test_griffin_lim_alone_and_nothing_to_try(sounds, tmp_path):
    text = check_vocoder("griffin_lim", sounds, MEL, tmp_path / "out")
    assert not (tmp_path / "out" / "00_vocoder.wav").exists()
    assert "griffin_lim" in text
    with pytest.raises(UserError, match="none of the clips can be decoded"):
        check_vocoder("griffin_lim", sounds[:1], MEL, tmp_path / "out")


def test_a_vocoder_of_another_mel_is_named(sounds, tmp_path):
    write_vocoder(tmp_path / "hifigan")
    mel = dataclasses.replace(MEL, fmax=1900.0)
    with pytest.raises(UserError, match=r"fmax 2000(\.0)? and 1900\.0"):
        check_vocoder(str(tmp_path / "hifigan"), sounds, mel, tmp_path / "out")
    assert load_vocoder(str(tmp_path / "hifigan"), MEL)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Eight clips of a data set, before anything is prepared."""
    folder = tmp_path / "data" / "Tiny"
    (folder / "wav").mkdir(parents=True)
    for number in range(20):
        wav = np.random.default_rng(number).normal(0, 0.1, 2000)
        write_wav(folder / "wav" / f"{number:02d}.wav", wav, MEL.sample_rate)
    rows = "".join(f"{number:02d}.wav,noise\n" for number in range(20))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    write_vocoder(tmp_path / "hifigan")
    arguments = [
        "--config",
        tiny.write_config(tmp_path, 1),
        "--check_vocoder",
        tmp_path / "hifigan",
    ]
    monkeypatch.setattr("sys.argv", ["preprocess.py", *map(str, arguments)])
    preprocess.main()
    printed = capsys.readouterr().out
    assert printed.count(".wav") == 8
    assert "mean" in printed
    out = tmp_path / "data" / "vocoder_check" / "Tiny"
    assert len(list(out.glob("*_vocoder.wav"))) == 8
    assert not (folder / "mel").exists()
