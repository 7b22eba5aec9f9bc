"""HiFi-GAN folders in both formats, against a generator written out here after the paper's code."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from config.schema import MelConfig
from models.vocoders.load import load_vocoder
from processors.mel import SETTINGS_FILE
from utils.errors import UserError

# The old function is what published checkpoints were saved with.
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")

MEL = MelConfig(
    sample_rate=16000, n_fft=64, win_size=64, hop_size=16, n_mel=10, fmin=0.0, fmax=8000.0
)
PUBLISHED = {
    "resblock": "1",
    "upsample_rates": [4, 2, 2],
    "upsample_kernel_sizes": [8, 4, 4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]],
    "num_mels": 10,
    "n_fft": 64,
    "hop_size": 16,
    "win_size": 64,
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
    "learning_rate": 0.0002,
    "segment_size": 8192,
}


class ResBlock1(nn.Module):
    def __init__(self, channels, kernel, dilations, norm):
        super().__init__()

        def conv(dilation):
            padding = dilation * (kernel - 1) // 2
            return norm(nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation))

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x):
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class ResBlock2(nn.Module):
    def __init__(self, channels, kernel, dilations, norm):
        super().__init__()
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(channels, channels, kernel, padding=d * (kernel - 1) // 2, dilation=d))
            for d in dilations
        )

    def forward(self, x):
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class Generator(nn.Module):
    """The paper's generator (appendix A.1), with the published names of its parameters."""

    def __init__(self, h, norm):
        super().__init__()
        width = h["upsample_initial_channel"]
        self.conv_pre = norm(nn.Conv1d(h["num_mels"], width, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(h["upsample_rates"], h["upsample_kernel_sizes"], strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(norm(up))
            width //= 2
            for size, dilations in zip(
                h["resblock_kernel_sizes"], h["resblock_dilation_sizes"], strict=True
            ):
                block = {"1": ResBlock1, "2": ResBlock2}[h["resblock"]]
                self.resblocks.append(block(width, size, dilations, norm))
        self.kernels = len(h["resblock_kernel_sizes"])
        self.conv_post = norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel):
        x = self.conv_pre(mel)
        for level, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            blocks = self.resblocks[level * self.kernels : (level + 1) * self.kernels]
            x = sum(block(x) for block in blocks) / self.kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x)))[:, 0]


def published(norm=nn.utils.weight_norm, config=PUBLISHED) -> Generator:
    torch.manual_seed(0)
    generator = Generator(config, norm)
    with torch.no_grad():  # so that g is not |v|, as it is at the start
        for parameter in generator.parameters():
            parameter.mul_(1 + 0.5 * torch.rand(parameter.shape)).add_(0.02)
    return generator


def write_published(folder, generator, config=PUBLISHED, name="g_02500000"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"generator": generator.state_dict()}, folder / name)
    return str(folder)


@pytest.fixture
def mels():
    return torch.randn(3, 10, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own_folder(tmp_path):
    torch.manual_seed(0)
    config = SpeechT5HifiGanConfig(
        model_in_dim=10,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        initializer_range=0.3,
    )
    generator = SpeechT5HifiGan(config)
    generator.mean.fill_(-3.0)
    generator.scale.fill_(2.0)
    generator.save_pretrained(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(dataclasses.asdict(MEL)))
    return tmp_path


# ---------------------------------------------------------------- the published format


@torch.no_grad()
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, lambda module: module]
)
def test_published_weights_sound_as_in_the_paper_s_network(tmp_path, mels, norm):
    generator = published(norm)
    vocoder = load_vocoder(write_published(tmp_path, generator), MEL)
    wav = vocoder(mels)
    assert wav.shape == (3, 9 * 16)
    assert wav.std() > 0.01
    torch.testing.assert_close(wav, generator(mels), rtol=1e-4, atol=1e-5)


V3 = {**PUBLISHED, "resblock": "2", "resblock_dilation_sizes": [[1, 2], [2, 6]]}


@torch.no_grad()
def test_plain_residual_blocks(tmp_path, mels):
    generator = published(config=V3)
    vocoder = load_vocoder(write_published(tmp_path / "theirs", generator, V3), MEL)
    wav = vocoder(mels)
    assert wav.std() > 0.01
    torch.testing.assert_close(wav, generator(mels), rtol=1e-4, atol=1e-5)
    vocoder.save(tmp_path / "ours")
    again = load_vocoder(str(tmp_path / "ours"), MEL)
    torch.testing.assert_close(again(mels), wav, rtol=0, atol=0)


@torch.no_grad()
def test_samples_beyond_the_last_frame_are_cut(tmp_path, mels):
    """AudioLDM's vocoder has rates 5, 4, 2, 2, 2 and kernels 16, 16, 8, 4, 4: 32 samples more."""
    shape = {**PUBLISHED, "upsample_kernel_sizes": [9, 5, 4]}
    generator = published(config=shape)
    expected = generator(mels)
    assert expected.shape[1] > 9 * 16
    wav = load_vocoder(write_published(tmp_path, generator, shape), MEL)(mels)
    torch.testing.assert_close(wav, expected[:, : 9 * 16], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_newest_generator_is_taken(tmp_path, mels):
    first, last = published(), published()
    last.conv_post.bias.fill_(0.5)
    write_published(tmp_path, last, name="g_00010000")
    write_published(tmp_path, first, name="g_00005000")
    torch.save({"mpd": {}, "msd": {}}, tmp_path / "do_00010000")
    wav = load_vocoder(str(tmp_path), MEL)(mels)
    torch.testing.assert_close(wav, last(mels), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["generator_v1", "generator_v3"])
def test_the_file_names_of_the_published_folders(tmp_path, mels, name):
    """They hold a generator_v1, and configs of fmax null: half of the sample rate, as in librosa"""
    generator = published()
    folder = write_published(tmp_path, generator, {**PUBLISHED, "fmax": None}, name=name)
    torch.testing.assert_close(
        load_vocoder(folder, MEL)(mels), generator(mels), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(
        UserError, match=r"vocoder .*: made for another mel.*fmax 8000.0 and 7600.0"
    ):
        load_vocoder(folder, dataclasses.replace(MEL, fmax=7600.0))


def test_batched_equals_one_by_one(tmp_path, mels):
    vocoder = load_vocoder(write_published(tmp_path, published()), MEL)
    alone = torch.cat([vocoder(mel[None]) for mel in mels])
    torch.testing.assert_close(vocoder(mels), alone, rtol=1e-4, atol=1e-5)


def test_another_mel_is_refused_by_name_of_the_setting(tmp_path):
    folder = write_published(tmp_path, published(), {**PUBLISHED, "sampling_rate": 22050})
    with pytest.raises(UserError, match=r"sample_rate 22050 and 16000$"):
        load_vocoder(folder, MEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resblock": "3"}, "resblock '3' must be '1' or '2'"),
        ({"resblock": "2"}, 'Missing key.*"resblocks.0.convs.0.weight"'),
        ({"resblock_kernel_sizes": [3, 5]}, "weights of another model"),
        ({"upsample_rates": [4, 4, 2]}, "32 samples a frame"),
        ({"upsample_rates": "many"}, "describes no HiFi-GAN"),
        ({"upsample_kernel_sizes": []}, "describes no HiFi-GAN"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, change, message):
    folder = write_published(tmp_path, published(), {**PUBLISHED, **change})
    with pytest.raises(UserError, match=message):
        load_vocoder(folder, MEL)


@pytest.mark.parametrize("name", ["hop_size", "upsample_rates"])
def test_a_missing_setting_is_named(tmp_path, name):
    config = {key: value for key, value in PUBLISHED.items() if key != name}
    with pytest.raises(UserError, match=f"config.json: {name} is missing"):
        load_vocoder(write_published(tmp_path, published(), config), MEL)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    folder = write_published(tmp_path, published())
    torch.save({"generator": RunsCode(tmp_path / "ran")}, tmp_path / "g_02500000")
    with pytest.raises(UserError, match="g_02500000: refused, since it holds more than tensors"):
        load_vocoder(folder, MEL)
    assert not (tmp_path / "ran").exists()


def test_damaged_checkpoints_are_named(tmp_path):
    folder = write_published(tmp_path, published())
    weights = tmp_path / "g_02500000"
    whole = weights.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"g_02500000: not a file of torch.save"):
            load_vocoder(folder, MEL)
    for data in ({"mpd": {}}, {"generator": [1]}, {"generator": {3: torch.ones(1)}}, torch.ones(2)):
        torch.save(data, weights)
        with pytest.raises(UserError, match=r"g_02500000: (must hold|not all of it)"):
            load_vocoder(folder, MEL)
    tensors = published().state_dict()
    del tensors["conv_pre.weight_v"]
    torch.save({"generator": tensors}, weights)
    with pytest.raises(UserError, match=r"conv_pre\.weight_g has no weight_v"):
        load_vocoder(folder, MEL)
    weights.unlink()
    with pytest.raises(UserError, match="no g_XXXXXXXX or generator_vX"):
        load_vocoder(folder, MEL)


# ---------------------------------------------------------------- transformers' format


@torch.no_grad()
def test_a_folder_of_transformers_sounds_as_there(own_folder, mels):
    vocoder = load_vocoder(str(own_folder), MEL)
    wav = vocoder(mels)
    assert wav.shape == (3, 9 * 16)
    expected = SpeechT5HifiGan.from_pretrained(own_folder)(mels.transpose(1, 2))
    torch.testing.assert_close(wav, expected)
    assert not any(parameter.requires_grad for parameter in vocoder.parameters())


def test_its_mel_must_be_beside_it_and_the_same(own_folder):
    other = dataclasses.replace(MEL, fmax=7600.0, fmin=80.0)
    with pytest.raises(UserError, match=r"fmin 0\.0 and 80\.0, fmax 8000\.0 and 7600\.0"):
        load_vocoder(str(own_folder), other)
    (own_folder / SETTINGS_FILE).unlink()
    with pytest.raises(UserError, match=r"mel_config\.json: missing"):
        load_vocoder(str(own_folder), MEL)


def test_a_mel_that_the_network_cannot_take_is_refused(own_folder):
    other = dataclasses.replace(MEL, n_mel=12)
    (own_folder / SETTINGS_FILE).write_text(json.dumps(dataclasses.asdict(other)))
    with pytest.raises(UserError, match="10 bands into 16 samples a frame"):
        load_vocoder(str(own_folder), other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "bert"}'),
        ("config.json", '{"model_type": "speecht5_hifigan", "upsample_rates": {}}'),
        ("model.safetensors", "not tensors"),
        (SETTINGS_FILE, "{}"),
        (SETTINGS_FILE, '{"sample_rate": "high"}'),
    ],
)
def test_damaged_folders_are_named(own_folder, name, content):
    (own_folder / name).write_text(content)
    with pytest.raises(UserError, match=name):
        load_vocoder(str(own_folder), MEL)


def test_an_empty_folder_is_no_vocoder(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        load_vocoder(str(tmp_path), MEL)
