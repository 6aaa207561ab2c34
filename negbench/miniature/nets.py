"""Small convolutional classifiers: Inception Score's network and the presence judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_one = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_two = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm_one(self.one(x)))
        result: torch.Tensor = torch.relu(x + self.norm_two(self.two(y)))
        return result


class ConvClassifier(nn.Module):
    """A small residual network.

    Args:
        labels: Names of the outputs.
        widths: Channels of the four stages; each halves the picture.
        kind: `softmax` (one label is true) or `sigmoid` (any number is true): how to read logits.
    """

    def __init__(self, *, labels: list[str], widths: tuple[int, ...], kind: str) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.widths = tuple(widths)
        self.kind = kind
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [
                nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                _Block(width),
            ]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * before, len(self.labels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images in [-1, 1], (n, 3, 64, 64), to logits (n, labels)."""
        x = self.body(images)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits

    def save(self, folder: Path, **extra: Any) -> None:
        """Write `config.json` and `model.safetensors` (half precision)."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "architecture": "ConvClassifier",
            "labels": list(self.labels),
            "widths": list(self.widths),
            "kind": self.kind,
            "image_size": 64,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            **extra,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = {
            k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
            for k, v in self.state_dict().items()
        }
        save_file(state, str(folder / "model.safetensors"))


def load_classifier(folder: Path) -> ConvClassifier:
    """Load a classifier written by `ConvClassifier.save`, float32, in evaluation mode."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    net = ConvClassifier(
        labels=config["labels"], widths=tuple(config["widths"]), kind=config["kind"]
    )
    state = load_file(str(folder / "model.safetensors"))
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return net.eval()
