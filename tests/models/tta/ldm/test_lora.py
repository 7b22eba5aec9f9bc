"""Adapters: beside the formula written out, and beside peft's own reading of their files."""

import dataclasses
import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from config.schema import LoRAConfig
from models.tta.ldm.lora import (
    Adapter,
    AdapterSettings,
    adapt,
    adapter_tensors,
    base_of,
    find_adapters,
    hash_of,
    merge,
    write_adapter,
)
from models.tta.ldm.unet import UNet
from tests import tiny
from tests.models.tta.convert.small_models import randomise
from utils.checkpoint import load_tensors, read_json, save_tensors, write_json
from utils.errors import UserError

WEIGHTS = "adapter_model.safetensors"
IN_ATTENTION = {"to_q", "to_k", "to_v", "0"}  # the last one is to_out.0
IN_ALL = {"proj_in", "proj_out", "proj", "2", "time_emb_proj", "class_embedding"}
IN_ALL |= {"conv1", "conv2", "conv_shortcut", "conv"}


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    config = tiny.load(tiny.write_config(tmp_path_factory.mktemp("lora"), 2))
    return dataclasses.replace(config.model.audioldm, pooled_text=True)


def network(shape) -> UNet:
    """With the same random weights each time."""
    torch.manual_seed(0)
    return randomise(UNet(shape))


def predict(unet) -> Tensor:
    random = torch.Generator().manual_seed(1)
    latent, text = (torch.randn(s, generator=random) for s in ((2, 2, 8, 8), (2, 5, 16)))
    with torch.no_grad():
        return unet(latent, torch.tensor([7, 900]), text, torch.ones(2, 5))


def network_with(shape, config: LoRAConfig, seed: int = 2) -> UNet:
    """The same with adapters of random weights."""
    unet = network(shape)
    torch.manual_seed(seed)
    adapt(unet, config)
    with torch.no_grad():
        for tensor in adapter_tensors(unet).values():
            tensor.normal_(0, 0.1)
    return unet


def write(folder: Path, shape, config: LoRAConfig, seed: int = 2) -> UNet:
    """A network whose adapters have random weights; they are written into `folder`, and beside it
    its own as base."""
    base = folder / "base"
    base.mkdir(parents=True)
    save_tensors(base / "unet.safetensors", network(shape).state_dict())
    unet = network_with(shape, config, seed)
    settings = AdapterSettings("AudioLDM", str(base), hash_of(base, "AudioLDM"), {})
    write_adapter(folder, {"": unet}, config, settings)
    return unet


@pytest.fixture(scope="module")
def adapted(shape, tmp_path_factory) -> tuple[UNet, Path]:
    folder = tmp_path_factory.mktemp("adapted") / "lora"
    return write(folder, shape, LoRAConfig(3, 6.0, "all")), folder


@pytest.mark.parametrize(
    ("target", "layers"), [("attention", IN_ATTENTION), ("all", IN_ATTENTION | IN_ALL)]
)
def test_new_adapters_change_nothing_and_alone_learn(shape, target, layers):
    unet, before = network(shape), predict(network(shape))
    adapt(unet, LoRAConfig(4, 4.0, target))
    assert torch.equal(predict(unet), before)
    learn = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert learn == {name for name, _ in unet.named_parameters() if ".lora_" in name}
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in learn} == layers
    for name in ("conv_in", "conv_out", "time_embedding"):
        assert not any(name in learning for learning in learn)


def test_what_is_merged_is_the_formula(shape, adapted):
    folder = adapted[1]
    merged, before = network(shape), network(shape).state_dict()
    merge(merged, [Adapter.find(str(folder))])
    tensors, changed = load_tensors(folder / WEIGHTS), set()
    for name, down in tensors.items():
        if ".lora_A." in name:
            up = tensors[name.replace("lora_A", "lora_B")].flatten(1)
            name = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            changed.add(name)
            expected = before[name] + 6 / 3 * torch.einsum("or,r...->o...", up, down)
            torch.testing.assert_close(merged.state_dict()[name], expected)
    assert {before[name].dim() for name in changed} == {2, 4}
    assert {before[name].shape[-1] for name in changed if before[name].dim() == 4} == {1, 3}
    for name, weight in before.items():
        assert torch.equal(merged.state_dict()[name], weight) == (name not in changed), name


def test_peft_reads_the_files_as_we_do(shape, adapted):
    unet, folder = adapted
    merged = network(shape)
    merge(merged, [Adapter.find(str(folder))])
    theirs = PeftModel.from_pretrained(network(shape), folder)
    before, after = predict(network(shape)), predict(merged)
    assert (after - before).std() > 0.1 * before.std()
    torch.testing.assert_close(predict(theirs), after, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predict(unet), after, rtol=1e-4, atol=1e-4)
    whole = theirs.merge_and_unload().state_dict()
    assert whole.keys() == merged.state_dict().keys()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(whole[name], weight)


@pytest.mark.parametrize(
    ("target", "layers"),
    [("attention", {*"qkvo"}), ("all", {*"qkvo", "wi_0", "wi_1", "wo"})],
)
def test_those_of_a_t5_are_read_by_peft_as_by_us(shape, tmp_path, target, layers):
    size = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = T5Config(**size, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    torch.manual_seed(0)
    base = randomise(T5EncoderModel(config).eval())
    tokens = torch.tensor([[3, 7, 1], [5, 2, 9]])
    lora = LoRAConfig(3, 6.0, target, text_encoder=True)
    network = deepcopy(base)
    adapt(network, lora)
    named = adapter_tensors(network)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in named} == layers
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        for name in named
    }
    with torch.no_grad():
        before = base(tokens).last_hidden_state
        torch.testing.assert_close(network(tokens).last_hidden_state, before)
        for tensor in named.values():
            tensor.normal_(0, 0.1)
        adapted = network(tokens).last_hidden_state
        assert (adapted - before).abs().max() > 0.1
        folder = tmp_path / "lora"
        folder.mkdir()
        settings = AdapterSettings("AudioLDM", "base", "", {})
        networks = {"": network_with(shape, lora), "text_encoder": network}
        write_adapter(folder, networks, lora, settings)
        of_peft = PeftModel.from_pretrained(deepcopy(base), folder / "text_encoder").eval()
        torch.testing.assert_close(of_peft(tokens).last_hidden_state, adapted)
        merged = deepcopy(base)
        merge(merged, [Adapter(folder, 1.0, settings)], "text_encoder")
        torch.testing.assert_close(merged(tokens).last_hidden_state, adapted, rtol=1e-4, atol=1e-5)


def test_several_add_up_by_their_weights(shape, adapted, tmp_path):
    write(tmp_path / "other", shape, LoRAConfig(1, 5.0, "attention"), seed=3)
    chosen = [f"{adapted[1]}:-0.5", f"{tmp_path}/other:2"]
    together, before = network(shape), network(shape).state_dict()
    merge(together, find_adapters(chosen, "AudioLDM"))
    expected = {name: weight.clone() for name, weight in before.items()}
    for folder, weight in ((adapted[1], -0.5), (tmp_path / "other", 2.0)):
        alone = network(shape)
        merge(alone, find_adapters([str(folder)]))
        for name, value in alone.state_dict().items():
            expected[name] += weight * (value - before[name])
    for name, value in together.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def test_a_name_with_a_colon_in_it(adapted, tmp_path):
    (tmp_path / "a:b").symlink_to(adapted[1])
    for text, weight in (("", 1.0), (":1e-1", 0.1), (":-2", -2.0)):
        assert Adapter.find(f"{tmp_path}/a:b{text}").weight == weight


def test_what_is_no_adapter_of_this_model(shape, adapted, tmp_path):
    folder = adapted[1]
    for text, said in (
        (f"{folder}:nan", "the weight must be a finite number"),
        (f"{folder}:inf", "the weight must be a finite number"),
        (f"{tmp_path}/gone:2", "/gone: no such folder; to train one, run"),
        (f"{tmp_path}", "holds no LoRA"),
    ):
        with pytest.raises(UserError, match=said):
            Adapter.find(text)
    shutil.copytree(folder, tmp_path / "editor")
    settings = read_json(folder / "pipeline.json")
    write_json(tmp_path / "editor/pipeline.json", {**settings, "adapts": "AUDIT"})
    both = [str(folder), f"{tmp_path}/editor"]
    for texts, kind in ((both, None), (both[1:], "AudioLDM")):
        with pytest.raises(UserError, match="editor: it adapts an AUDIT, not an AudioLDM"):
            find_adapters(texts, kind)
    adapter = Adapter.find(str(folder))
    other = tmp_path / "weights"
    other.mkdir()
    save_tensors(other / "unet.safetensors", network(shape).double().state_dict())
    with pytest.raises(UserError, match=r"it adapts the weights .* in .*/weights are "):
        adapter.check_base(other)
    adapter.check_base(folder / "base")
    assert base_of([adapter], None) == str(folder / "base")
    gone = dataclasses.replace(adapter.settings, base=str(tmp_path / "gone"))
    adapter = dataclasses.replace(adapter, settings=gone)
    with pytest.raises(UserError, match="gone is not there any more; say where it is: --check"):
        base_of([adapter], None)
    assert base_of([adapter], "there") == "there"
    assert base_of([], None) is None


def test_adapters_for_other_shapes(shape, adapted):
    wide = network(dataclasses.replace(shape, model_channels=64))
    flat = network(dataclasses.replace(shape, attention_resolutions=[1]))
    for unet, here in ((wide, r"\[256, 16\]"), (flat, "missing")):
        with pytest.raises(UserError, match=f"lora: made for another network: .* and {here} here"):
            merge(unet, [Adapter.find(str(adapted[1]))])


def test_files_that_say_something_else(shape, adapted, tmp_path):
    folder = shutil.copytree(adapted[1], tmp_path / "lora")
    config, tensors = read_json(folder / "adapter_config.json"), load_tensors(folder / WEIGHTS)
    first = next(name for name in tensors if "lora_A" in name)

    def fault() -> str:
        with pytest.raises(UserError) as caught:
            merge(network(shape), [Adapter.find(str(folder))])
        return str(caught.value)

    for changes, said in (
        ({"use_rslora": True}, "use_rslora is True, which is not supported"),
        ({"rank_pattern": {"to_q": 8}}, "rank_pattern is {'to_q': 8}, which"),
        ({"alpha_pattern": {"to_q": 8}}, "alpha_pattern is {'to_q': 8}, which"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', which"),
        ({"r": 2}, "is no part of a LoRA of rank 2"),
        ({"r": 0}, "r and lora_alpha must be there"),
        ({"lora_alpha": None}, "r and lora_alpha must be there"),
    ):
        write_json(folder / "adapter_config.json", {**config, **changes})
        assert said in fault()
    write_json(folder / "adapter_config.json", config)
    half = {name: tensor for name, tensor in tensors.items() if name != first}
    more = {"base_model.model.conv_in.bias": torch.zeros(32)}
    for held in (half, tensors | more):
        save_tensors(folder / WEIGHTS, held)
        assert "is no part of a LoRA of rank 3" in fault()
    settings = json.loads((folder / "pipeline.json").read_text())
    write_json(folder / "pipeline.json", {**settings, "version": 2})
    assert "version 2 is of newer code" in fault()
