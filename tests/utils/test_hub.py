from pathlib import Path

import huggingface_hub
import pytest

from utils.errors import UserError
from utils.hub import model_folder, push


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with the model owner/model; the patterns that were asked for."""
    asked = []
    (tmp_path / "snapshot" / "vae").mkdir(parents=True)

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name != "owner/model":
            raise ConnectionError("Cannot reach it\nand more")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return asked


def test_a_model_and_a_folder_in_it(hub, tmp_path):
    assert model_folder("owner/model") == tmp_path / "snapshot"
    assert model_folder("owner/model/vae") == tmp_path / "snapshot" / "vae"
    assert "*.safetensors" in hub[0][1]
    assert "vae/*.safetensors" in hub[1][1]
    assert not any("bin" in pattern for _, patterns in hub for pattern in patterns), "no pickles"


@pytest.mark.parametrize("name", ["here", "here/missing", "/tmp/missing/x", "nothing", "../a/b"])
def test_paths_stay_paths(hub, name):
    Path("here").mkdir()
    assert model_folder(name) == Path(name)
    assert not hub


def test_without_a_network_a_folder_is_asked_for(hub):
    with pytest.raises(UserError, match="Cannot reach it\nWithout a network, give a folder"):
        model_folder("owner/other")


def test_pushing(monkeypatch, tmp_path):
    calls = []

    class Api:
        def create_repo(self, name, exist_ok):
            calls.append(name)

        def upload_folder(self, repo_id, folder_path):
            calls.append((repo_id, folder_path))
            if repo_id == "owner/closed":
                raise ConnectionError("No network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push(tmp_path, "owner/model") == "https://huggingface.co/owner/model"
    assert calls == ["owner/model", ("owner/model", tmp_path)]
    with pytest.raises(UserError, match=r"No network\nThe folder is complete, use it as it is:"):
        push(tmp_path, "owner/closed")
