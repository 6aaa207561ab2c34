"""Tiny random pipelines of the real classes, built from configs, for tests of the generators."""

from __future__ import annotations

import json
from pathlib import Path

from negbench.types import Guidance, ImageRequest, Negative, Treatment

TEXT = """
a an the of with in on house professor hat glasses red blue old snow fog sketch tree
blurry noisy low quality watermark cropped cat dog car rusty steam cup night , .
"""
WORDS = TEXT.split()
CONTEXT = 12


def word_tokenizer():
    """A word-level tokenizer with begin, end and padding marks, 12 positions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )


def write_clip_tokenizer(folder: Path) -> int:
    """CLIP's own kind of tokenizer, byte pairs without merges; returns its vocabulary's size."""
    from transformers import CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz,.0123456789"]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=CONTEXT)
    tokenizer.save_pretrained(str(folder))
    return len(names)


def _text_config(vocabulary: int, eos: int, width: int = 16, **more):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=width,
        bos_token_id=eos - 1,
        eos_token_id=eos,
        pad_token_id=0,
        **more,
    )


def _vae(**more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=16,
        **more,
    )


def _unet(width: int, **more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        **{"attention_head_dim": 2, **more},
    )


def make_sd(folder: Path, *, prediction: str = "epsilon", seed: int = 0, **unet) -> Path:
    """A StableDiffusionPipeline of 16 x 16 pixels with the usual PNDM scheduler."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    pipe = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(len(tokenizer), 2)),
        tokenizer=tokenizer,
        unet=_unet(16, **unet),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(str(folder))
    return folder


def make_sdxl(folder: Path, *, zeros: bool = True, seed: int = 0) -> Path:
    """A StableDiffusionXLPipeline of 16 x 16 pixels with the usual Euler scheduler."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(seed)
    made = folder.parent / f"{folder.name}-tokenizer"
    size = write_clip_tokenizer(made)
    tokenizers = [CLIPTokenizer.from_pretrained(str(made)) for _ in range(2)]
    pipe = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(size, 1)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(size, 1, width=24)),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=_unet(
            40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )
    pipe.save_pretrained(str(folder))
    return folder


def _flow_vae():
    return _vae(
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _t5(vocabulary: int, width: int = 32):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=24,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def make_sd3(folder: Path, *, t5: bool = True, dynamic: bool = False, seed: int = 0) -> Path:
    """A StableDiffusion3Pipeline of 16 x 16 pixels with its flow scheduler."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    size = len(tokenizer)
    pipe = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=40,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic),
        vae=_flow_vae(),
        text_encoder=CLIPTextModelWithProjection(_text_config(size, 2)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(size, 2, width=24)),
        tokenizer_2=word_tokenizer(),
        text_encoder_3=_t5(size) if t5 else None,
        tokenizer_3=word_tokenizer() if t5 else None,
    )
    pipe.save_pretrained(str(folder))
    return folder


def make_flux(folder: Path, *, distilled: bool = False, seed: int = 0) -> Path:
    """A FluxPipeline, of FLUX.1-dev's kind or (distilled) schnell's."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    size = len(tokenizer)
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=not distilled,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0 if distilled else 3.0, use_dynamic_shifting=not distilled
        ),
        vae=_flow_vae(),
        text_encoder=CLIPTextModel(_text_config(size, 2)),
        tokenizer=tokenizer,
        text_encoder_2=_t5(size),
        tokenizer_2=word_tokenizer(),
    )
    pipe.save_pretrained(str(folder))
    return folder


def request(generator, prompt, *negatives, seed=0, scale=5.0, kind="cfg", **params):
    """A request of one picture; negatives are texts, or `Negative`s with weights."""
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt=prompt,
            negatives=tuple(
                item if isinstance(item, Negative) else Negative(text=item) for item in negatives
            ),
            guidance=Guidance(kind=kind, scale=scale, params=params),
        ),
        seed=seed,
    )


def lanes_of(generator, network, requests):
    """Requests as lanes of one batch of the loop, and their encoded texts."""
    from negbench.generators.loop import Lane

    rows, lanes = {}, []
    for item in requests:
        bound = generator.reader.bind(item)
        texts = {
            branch: rows.setdefault(text, len(rows))
            for branch, text in generator.reader.texts(item, bound).items()
        }
        lanes.append(Lane(seed=item.seed, rule=bound.rule, group=bound.group, texts=texts))
    return lanes, network.encode(list(rows), chunks=1)
