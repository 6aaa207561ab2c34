"""`negbench train negopt`: parse, call one public function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from negbench.errors import ConfigError, UnknownNameError, did_you_mean, one_line
from negbench.options import (
    AsJson,
    emit,
)
from negbench.progress import progress_bar

STAGES = ("sft", "rl")
SFT_ONLY = (
    "base", "epochs", "batch_size", "accumulate", "weight_decay", "eval_every", "eval_pairs",
    "eval_written", "patience", "text", "likes", "likes_cap", "universal_cap", "longest",
)  # fmt: skip
RL_ONLY = (
    "init", "prompts", "group", "noises", "inner", "kl", "clip", "temperature", "max_new_tokens",
    "max_tags", "calibration", "fidelity_quantile", "held_out", "sheet_every", "benchmark",
    "generator", "scale", "reward", "option", "metric_param",
)  # fmt: skip


def train_negopt(
    stage: Annotated[str, typer.Option(help="sft: by imitation; rl: by reward.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run. [negopt-<stage>]")
    ] = None,
    db: Annotated[
        str, typer.Option(help="miniature, or a folder that build-db wrote.")
    ] = "miniature",
    base: Annotated[
        str | None,
        typer.Option(help="sft: t5-small, any seq2seq model, a folder; miniature for its own DB."),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="rl: the fine-tuned checkpoint to start from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="sft: where --steps is not given.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="sft: pairs a batch.")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="sft: batches a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="sft: of AdamW.")] = None,
    longest: Annotated[int | None, typer.Option(help="sft: longest negative, in tokens.")] = None,
    eval_every: Annotated[int | None, typer.Option(min=1, help="Steps between checks.")] = None,
    eval_pairs: Annotated[
        int | None, typer.Option(min=1, help="sft: held-out pairs for the loss.")
    ] = None,
    eval_written: Annotated[
        int | None, typer.Option(min=1, help="sft: held-out pairs for precision and recall.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="sft: checks without a better loss before it ends.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="sft: cleaned or raw.")] = None,
    likes: Annotated[
        str | None, typer.Option(help="sft: none, capped or log: how likes weigh pairs.")
    ] = None,
    likes_cap: Annotated[int | None, typer.Option(min=1, help="sft: for --likes capped.")] = None,
    universal_cap: Annotated[
        int | None, typer.Option(min=1, help="sft: most pairs with the same negative.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=WEIGHT",
            help="rl: fidelity, or any image metric; may be given many times.",
        ),
    ] = None,
    metric_param: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC.KEY=VALUE", help="rl: a metric's parameter."),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("-b", "--benchmark", help="rl: whose generator, guidance, metric settings."),
    ] = None,
    generator: Annotated[str | None, typer.Option(help="rl: what draws.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="rl: of the generator: steps, scheduler, ..."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="rl: guidance scale.")] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="rl: prompts a step.")] = None,
    group: Annotated[int | None, typer.Option(min=2, help="rl: negatives a prompt.")] = None,
    noises: Annotated[int | None, typer.Option(min=1, help="rl: noises a negative.")] = None,
    inner: Annotated[
        int | None, typer.Option(min=1, help="rl: optimizer passes over a step's samples.")
    ] = None,
    kl: Annotated[float | None, typer.Option(help="rl: weight of the KL from the start.")] = None,
    clip: Annotated[float | None, typer.Option(help="rl: clip of the probability ratio.")] = None,
    temperature: Annotated[float | None, typer.Option(help="rl: of sampling.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="rl: longest negative, in tokens.")
    ] = None,
    max_tags: Annotated[
        int | None, typer.Option(min=1, help="rl: tags beyond it cost reward.")
    ] = None,
    calibration: Annotated[
        int | None, typer.Option(min=8, help="rl: prompts that fix p(y) and the scales. [512]")
    ] = None,
    fidelity_quantile: Annotated[
        float | None, typer.Option(help="rl: fidelity ends at this quantile of twins.")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=0, help="rl: validation prompts drawn at each check.")
    ] = None,
    sheet_every: Annotated[
        int | None, typer.Option(min=1, help="rl: steps between plots and sheets.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="no, bf16 or fp16 (GPU): of forward passes.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="float32 or float16: of saved checkpoints.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, batches and samples.")] = 0,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between saved states.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    draw_batch: Annotated[int | None, typer.Option(min=1, help="rl: images together.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="rl: images and scores; default: user cache.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log there too.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach a seq2seq model to write negative prompts; the same command goes on after a stop."""
    given = {name: value for name, value in locals().items() if value is not None}
    if stage not in STAGES:
        raise UnknownNameError(f"unknown --stage {stage!r}; {did_you_mean(stage, STAGES)}")
    wrong = next((n for n in (RL_ONLY if stage == "sft" else SFT_ONLY) if n in given), None)
    if wrong == "eval_every" and stage == "rl":
        wrong = None
    if wrong is not None:
        other = "rl" if stage == "sft" else "sft"
        raise ConfigError(f"--{wrong.replace('_', '-')} belongs to --stage {other}; leave it out")
    folder = out or Path(f"negopt-{stage}")
    if stage == "sft":
        from negbench.train.sft import MINIATURE_SFT, SftSettings, train_sft

        values = {"base": "t5-small"} if db != "miniature" or "base" in given else MINIATURE_SFT
        values = {**values, **{k: v for k, v in given.items() if k in SftSettings.model_fields}}
        figures = train_sft(
            _settings(SftSettings, values), out=folder, device=device, restart=restart,
            tensorboard=tensorboard, save_every=save_every or 100, progress=progress_bar,
        )  # fmt: skip
    else:
        from negbench.params import parse_pairs
        from negbench.train.rl import MINIATURE_RL, RlSettings, train_rl

        values = dict(MINIATURE_RL) if db == "miniature" and "benchmark" not in given else {}
        named = {k: v for k, v in given.items() if k in RlSettings.model_fields}
        if option:
            named["generator_options"] = parse_pairs(option, option="--option")
        if reward:
            named["reward"] = parse_pairs(reward, option="--reward")
        if metric_param:
            named["metric_params"] = parse_pairs(metric_param, option="--metric-param")
        values.update(named)
        figures = train_rl(
            _settings(RlSettings, values), out=folder, device=device, restart=restart,
            tensorboard=tensorboard, save_every=save_every or 5, cache=cache,
            draw_batch=draw_batch, progress=progress_bar,
        )  # fmt: skip
    if as_json:
        result = {"checkpoint": str(folder / "checkpoint"), **figures}
        emit(result)
        return
    for key, value in figures.items():
        typer.echo(f"{key}  {value:.4f}" if isinstance(value, float) else f"{key}  {value}")
    typer.echo(f"checkpoint  {folder / 'checkpoint'}")


def _settings(model: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise ConfigError(
            f"--{where} {one_line(str(first.get('input')), limit=60)}: {first['msg'].lower()}"
        ) from error


def suggest(
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts; - or nothing reads them from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Text file, one prompt a line.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Different negatives a prompt.")] = 1,
    checkpoint: Annotated[
        str, typer.Option(help="Model folder, org/name[@revision], miniature, or miniature-rl.")
    ] = "miniature",
    seed: Annotated[int, typer.Option(help="Of all but the first negative.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write negative prompts to paste: for one prompt a line each, for several after the prompt."""
    from negbench.train.suggest import read_prompts
    from negbench.train.suggest import suggest as write

    prompts = read_prompts(prompt or [], file=file)
    answers = write(prompts, n=n, checkpoint=checkpoint, seed=seed)
    if as_json:
        rows = [{"prompt": p, "negatives": a} for p, a in zip(prompts, answers, strict=True)]
        emit(rows)
        return
    for one, negatives in zip(prompts, answers, strict=True):
        for negative in negatives or [""]:
            typer.echo(negative if len(prompts) == 1 else f"{one}\t{negative}")


def push(
    checkpoint: Annotated[str, typer.Argument(help="Folder that `train negopt` wrote.")],
    to: Annotated[str, typer.Option("--to", metavar="hf:ORG/NAME", help="Where to.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a trained checkpoint with its card on the Hugging Face hub."""
    from negbench.train.push import push_checkpoint

    address = push_checkpoint(checkpoint, to=to, private=private)
    if as_json:
        emit({"commit": address})
    else:
        typer.echo(address)
