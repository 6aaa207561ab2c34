"""Checkpoints in one file, and LoRAs, draw what the same weights draw in a pipeline folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_pipelines import make_sd

from negbench.generators.base import RunOptions
from negbench.generators.loading import quiet
from negbench.generators.resolve import resolve
from negbench.types import Guidance, ImageRequest, Negative, Treatment

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
}
VAE = {
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "down_blocks.0.downsamplers.0": "down.0.downsample",
    "up_blocks.0.upsamplers.0": "up.1.upsample",
    "down_blocks.0.resnets": "down.0.block",
    "down_blocks.1.resnets": "down.1.block",
    "up_blocks.0.resnets": "up.1.block",
    "up_blocks.1.resnets": "up.0.block",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def original_names(parts):
    """The tiny pipeline's weights under the names of the original checkpoints."""
    tensors = {}
    for key, tensor in parts.unet.state_dict().items():
        old = next(name for name in sorted(UNET, key=len, reverse=True) if key.startswith(name))
        new = UNET[old] + key[len(old) :]
        if "resnets" in old:
            for name, original in RESNET.items():
                new = new.replace(name, original)
        tensors[f"model.diffusion_model.{new}"] = tensor
    for key, tensor in parts.vae.state_dict().items():
        new = key
        for name, original in VAE.items():
            new = new.replace(name, original)
        tensors[f"first_stage_model.{new}"] = tensor
    for key, tensor in parts.encoders[0].state_dict().items():
        inside = key.removeprefix("text_model.")
        tensors[f"cond_stage_model.transformer.text_model.{inside}"] = tensor
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sd(tmp_path_factory.mktemp("pipelines") / "sd")


def generator_of(spec, **params):
    return resolve(
        str(spec),
        params={"dtype": "float32", "steps": 3, "scheduler": "ddim", **params},
        options=RunOptions(device="cpu"),
    )


def picture(generator):
    request = ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt="a red house", negatives=(Negative(text="snow"),), guidance=Guidance()
        ),
        seed=5,
    )
    return next(iter(generator.draw([request]))).pixels


def test_one_file_draws_what_the_folder_draws(folder, tmp_path):
    whole = generator_of(folder)
    expected = picture(whole)
    network = whole.load()
    network.vae.to(memory_format=torch.contiguous_format)
    save_file(original_names(network), tmp_path / "tiny.safetensors")
    single = generator_of(tmp_path / "tiny.safetensors", config=str(folder))
    assert single.ref() != whole.ref()  # other files, other identity
    assert single.ref() == generator_of(tmp_path / "tiny.safetensors", config=str(folder)).ref()
    assert np.array_equal(picture(single), expected)


def test_a_lora_is_fused_as_diffusers_does_it(folder, tmp_path):
    peft = pytest.importorskip("peft")
    import diffusers

    from negbench.generators.loading import load_parts

    with quiet():
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(
            str(folder), low_cpu_mem_usage=False
        )
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        torch.manual_seed(1)
        pipe.unet.add_adapter(
            peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False)
        )
        layers = peft.get_peft_model_state_dict(pipe.unet)
        pipe.save_lora_weights(str(tmp_path), unet_lora_layers=layers)
        path = tmp_path / "pytorch_lora_weights.safetensors"
        pipe.unet.delete_adapters("default")
        pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
        pipe.fuse_lora(lora_scale=0.7)
        pipe.unload_lora_weights()
    fused = generator_of(folder, lora=f"{path}:0.7")
    plain = load_parts(fused.pipeline).unet.state_dict()
    mine = load_parts(fused.pipeline, lora=[(str(path), 0.7)]).unet.state_dict()
    changed = 0
    for key, tensor in pipe.unet.state_dict().items():
        assert torch.equal(mine[key], tensor), key
        changed += not torch.equal(tensor, plain[key])
    assert changed >= 8
    refs = [generator_of(folder), fused, generator_of(folder, lora=str(path))]
    assert len({item.ref().digest() for item in refs}) == 3
    assert not np.array_equal(picture(refs[0]), picture(fused))
