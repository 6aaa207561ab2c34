"""The miniature's card: a contact sheet and every calibration figure, written from measurements.

`figures` returns what was measured when the weights were made (`figures.json`, shipped);
`measure` measures it again; `build_card` writes `CARD.md`, `sheet.png` and `figures.json`.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from negbench.miniature import card_path, weights_dir
from negbench.miniature.world import DEFECTS, SUBJECTS

_FOLDER = card_path().parent
FIGURES_PATH = _FOLDER / "figures.json"
SHEET_PATH = _FOLDER / "sheet.png"
EYES_PATH = _FOLDER / "eyes.csv"
SHEET_ROWS: tuple[tuple[str, str], ...] = (
    ("a professor", ""),
    ("a professor", "glasses"),
    ("a house", ""),
    ("a house", "chimney"),
    ("a cat", ""),
    ("a cat", "striped"),
    ("a car at night", ""),
    ("a car at night", "blurry, noisy, dark"),
    ("a sketch of a boat", ""),
    ("a sketch of a boat", "sketch, painting, cartoon, low quality, blurry, dark, foggy"),
    ("a clown with a balloon", ""),
    ("a snowman in the fog", ""),
    ("a red cup with steam", ""),
    ("a painting of a dog", ""),
)


def figures() -> dict[str, Any]:
    """The shipped figures."""
    result: dict[str, Any] = json.loads(FIGURES_PATH.read_text())
    return result


def draw_sheet(weights: Path, *, columns: int = 10, first_seed: int = 1) -> Any:
    """Draw the contact sheet: a row a (prompt, negative), a column a seed."""
    from PIL import Image

    from negbench.miniature.calibration import Shot, draw_shots
    from negbench.miniature.draw import contact_sheet

    shots = [
        Shot(prompt, negative, first_seed + column)
        for prompt, negative in SHEET_ROWS
        for column in range(columns)
    ]
    pixels = draw_shots(weights / "pipeline", shots)
    return contact_sheet([Image.fromarray(p) for p in pixels], columns=columns, zoom=1)


def speed(weights: Path, *, count: int = 64, rounds: int = 3) -> dict[str, float]:
    """Seconds an image of negbench's generator on this machine: the best of a few rounds."""
    import torch

    from negbench.miniature.calibration import Shot, draw_shots

    draw_shots(weights / "pipeline", [Shot("a dog", "hat", 0)])
    seconds = []
    for k in range(rounds):
        start = time.perf_counter()
        draw_shots(
            weights / "pipeline", [Shot("a dog", "hat", k * count + n) for n in range(count)]
        )
        seconds.append((time.perf_counter() - start) / count)
    return {"seconds_an_image": min(seconds), "threads": torch.get_num_threads()}


def judge_figures(out: Path) -> dict[str, Any]:
    """Held-out table of the presence judge, for renders and for decoded pictures."""
    import torch

    from negbench.miniature.training.classifiers import balanced_accuracy, load_judge, logits_of
    from negbench.miniature.training.roundtrip import held_out_set, round_trips

    judge, held_out = load_judge(out), held_out_set(out)
    device = torch.device("cpu")
    half = len(held_out.images) // 2
    logits = logits_of(judge, np.array(held_out.images[half:]), device=device).numpy()
    decoded = round_trips(out, device=device, held_out=True)
    again = logits_of(judge, decoded, device=device).numpy()
    return {
        "renders": balanced_accuracy(logits, np.array(held_out.labels[half:])),
        "decoded": balanced_accuracy(again, np.array(held_out.labels[: len(decoded)])),
    }


def inception_figures(weights: Path, *, count: int = 512) -> dict[str, float]:
    """Log Inception Score of renders: clean, as the world makes them, and by defect."""
    import torch

    from negbench.miniature.draw import draw
    from negbench.miniature.nets import load_classifier
    from negbench.miniature.training.classifiers import logits_of
    from negbench.miniature.world import Scene, scene

    net = load_classifier(weights / "inception")
    worlds = [scene(i, seed=2) for i in range(count)]

    def log_score(defects: Any) -> float:
        images = np.stack(
            [
                np.asarray(
                    draw(
                        Scene(
                            s.subject, s.color, s.background, s.style, s.parts, defects(s), s.seed
                        )
                    ).image
                )
                for s in worlds
            ]
        )
        p = logits_of(net, images, device=torch.device("cpu")).double().softmax(dim=1)
        mean = p.mean(dim=0)
        return float(-(mean * mean.log()).sum() + (p * p.log()).sum(dim=1).mean())

    result = {"clean": log_score(lambda s: ()), "as drawn": log_score(lambda s: s.defects)}
    for defect in DEFECTS:
        result[defect] = log_score(lambda s, d=defect: ((d, 0.8),))
    return result


def aesthetic_figures(out: Path) -> dict[str, Any]:
    """How the aesthetic predictor agrees with the truth on held-out renders and decoded ones."""
    import torch

    from negbench.miniature.calibration import aesthetic_scores
    from negbench.miniature.training.classifiers import truths
    from negbench.miniature.training.roundtrip import held_out_set, round_trips

    held_out = held_out_set(out)
    truth = truths(np.array(held_out.strengths))
    decoded = round_trips(out, device=torch.device("cpu"), held_out=True)
    result: dict[str, Any] = {}
    for name, images in (("renders", np.array(held_out.images[:2000])), ("decoded", decoded)):
        said = aesthetic_scores(out, images)
        true = truth[: len(said)]
        result[name] = {
            "n": len(said),
            "correlation": float(np.corrcoef(said, true)[0, 1]),
            "mean_error": float(np.abs(said - true).mean()),
            "clean": float(said[true > 8.99].mean()),
            "worst_fifth": float(said[true <= np.quantile(true, 0.2)].mean()),
        }
    return result


def eyes_figures(weights: Path) -> dict[str, Any]:
    """Agreement of the judge with verdicts given by eye on generated images (`eyes.csv`)."""
    from negbench.miniature.calibration import Shot, draw_shots, present

    with EYES_PATH.open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = draw_shots(
        weights / "pipeline", [Shot(r["prompt"], r["negative"], int(r["seed"])) for r in rows]
    )
    seen = present(weights / "judge", pixels)
    said = np.array([bool(seen[row["part"]][i]) for i, row in enumerate(rows)])
    eyes = np.array([row["verdict"] == "yes" for row in rows])
    n, agree = len(rows), float((said == eyes).mean())
    z = 1.959964
    centre = (agree + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(agree * (1 - agree) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {
        "n": n,
        "agreement": agree,
        "low": float(centre - half),
        "high": float(centre + half),
        "yes_by_eye": int(eyes.sum()),
        "judge_no_eye_yes": int((eyes & ~said).sum()),
        "judge_yes_eye_no": int((~eyes & said).sum()),
    }


def vae_figures(out: Path) -> dict[str, float]:
    """Round trip through the autoencoder on held-out renders."""
    import torch

    from negbench.miniature.training.roundtrip import held_out_set, round_trips

    decoded = round_trips(out, device=torch.device("cpu"), held_out=True).astype(float) / 255
    images = np.array(held_out_set(out).images[: len(decoded)]).astype(float) / 255
    error = decoded - images
    psnr = -10 * np.log10(np.square(error).mean(axis=(1, 2, 3)))
    return {"n": len(decoded), "l1": float(np.abs(error).mean()), "psnr": float(psnr.mean())}


def measure(out: Path, *, parts: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Measure figures, one group at a time, keeping finished ones in `out/work/figures`.

    Args:
        out: Weights folder with its `work` folder (rendered held-out set and the like).
        parts: Groups to measure, or None for all.

    Returns:
        Figures by group.
    """
    from negbench.miniature.calibration import list_figures, removal_figures
    from negbench.miniature.training.clip import retrieval

    makers: dict[str, Callable[[], Any]] = {
        "vae": lambda: vae_figures(out),
        "judge": lambda: judge_figures(out),
        "inception": lambda: inception_figures(out),
        "clip": lambda: retrieval(out),
        "aesthetic": lambda: aesthetic_figures(out),
        "removal": lambda: removal_figures(out),
        "lists": lambda: list_figures(out),
        "eyes": lambda: eyes_figures(out),
        "speed": lambda: speed(out),
    }
    result = {}
    for name, make in makers.items():
        path = out / "work" / "figures" / f"{name}.json"
        if parts is not None and name not in parts:
            continue
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(make(), indent=1))
        result[name] = json.loads(path.read_text())
    return result


def _ci(triple: Any, form: str = ".2f") -> str:
    mean, low, high = triple
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def card_text(found: dict[str, Any], sizes: dict[str, int]) -> str:
    """The card as Markdown."""
    from negbench.miniature.calibration import SCALE, STEPS

    removal, lists, judge = found["removal"], found["lists"], found["judge"]
    lines = [
        "# The miniature",
        "",
        "Written by `negbench.miniature.card.build_card`; figures are measured, not promised.",
        "A drawn world of 64x64 scenes and small models of the real kinds trained on it. "
        f"Guidance scale {SCALE}, DDIM, {STEPS} steps. {len(SUBJECTS)} subjects, "
        f"{len(removal['odds'])} (subject, part) pairs, {len(DEFECTS)} defects.",
        "",
        "![samples](sheet.png)",
        "",
        "Rows of the sheet (prompt / negative prompt; a column is a seed): "
        + "; ".join(f"{p} / {n or '-'}" for p, n in SHEET_ROWS)
        + ".",
        "",
        "## Weights",
        "",
        "| part | kB |",
        "|---|---|",
        *(f"| {name} | {size / 1000:.0f} |" for name, size in sizes.items()),
        f"| all | {sum(sizes.values()) / 1000:.0f} |",
        "",
        "The weights come from seeded runs that were resumed with another total of steps "
        "(autoencoder 1,900 then 2,800; denoiser 7,600, 5,600, then 6,300; judge 1,300 then "
        "3,000), so a fresh run of the trainers gives models of this kind, not these bytes.",
        "",
        f"Speed: {found['speed']['seconds_an_image']:.3f} s an image "
        f"({found['speed']['threads']} threads, best of three rounds of 64).",
        f"Autoencoder, {found['vae']['n']} held-out renders: mean absolute error "
        f"{found['vae']['l1']:.4f} of 1, PSNR {found['vae']['psnr']:.1f} dB.",
        "",
        "## Negative prompts act",
        "",
        f"All pairs in which the twin of the plain prompt shows the part in 30 to 95 % of "
        f"{removal['seeds']} seeds ({len(removal['pairs'])} of {len(removal['odds'])} pairs). "
        "Removed: absent, by the presence judge, among the n images whose twin shows it. Placebo: "
        "an unrelated noun as negative prompt. Window: negative in model calls [5, 15) of 25. "
        "Change: mean squared difference to the twin, pixels in [0, 1]. Intervals: 95 %, pairs.",
        "",
        f"Mean over pairs: removed {_ci(removal['summary']['removed'])}, placebo "
        f"{_ci(removal['summary']['placebo'])}, window {_ci(removal['summary']['window'])}; change "
        f"{_ci(removal['summary']['removed_change'], '.4f')}, window "
        f"{_ci(removal['summary']['window_change'], '.4f')}. The aim was 0.70 removed and at most "
        "a third of that by the placebo.",
        "",
        "| prompt / negative | n | twin | removed | placebo (word) | window | change | window |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['prompt']} / {r['part']} | {r['n']} | {r['twin']:.2f} | {r['removed']:.2f} "
            f"| {r['placebo']:.2f} ({r['placebo_word']}) | {r['window']:.2f} "
            f"| {r['removed_change']:.4f} | {r['window_change']:.4f} |"
            for r in removal["pairs"]
        ),
        "",
        "## Lists of negative words and the aesthetic score",
        "",
        f"Difference to the twin, mean over {lists['seeds']} seeds. Mean over prompts: "
        + "; ".join(f"{name} {_ci(triple)}" for name, triple in lists["summary"].items())
        + ".",
        "",
        "| prompt | list | twin | difference |",
        "|---|---|---|---|",
        *(
            f"| {r['prompt']} | {r['list']} | {r['twin']:.2f} "
            f"| {_ci((r['delta'], r['low'], r['high']))} |"
            for r in lists["rows"]
        ),
        "",
        "## Judges",
        "",
        _eyes_line(found["eyes"]),
        "The verdicts were given on contact sheets before the judge's were known. With the first "
        "thresholds (best balanced accuracy) agreement was 0.73, 52 of 54 disagreements being "
        "parts that only the judge saw; the more careful thresholds were chosen after that, so "
        "the figure above is not quite held out. What remains is still mostly seen by the judge "
        "alone, in vague pictures: removal by this judge is rather under- than overstated.",
        "",
        "Balanced accuracy on held-out renders (2,000 not used for thresholds) and on 1,000 "
        "pictures that went through the autoencoder (of scenes used for thresholds):",
        "",
        "| label | sensitivity | specificity | balanced | positives | decoded: balanced |",
        "|---|---|---|---|---|---|",
        *(
            f"| {label} | {row[0]:.3f} | {row[1]:.3f} | {(row[0] + row[1]) / 2:.3f} | {row[2]} "
            f"| {sum(judge['decoded'][label][:2]) / 2:.3f} |"
            for label, row in judge["renders"].items()
        ),
        "",
        "Labels below 0.95 on renders: "
        + (", ".join(name for name, r in judge["renders"].items() if r[0] + r[1] < 1.9) or "none")
        + ".",
        "",
        "Log Inception Score of 512 renders (subjects alone; at most "
        f"{np.log(len(SUBJECTS)):.2f}): "
        + ", ".join(f"{name} {value:.2f}" for name, value in found["inception"].items())
        + " (each defect at strength 0.8).",
        "",
        "CLIP, retrieval among 500 held-out pairs: "
        + ", ".join(f"{name} {value:.2f}" for name, value in found["clip"].items())
        + ".",
        "",
        "Aesthetic predictor against the truth: "
        + "; ".join(
            f"{name} (n = {v['n']}) correlation {v['correlation']:.3f}, mean absolute error "
            f"{v['mean_error']:.2f}, clean {v['clean']:.2f}, worst fifth {v['worst_fifth']:.2f}"
            for name, v in found["aesthetic"].items()
        )
        + ".",
        "",
    ]
    return "\n".join(lines)


def _eyes_line(eyes: dict[str, Any]) -> str:
    return (
        f"Agreement with verdicts given by eye on {eyes['n']} questions about generated images: "
        f"{eyes['agreement']:.3f} [{eyes['low']:.3f}, {eyes['high']:.3f}] (Wilson, 95 %); "
        f"{eyes['yes_by_eye']} yes by eye, judge missed {eyes['judge_no_eye_yes']}, "
        f"judge saw {eyes['judge_yes_eye_no']} that are not there."
    )


def build_card(out: Path | None = None) -> Path:
    """Write `CARD.md`, `sheet.png` and `figures.json` beside this module.

    Args:
        out: Folder whose figures are measured first (see `measure`); without it the shipped
            figures are taken and only sheet and card are drawn again.

    Returns:
        Path of the card.
    """
    found = measure(out) if out is not None else figures()
    FIGURES_PATH.write_text(json.dumps(found, indent=1) + "\n")
    folder = weights_dir()
    sizes = {
        part.name: sum(f.stat().st_size for f in part.rglob("*") if f.is_file())
        for part in sorted(folder.iterdir())
        if part.is_dir()
    }
    draw_sheet(folder).save(SHEET_PATH, optimize=True)
    card_path().write_text(card_text(found, sizes))
    return card_path()
