"""A tiny model with random weights where the studio looks for runs, and a studio that serves it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from config.schema import LoRAConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.lora import AdapterSettings, adapt, adapter_tensors, hash_of, write_adapter
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.tta.studio.shelf import Limits, Shelf
from models.tta.studio.studio import Studio
from tests import tiny


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A log_dir with the runs "one" and "other", which differ in their weights."""
    root = tmp_path_factory.mktemp("studio")
    config = tiny.load(tiny.write_config(root, 2))
    vae_config = tiny.load(tiny.write_config(root, 1)).model.autoencoderkl
    words = [f"{word} sounds" for word in tiny.WORDS]
    for seed, name in enumerate(("other", "one")):
        torch.manual_seed(seed)
        text = TextEncoder.small(config.model.text_encoder.small, words, 12).eval()
        unet = UNet(config.model.audioldm).eval()
        for parameter in unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
        vae = AutoencoderKL(vae_config).eval()
        folder = root / "runs" / name / "final"
        folder.mkdir(parents=True)
        Pipeline(PipelineSettings.of(config), unet, vae, text).write(folder)
    return root / "runs"


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, runs) -> Path:
    """A log_dir with the run "lora", random adapters of the run "one"."""
    root = tmp_path_factory.mktemp("adapters")
    base, config = runs / "one" / "final", LoRAConfig(2, 2.0, "all")
    unet = UNet(PipelineSettings.read(base).unet)
    adapt(unet, config)
    torch.manual_seed(3)
    for tensor in adapter_tensors(unet).values():
        torch.nn.init.normal_(tensor, std=0.2)
    folder = root / "runs" / "lora" / "final"
    folder.mkdir(parents=True)
    settings = AdapterSettings("AudioLDM", str(base), hash_of(base, "AudioLDM"), {})
    write_adapter(folder, {"": unet}, config, settings)
    return root / "runs"


@pytest.fixture
def shelf(runs) -> Shelf:
    return Shelf([str(runs)], [], torch.device("cpu"), Limits(seconds=1.0, sounds=3, steps=20))


@pytest.fixture
def studio(shelf, tmp_path) -> Studio:
    return Studio(shelf, tmp_path / "studio")


def results(jobs) -> list:
    deadline = time.monotonic() + 300  # machines are busy
    while not all(job.look() in ("done", "failed", "cancelled") for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert [(job.state, job.fault) for job in jobs] == [("done", "")] * len(jobs)
    return [job.result for job in jobs]


@dataclass
class Served:
    """A studio on a port of this machine."""

    address: str
    studio: Studio
    uploads: Path


@contextlib.contextmanager
def serving(studio: Studio, uploads: Path, password: str = ""):
    """Serves a studio from this process."""
    pytest.importorskip(
        "gradio", reason="gradio is not installed; sh egs/tta/studio/run.sh does it"
    )
    import uvicorn

    from models.tta.studio.server import make_app

    uploads.mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(studio, uploads, password)
    config = uvicorn.Config(app, log_config=None, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", studio, uploads)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def served(runs, adapters, tmp_path_factory):
    """One without a password, with limits of 1 s, 3 sounds and 1 MB."""
    root = tmp_path_factory.mktemp("served")
    limits = Limits(seconds=1.0, sounds=3, steps=1000, upload_mb=1)
    shelf = Shelf([str(runs), str(adapters)], [], torch.device("cpu"), limits)
    with serving(Studio(shelf, root / "studio"), root / "uploads") as server:
        yield server
