"""Small U-Nets, ours and diffusers', and inputs for them."""

import diffusers
import torch

from config.model_schema import UNetConfig
from models.tta.ldm.unet import UNet

SMALL = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=[1, 2, 2],
    num_res_blocks=2,
    attention_resolutions=[4, 2, 1],
    num_heads=8,
    transformer_depth=1,
    context_dim=24,
)


def theirs(config: UNetConfig) -> diffusers.UNet2DConditionModel:
    widths = [config.model_channels * mult for mult in config.channel_mult]
    attends = [2**level in config.attention_resolutions for level in range(len(widths))]
    vector = config.context_dim if config.pooled_text else config.class_embed_dim
    return diffusers.UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=widths,
        layers_per_block=config.num_res_blocks,
        norm_num_groups=config.norm_groups,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        transformer_layers_per_block=config.transformer_depth,
        # AudioLDM's blocks attend to the map twice, where others look up a text.
        cross_attention_dim=config.context_dim or widths,
        class_embed_type="simple_projection" if vector else None,
        projection_class_embeddings_input_dim=vector,
        class_embeddings_concat=bool(config.class_embed_dim),
        use_linear_projection=config.linear_projections,
        attention_head_dim=config.num_heads,  # its name there; it counts heads
        time_cond_proj_dim=config.model_channels if config.span_embedding else None,
    )


def with_weights_of(reference: torch.nn.Module, config: UNetConfig) -> UNet:
    unet = UNet(config)
    unet.load_state_dict(reference.state_dict())
    return unet


def batch(config: UNetConfig = SMALL, size: tuple[int, int] = (10, 39), seed: int = 0):
    """A latent, timesteps, text_emb and text_mask with 5, 1 and 3 tokens."""
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(3, config.in_channels, *size, generator=draw)
    text_emb = torch.randn(3, 5, config.text_dim, generator=draw)
    text_mask = torch.arange(5)[None] < torch.tensor([5, 1, 3])[:, None]
    return latent, torch.tensor([0, 500, 999]), text_emb, text_mask
