"""What no page of the studio sends: it is answered in words, logged in a line, and not kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.tta.studio.turns import NOT_WORKED
from utils.audio import write_wav

gradio_client = pytest.importorskip(
    "gradio_client", reason="gradio is not installed; sh egs/tta/studio/run.sh does it"
)
uploads = pytest.importorskip("models.tta.studio.uploads")

# ---------------------------------------------------------------- requests

SENT = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
FETCHED = {"path": "http://192.0.2.1/x.wav", "meta": {"_type": "gradio.FileData"}}
JUNK = [None, "x", -1, [], {}, [1, "a", None], SENT, True, 10**30, "<script>", FETCHED, "../../x"]
EVENTS = [None, "x", {"action": "again", "number": {"a": 1}}, {"action": ["x"]}, {"begin": "x"}]


def answers(address: str, session: str) -> list[dict]:
    """Of all that the session asked for."""
    url = f"{address}/gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", url, timeout=120) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data:"))
        messages = [json.loads(line[5:]) for line in lines]
    return [message for message in messages if message["msg"] == "process_completed"]


def test_forged_requests_are_told_in_a_line(served, caplog, capfd):
    functions = httpx.get(f"{served.address}/config").json()["dependencies"]
    join = f"{served.address}/gradio_api/queue/join"
    junk, events, asked = itertools.cycle(JUNK), itertools.cycle(EVENTS), 0
    for function in functions:
        count = len(function["inputs"])
        for data in ([], [next(junk) for _ in range(count)], [next(junk)] * (count + 1)):
            body = {"data": data, "fn_index": function["id"], "session_hash": "forger"}
            body |= {"event_data": next(events), "trigger_id": 10**6, "batched": len(data) == 0}
            asked += httpx.post(join, json=body).status_code == 200
    told = answers(served.address, "forger")
    assert len(told) == asked > len(functions)
    for answer in told:
        assert answer["success"] or answer["output"]["error"]
    assert NOT_WORKED in {answer["output"].get("error") for answer in told}
    for body in ({"fn_index": 10**6}, {"fn_index": -1}, {"fn_index": None}, {"data": 3}, {}):
        got = httpx.post(join, json={"data": [], "session_hash": "forger", **body})
        assert got.status_code in (400, 422, 500), body
        assert got.status_code < 500 or got.text == NOT_WORKED
    post = [("run/predict", {"data": [1], "fn_index": function["id"]}) for function in functions]
    for path, body in post:
        got = httpx.post(f"{served.address}/gradio_api/{path}", json=body)
        assert got.status_code == 200 or "error" in got.json() or "detail" in got.json()
    post = [("component_server", {}), ("process_recording", {}), ("cancel", {}), ("reset", {})]
    for path, body in post:
        assert httpx.post(f"{served.address}/gradio_api/{path}", json=body).status_code >= 400
    assert answers(served.address, "nobody") == []
    assert "Traceback" not in capfd.readouterr().err
    assert caplog.records
    for record in caplog.records:
        assert record.exc_info is None
        assert "\n" not in record.getMessage()


def test_a_fault_of_the_studio_is_told_without_its_details(served, caplog, capfd, monkeypatch):
    def breaks(*arguments: object, **keywords: object) -> None:
        raise ZeroDivisionError("a secret\nof two lines")

    monkeypatch.setattr(served.studio.shelf, "wishes", breaks)
    client = gradio_client.Client(served.address, verbose=False, analytics_enabled=False)
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        client.predict(text="a", api_name="/generate")
    assert str(caught.value) == NOT_WORKED
    [line] = [record.getMessage() for record in caplog.records if record.name == "arion"]
    assert line.startswith("a request failed: ZeroDivisionError: a secret of two lines (")
    assert Path(__file__).name in line
    assert "Traceback" not in capfd.readouterr().err


# ---------------------------------------------------------------- uploads


@pytest.fixture(autouse=True)
def its_uploads(served, monkeypatch):
    """Gradio is told of the folder by the environment, where the latest server's stands."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(served.uploads.resolve()))


@pytest.fixture
def kept(served):
    """The files there are, beside those of before."""
    before = set(served.uploads.rglob("*"))
    return lambda: [path for path in served.uploads.rglob("*") if path not in before]


def send(served, *contents: bytes, name: str = "../../x.wav") -> httpx.Response:
    files = [("files", (name, content)) for content in contents]
    return httpx.post(f"{served.address}/gradio_api/upload", files=files)


def test_a_file_lies_in_a_folder_of_its_own_under_no_name_of_its_own(served):
    paths = [Path(send(served, b"small").json()[0]) for _ in range(2)]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.name == "sound.wav"
        assert path.parent.parent == served.uploads.resolve()
        assert path.read_bytes() == b"small"
    assert Path(send(served, b"small", name="x.<b>").json()[0]).name == "sound"


@pytest.mark.parametrize(
    ("contents", "status", "words"),
    [
        ([bytes(1_500_000)], 413, "File size exceeded maximum: see --max_upload_mb"),
        ([bytes(100)] * 200, 400, "Maximum number of files is 1"),
        ([bytes(1_000_000)] * 200, 413, "File size exceeded maximum: see --max_upload_mb"),
        ([], 400, "there is no file; send one as files"),
    ],
)
def test_what_is_refused_is_not_kept(served, kept, contents, status, words):
    refused = send(served, *contents)
    assert (refused.status_code, kept()) == (status, [])
    assert words in refused.text


@pytest.mark.parametrize("path", ["upload", "queue/join"])
@pytest.mark.parametrize("said", [True, False])
def test_no_request_is_larger_than_an_upload(served, kept, said, path):
    """Whether its length is said or not, nor one that would be read into memory."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.wav"\r\n\r\n'
    parts = [head, *[bytes(100_000)] * 60, b"\r\n--b--\r\n"]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    headers |= {"content-length": str(sum(map(len, parts)))} if said else {}
    url = f"{served.address}/gradio_api/{path}"
    refused = httpx.post(url, content=iter(parts), headers=headers)
    assert (refused.status_code, kept()) == (413, [])
    assert "--max_upload_mb" in refused.text


def test_a_sound_that_was_sent_is_gone_when_it_is_used(served, kept, tmp_path):
    """Whatever comes of it; as the source of an edit it stays only where a receipt names it."""
    write_wav(tmp_path / "good.wav", np.full(1600, 0.1), 16000)
    (tmp_path / "bad.wav").write_text("not a sound")
    client = gradio_client.Client(served.address, verbose=False, analytics_enabled=False)
    sources = served.studio.history.of("") / "sources"

    def edit(name: str, strength: float) -> dict:
        audio = gradio_client.handle_file(str(tmp_path / name))
        how = {"text": "rain", "num_steps": 2, "strength": strength}
        return client.predict(audio=audio, **how, api_name="/edit")[1][0]

    before = set(sources.glob("*"))
    for name, strength in (("bad.wav", 0.5), ("good.wav", 9.0)):
        with pytest.raises(gradio_client.exceptions.AppError):
            edit(name, strength)
        assert set(sources.glob("*")) == before
    receipt = edit("good.wav", 0.5)
    assert set(sources.glob("*")) - before == {Path(receipt["audio"])}
    assert [path for path in kept() if path.name.startswith(uploads.SENT)] == []


def test_only_what_was_sent_is_removed(served, tmp_path):
    """Whatever path a client names."""
    sent = Path(send(served, b"small").json()[0])
    other = tmp_path / sent.parent.name / "sound.wav"
    other.parent.mkdir()
    other.touch()
    for path in (str(other), str(sent), None, ""):
        with uploads.used_up(path):
            pass
    assert other.is_file()
    assert not sent.parent.exists()


def test_what_nobody_uses_goes_after_a_while_and_does_not_pile_up(served, kept, monkeypatch):
    monkeypatch.setattr(uploads, "UNUSED", 0.0)
    send(served, b"one")
    send(served, b"two")
    left = [path for path in kept() if path.is_file()]
    assert [path.read_bytes() for path in left] == [b"two"]
    monkeypatch.setattr(uploads, "UNUSED", 300.0)
    monkeypatch.setattr(uploads, "MOST", 1)
    refused = send(served, b"three")
    assert refused.status_code == 503
    assert "try again in a while" in refused.text
    assert [path for path in kept() if path.is_file()] == left
