"""Stage 2 on CLAP's embeddings of the sounds, without captions."""

import itertools
import json

import numpy as np
import pytest
import soxr
import torch
from torch.nn import functional as F
from transformers import ClapFeatureExtractor

from bins.tta.train import make_task
from config.model_schema import AutoencoderKLConfig
from models.base.accelerator import make_accelerator
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import save_vae
from models.tta.ldm.pipeline import read_pipeline
from models.tta.ldm.samples import beside_clips
from processors.clips import PCM_SCALE
from tests import small_clap, tiny
from tests.models.tta.convert.small_models import randomise
from utils.errors import UserError

SHAPE = {"context_dim": None, "class_embed_dim": small_clap.DIM}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data without captions, a VAE and a CLAP."""
    root = tmp_path_factory.mktemp("sounds")
    data = tiny.write_data(root)
    for split in ("train", "valid"):
        records = json.loads((data / f"{split}.json").read_text())
        records = [{**record, "Caption": None} for record in records]
        (data / f"{split}.json").write_text(json.dumps(records))
    torch.manual_seed(0)
    vae = randomise(AutoencoderKL(AutoencoderKLConfig(32, [1, 1], 1, False, 1, 1, 2, True)))
    (root / "vae").mkdir()
    save_vae(root / "vae", vae, tiny.MEL)
    small_clap.write_clap(root / "clap")
    return root


def config(root, **model):
    text = {"pretrained": str(root / "clap")}
    model = {"conditioner": "clap", "text_encoder": text, "audioldm": SHAPE, **model}
    model = {"autoencoder_path": str(root / "vae"), "caption_dropout": 0.4, **model}
    return tiny.load(tiny.write_config(root, 2), {"model": model})


@pytest.fixture(scope="module")
def task(root):
    settings = config(root)
    torch.manual_seed(0)
    task = make_task(settings, make_accelerator(settings), None)
    task.prepare_data(root / "cache")
    return task


@torch.no_grad()
def heard(root, record: dict, start: int) -> torch.Tensor:
    """transformers' embedding of a window of a clip, [D]."""
    pcm = np.load(root / "data/Tiny/pcm" / f"{record['Uid']}.npy") / np.float32(PCM_SCALE)
    hop, rate = tiny.MEL.hop_size, tiny.MEL.sample_rate
    crop = pcm[start * hop : (start + tiny.FRAMES) * hop].astype(np.float32)
    extract = ClapFeatureExtractor.from_pretrained(root / "clap")
    wav = soxr.resample(crop, rate, 48000, "HQ")
    features = extract(wav, sampling_rate=48000, return_tensors="pt")
    return F.normalize(small_clap.small_clap().get_audio_features(**features).pooler_output)[0]


def test_each_window_has_the_embedding_of_its_own_sound(root, task):
    """Longer clips are cut into several windows, and a shorter one is heard without its padding."""
    records = [*task.train_records, *task.valid_records]
    rows = task.sounds.take(np.arange(len(task.latents.windows)))
    assert len(rows) > len(records)
    for number, (clip, start) in enumerate(task.latents.windows):
        expected = heard(root, records[clip], start)
        torch.testing.assert_close(rows[number].float(), expected, rtol=0, atol=1e-3)
    assert (rows.float() @ rows.float().T).min() < 0.999, "they differ"


def test_a_batch_holds_its_clips_embeddings_or_the_empty_text_s(task):
    (empty,), _ = task.text_encoder.encode([""])
    known = {tuple(row.tolist()) for row in task.sounds.take(np.arange(len(task.latents.windows)))}
    dropped = total = 0
    for batch in itertools.islice(task.batches(0), 60):
        assert batch["text_emb"].shape == (4, 1, small_clap.DIM)
        assert batch["text_mask"].all()
        for row in batch["text_emb"][:, 0]:
            total += 1
            if torch.allclose(row, empty[0], atol=1e-6):
                dropped += 1
            else:
                assert tuple(row.tolist()) in known
    assert dropped / total == pytest.approx(0.4, abs=0.1)


def test_it_learns_of_the_embedding_and_samples_from_a_text(task, tmp_path):
    batch = next(task.batches(0))
    task.unet.conv_out.weight.data.normal_(0, 0.1)  # it starts at 0, behind which nothing learns
    for block in (*task.unet.down_blocks, task.unet.mid_block):
        for resnet in block.resnets:
            resnet.conv2.weight.data.normal_(0, 0.1)
    next(task.losses(batch, 0, 0)).value.backward()
    assert task.unet.class_embedding.weight.grad.abs().max() > 0
    mels = task.pipeline()(["a dog barks", "rain falls"], [3, 3])
    assert (mels[0] - mels[1]).abs().max() > 1e-4, "the texts differ"
    task.save_for_inference(tmp_path)
    again = read_pipeline(tmp_path)(["a dog barks", "rain falls"], [3, 3])
    torch.testing.assert_close(again, mels, rtol=1e-4, atol=1e-4)


def test_clips_without_captions_have_no_sounds_beside_them(task):
    records = [{**record, "Caption": None} for record in task.valid_records]
    assert beside_clips(task.config, records, task.pipeline(), task.vocoder, 0) == []
    named = [*records, {**records[0], "Caption": "a dog"}]
    samples = beside_clips(task.config, named, task.pipeline(), task.vocoder, 0)
    assert [sample.name for sample in samples] == ["0/generated", "0/original"]


def test_a_t5_is_not_trained_without_captions(root):
    settings = config(
        root,
        conditioner="t5",
        text_encoder={},
        audioldm={"context_dim": 16, "class_embed_dim": None},
    )
    with pytest.raises(UserError, match="8 of 8 records have no caption"):
        make_task(settings, make_accelerator(settings), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioner": "t5"}, "conditioner 't5', audioldm.class_embed_dim 16 and"),
        ({"text_encoder": {"pretrained": None}}, "text_encoder.pretrained null must name a CLAP"),
    ],
)
def test_what_does_not_fit_is_refused(root, changes, message):
    with pytest.raises(UserError, match=message):
        config(root, **changes)
