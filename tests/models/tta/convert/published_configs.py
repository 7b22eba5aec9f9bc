"""U-Net configs of published pipelines, key by key as their config.json holds them."""

from __future__ import annotations

# What every config.json of diffusers 0.15 holds, with the values of both families.
COMMON = {
    **{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.15.0.dev0"},
    **{"act_fn": "silu", "center_input_sample": False, "downsample_padding": 1},
    **{"dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 8},
    **{"layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05},
    **{"norm_num_groups": 32, "num_class_embeds": None, "only_cross_attention": False},
    "out_channels": 8,
}
DOWN = ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3
TANGO = {
    **COMMON,
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": DOWN[::-1],
    "sample_size": [32, 2],
    "up_block_types": [name.replace("Down", "Up") for name in DOWN],
    "use_linear_projection": True,
    "upcast_attention": True,
}


def audioldm(channels: int) -> dict:
    """As `convert_original_audioldm_to_diffusers` makes it, and the class fills it up."""
    widths = [channels * mult for mult in (1, 2, 3, 5)]
    return {
        **COMMON,
        "attention_head_dim": 8,
        "block_out_channels": widths,
        "class_embed_type": "simple_projection",
        "class_embeddings_concat": True,
        **{"conv_in_kernel": 3, "conv_out_kernel": 3},
        "cross_attention_dim": widths,
        "down_block_types": DOWN,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "projection_class_embeddings_input_dim": 512,
        **{"resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False},
        "resnet_time_scale_shift": "default",
        "sample_size": 128,
        **{"time_cond_proj_dim": None, "time_embedding_type": "positional"},
        "timestep_post_act": None,
        "up_block_types": [name.replace("Down", "Up") for name in DOWN[::-1]],
        **{"upcast_attention": False, "use_linear_projection": False},
    }
