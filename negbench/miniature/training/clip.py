"""Train the miniature's CLIP: open_clip's own model class and loss on renders and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negbench.errors import NegbenchError
from negbench.miniature.captions import CONTEXT
from negbench.miniature.data import CAPTIONS_EACH
from negbench.miniature.text import PAD, build_tokenizer, vocabulary
from negbench.miniature.training.loop import prepare, train_loop
from negbench.miniature.training.roundtrip import round_trips, train_set
from negbench.miniature.training.vae import to_tensor

STEPS = 1_000
BATCH = 192


def model_config() -> dict[str, Any]:
    """The `model_cfg` of open_clip's config file: a ModifiedResNet and a small text tower."""
    vocab = vocabulary()
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(vocab),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "pad_id": vocab[PAD],
            # open_clip reads the tokenizer from the model's own folder; any name will do.
            "hf_tokenizer_name": "miniature",
        },
    }


PREPROCESS: dict[str, Any] = {
    "size": [64, 64],
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build_clip() -> Any:
    """The untrained model, an `open_clip.CLIP`."""
    from open_clip.model import CLIP

    config = model_config()
    return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


def load_clip(out: Path) -> Any:
    """The trained model of a weights folder, float32, through open_clip's factory."""
    import open_clip

    folder = out / "clip"
    if not (folder / "open_clip_config.json").is_file():
        raise NegbenchError(f"{folder} is missing: train the part 'clip' first")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.float().eval()


def embed(model: Any, images: np.ndarray[Any, Any], *, device: torch.device) -> torch.Tensor:
    """Unit-length image embeddings, (n, 128)."""
    model = model.to(device)
    with torch.no_grad():
        return torch.cat(
            [
                model.encode_image(to_tensor(images[i : i + 128]).to(device), normalize=True).cpu()
                for i in range(0, len(images), 128)
            ]
        )


def _read(model: Any, text: torch.Tensor) -> torch.Tensor:
    """`model.encode_text` without the padding behind the longest text: causal, so the same."""
    size = int((text > 0).sum(dim=1).max())
    x = model.token_embedding(text[:, :size]) + model.positional_embedding[:size]
    x = model.transformer(x, attn_mask=model.attn_mask[:size, :size])
    x = model.ln_final(x)[torch.arange(len(text)), text.argmax(dim=1)] @ model.text_projection
    return torch.nn.functional.normalize(x, dim=-1)


def train_clip(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train with open_clip's contrastive loss; some of the pictures went through the decoder."""
    from open_clip import ClipLoss
    from safetensors.torch import save_file

    device = prepare()
    model = build_clip().to(device)
    loss = ClipLoss()
    rendered = train_set(out)
    images, tokens = np.array(rendered.images), np.array(rendered.tokens)
    lengths = (tokens > 0).sum(axis=2)
    decoded = round_trips(out, device=device)

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        index = rng.integers(0, len(images), BATCH)
        passed = index < len(decoded)
        batch = images[index]
        batch[passed] = decoded[index[passed]]
        rows = np.arange(BATCH)
        # The longer of two captions: lone words fit too many pictures of a batch.
        two = rng.integers(0, CAPTIONS_EACH, (2, BATCH))
        longer = np.where(lengths[index, two[0]] >= lengths[index, two[1]], two[0], two[1])
        text = torch.from_numpy(tokens[index[rows], longer]).long().to(device)
        with torch.autocast(device.type, torch.bfloat16):
            seen = model.encode_image(to_tensor(batch).to(device), normalize=True)
        read = _read(model, text)
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(100)))
        result: torch.Tensor = loss(seen.float(), read, model.logit_scale.exp())
        return result

    states = train_loop(
        "clip", modules={"clip": model}, batch_loss=batch_loss, steps=steps or STEPS, peak=2e-3,
        work=out / "work", resume=resume, seed=seed, average=0.99, weight_decay=0.05,
    )  # fmt: skip
    folder = out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
        for k, v in states["clip"].items()
    }
    save_file(state, str(folder / "open_clip_model.safetensors"))
    config = {"model_cfg": model_config(), "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    build_tokenizer().save_pretrained(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n")


def retrieval(out: Path, *, count: int = 500) -> dict[str, float]:
    """Retrieval accuracy among `count` held-out pictures with one full caption each.

    Returns:
        Top-1 and top-5 accuracy of finding the picture by its caption and the caption by its
        picture. Captions that fit several pictures bound it well below 1.
    """
    from negbench.miniature.training.roundtrip import held_out_set

    device = prepare()
    model = load_clip(out).to(device)
    held_out = held_out_set(out)
    tokens = np.array(held_out.tokens[:count])
    longest = (tokens > 0).sum(axis=2).argmax(axis=1)
    text = torch.from_numpy(tokens[np.arange(count), longest]).long()
    images = embed(model, np.array(held_out.images[:count]), device=device)
    with torch.no_grad():
        scores = (images @ model.encode_text(text.to(device), normalize=True).cpu().T).numpy()
    result = {}
    for name, matrix in (("caption by picture", scores), ("picture by caption", scores.T)):
        rank = (matrix > np.diag(matrix)[:, None]).sum(axis=1)
        result[f"{name}, top 1"] = float((rank == 0).mean())
        result[f"{name}, top 5"] = float((rank < 5).mean())
    return result
