"""The studio over its port: what programs get, and what nobody gets."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import httpx
import pytest

from models.tta.studio.studio import Studio
from tests.models.tta.studio.conftest import serving

gradio_client = pytest.importorskip(
    "gradio_client", reason="gradio is not installed; sh egs/tta/studio/run.sh does it"
)
QUICK = {"duration": 0.1, "num_steps": 2}


def client(served, **login):
    return gradio_client.Client(served.address, verbose=False, analytics_enabled=False, **login)


def test_a_program_gets_sounds_and_receipts(served, tmp_path):
    files, receipts = client(served).predict(
        text="a dog", num_sounds=2, seed=5, **QUICK, api_name="/generate"
    )
    assert [receipt["seed"] for receipt in receipts] == [5, 6]
    for file, receipt in zip(files, receipts, strict=True):
        kept = served.studio.history.file("", receipt["file"])
        assert Path(file).read_bytes() == kept.read_bytes()


def test_a_program_chooses_adapters(served, runs, adapters):
    asked = {"model": f"{runs}/one", "lora": [f"{adapters}/lora:0.5"]}
    _, [receipt] = client(served).predict(text="a dog", **asked, **QUICK, api_name="/generate")
    [used] = receipt["lora"]
    assert (used["folder"], used["weight"]) == (f"{adapters}/lora/final", 0.5)


def test_many_at_once_get_each_their_own(served):
    def ask(number: int) -> list[dict]:
        texts = {"text": f"a bell {number}", "num_sounds": 2, "seed": 100 * number}
        return client(served).predict(**texts, **QUICK, api_name="/generate")[1]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for number, receipts in enumerate(pool.map(ask, range(6))):
            got = [(receipt["text"], receipt["seed"]) for receipt in receipts]
            assert got == [(f"a bell {number}", 100 * number + k) for k in range(2)]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"text": " "}, "there is no text; say what to hear"),
        ({"text": "a" * 2000}, "text: 2000 characters; at most 1000 here"),
        ({"text": "a", "duration": 60}, "duration: 60 s; at most 1 s here"),
        ({"text": "a", "duration": "long"}, "duration: must be a valid number, not 'long'"),
        ({"text": "a", "num_steps": 2.5}, "num_steps: must be a valid integer, not 2.5"),
        ({"text": "a", "duration": -1}, "duration: -1 must be > 0"),
        ({"text": "a", "num_sounds": 1000}, "number of sounds: 1000 must be"),
        ({"text": "a", "sampler": "euler"}, "sampler 'euler' must be one of ddim"),
        ({"text": "a", "lora": ["../../x"]}, "adapters '../../x' are not there"),
        ({"text": "a", "model": "../../x"}, "model '../../x' is not there"),
        ({"text": "a", "vocoder": "/etc/passwd"}, "vocoder '/etc/passwd' is not there"),
    ],
)
def test_bad_input_is_an_error_in_words(served, wish, message, capfd):
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        client(served).predict(**{**QUICK, **wish}, api_name="/generate")
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value) + capfd.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "/sounds/..%2f..%2fx",
        "/sounds/%2e%2e/%2e%2e/pyproject.toml",
        "/sources/..%2f0000.wav",
        "/quickstart/..%2fpyproject.toml",
        "/quickstart/runs/x/config.json",
        "/runs/one/final/unet.safetensors",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=models/tta/studio/studio.py",
    ],
)
def test_no_other_file_is_given_away(served, path):
    assert httpx.get(served.address + path).status_code in (401, 403, 404)


def test_a_receipt_is_shown_and_a_zip_holds_them(served, tmp_path):
    client(served).predict(text="rain", **QUICK, api_name="/generate")
    newest = served.studio.history.newest("", 0, 1)[0]
    got = httpx.get(f"{served.address}/sounds/{newest.number}.json")
    assert json.loads(got.text) == newest.receipt
    assert httpx.get(f"{served.address}/sounds.zip").content[:2] == b"PK"


def test_with_a_password_nothing_is_seen_without_it(shelf, tmp_path):
    studio = Studio(shelf, tmp_path / "studio")
    with serving(studio, tmp_path / "uploads", "secret") as served:
        for path in ("/sounds/0000.wav", "/sounds.zip", "/gradio_api/info", "/config"):
            assert httpx.get(served.address + path).status_code == 401, path
        with pytest.raises(Exception, match="Could not login"):
            client(served, auth=("me", "wrong"))
        for name in ("me", "../../you"):
            asks = client(served, auth=(name, "secret"))
            asks.predict(text=f"{name} sings", **QUICK, api_name="/generate")
        assert [kept.receipt["text"] for kept in studio.history.newest("me")] == ["me sings"]
        assert studio.history.count("../../you") == 1
        assert studio.history.count("") == 0
        with httpx.Client(base_url=served.address) as browser:
            browser.post("/login", data={"username": "me", "password": "secret"})
            got = browser.get("/sounds/0000.json").json()
            assert got["text"] == "me sings"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["studio", "uploads"]
