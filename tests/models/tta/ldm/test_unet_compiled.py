import dataclasses

import pytest
import torch

from tests.unets import SMALL, batch, theirs, with_weights_of


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, channel_mult=[1, 1], num_res_blocks=1, attention_resolutions=[2]
    )
    unet = with_weights_of(theirs(config), config)
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    latent, timesteps, text_emb, text_mask = batch(size=(5, 6))
    expected = unet(latent, timesteps, text_emb, text_mask)
    torch.testing.assert_close(compiled(latent, timesteps, text_emb, text_mask), expected)
    context = unet.prepare_text(text_emb, text_mask)
    torch.testing.assert_close(compiled(latent, timesteps, context=context), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_compiled_on_a_gpu_its_gradients_are_those_of_float32(bf16, checkpointing):
    where = {"device": "cuda", "memory_format": torch.channels_last}
    torch.manual_seed(0)
    network = with_weights_of(theirs(SMALL), SMALL).to(**where)
    latent, *rest = batch()
    inputs = latent.to(**where), *(tensor.to("cuda") for tensor in rest)

    def gradients(bf16: bool) -> list[torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            prediction = network(*inputs)
        prediction.float().square().mean().backward()
        return [parameter.grad for parameter in network.parameters()]

    expected = gradients(bf16=False)
    network.enable_gradient_checkpointing(checkpointing)
    network.compile(dynamic=False)
    for found, wanted in zip(gradients(bf16), expected, strict=True):
        assert (found - wanted).norm() <= 0.1 * wanted.norm()
