from pathlib import Path

import pytest

from config.load import load_config
from config.typed_json import ConfigError
from tests.tiny import MEL, ROOT
from utils.errors import UserError
from utils.nearest import nearest, nearest_path


def test_the_nearest_name_whatever_its_case():
    assert nearest("esc10", ["ESC10", "AudioCaps"]) == "; nearest: ESC10"
    assert nearest("AudioCap", ["ESC10", "AudioCaps"]) == "; nearest: AudioCaps"
    assert nearest("Birds", ["ESC10", "AudioCaps"]) == nearest("Birds", []) == ""
    found = nearest_path(Path("ldm"), [Path("runs/ldm2"), Path("runs/vae")])
    assert found == f"; nearest: {Path('runs/ldm2')}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("egs/tta/audioldm/exp_config_smal.json", "egs/tta/audioldm/exp_config_small.json"),
        ("egs/tta/audioldn/exp_config.json", "egs/tta/audioldm/exp_config.json"),
        ("{here}/mime.json", "{here}/mine.json"),
    ],
)
def test_configs(tmp_path, monkeypatch, typed, meant):
    monkeypatch.chdir(ROOT)
    (tmp_path / "mine.json").touch()
    typed, meant = (path.format(here=tmp_path) for path in (typed, meant))
    with pytest.raises(ConfigError, match="no such config file") as caught:
        load_config(typed)
    assert str(caught.value).endswith(f"; nearest: {meant}")


def test_a_config_s_base(tmp_path):
    (tmp_path / "mine.json").write_text('{"base_config": "config/audioldn.json"}')
    with pytest.raises(ConfigError, match=r"\(base_config of .*\); nearest: config/audioldm.json"):
        load_config(tmp_path / "mine.json")


def test_runs_and_vocoders(tmp_path):
    from models.vocoders.load import load_vocoder
    from utils.run_folder import find_weights

    for name, weights in (("ldm_small", "unet"), ("vae_small", "vae"), ("voc", "vocoder")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / f"{weights}.safetensors").touch()
    runs = str(tmp_path / "runs")
    for typed in (f"{runs}/ldm_smal", "ldm_small"):  # the name alone is of a run in log_dir
        with pytest.raises(UserError) as caught:
            find_weights(typed, runs, "AudioLDM")
        message = f"{typed}: no such folder; nearest: {runs}/ldm_small; to train one, run: "
        assert str(caught.value).startswith(message)
    with pytest.raises(UserError, match="no such folder; to train"):  # there is no such VAE
        find_weights(f"{runs}/ldm_smal", runs, "AutoencoderKL")
    for typed, meant in (("griffinlim", "griffin_lim"), (f"{runs}/vocc", f"{runs}/voc")):
        with pytest.raises(UserError) as caught:
            load_vocoder(typed, MEL)
        assert str(caught.value).endswith(f"; nearest: {meant}")
