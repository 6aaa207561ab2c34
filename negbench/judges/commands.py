"""`negbench label` and `negbench calibrate-judge`: parse, call one public function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from negbench.labels import read_labels, split_params
from negbench.options import (
    AsJson,
    CacheFolder,
    Device,
    Plugins,
    emit,
    load_plugins,
)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")]
Concept = Annotated[
    str | None,
    typer.Option(help="What to look for, in place of the cases' own concepts."),
]


def _named(given: list[str], params: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Label, name and parameters of each judge.

    Raises:
        ConfigError: two judges have one label, or a parameter belongs to none.
    """
    named = read_labels(given, kind="judge")
    split = split_params(params, [label for label, _ in named], kind="judge")
    return [(label, name, split[label]) for label, name in named]


def label(
    run: Runs,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="CSV file of labels; an older one goes on.")
    ] = Path("labels.csv"),
    concept: Concept = None,
    pairs: Annotated[
        int, typer.Option(min=1, help="How many cases and noises to label, chosen at random.")
    ] = 200,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Pictures to label of each: twin, treated, placebo ...; default: twin, treated."
        ),
    ] = None,
    rater: Annotated[str, typer.Option(help="Your name or initials, for the file.")] = "",
    seed: Annotated[int, typer.Option(help="Of the choice and the order.")] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")
    ] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Label a run's pictures on a page of this machine, blind to where each comes from."""
    from negbench.judges.labeling import LabelServer, Sitting, plan_tasks
    from negbench.judges.units import load_pixels, load_runs, units_of
    from negbench.progress import progress_bar
    from negbench.store import ImageStore, default_cache

    units = [unit for record in load_runs(run) for unit in units_of(record, concept=concept)]
    tasks = plan_tasks(units, arms=arm or ["twin", "treated"], count=pairs, seed=seed)
    store = ImageStore(cache or default_cache())
    pictures = {p.image: p for unit in units for p in unit.pictures.values()}
    images = {task.image for task in tasks}
    store.fetch((pictures[image].key for image in images), progress=progress_bar)
    for image in images:
        load_pixels(store, pictures[image])
    sitting = Sitting(tasks, out, rater=rater)
    server = LabelServer(sitting, store, port=port)
    about = {"url": server.url, "labels": str(out), "pictures": len(tasks)}
    if as_json:
        emit({**about, "labelled": len(sitting.answers)})
    else:
        typer.echo(server.url)
        typer.echo(
            f"{len(sitting.answers)} of {len(tasks)} pictures are labelled in {out}; open the "
            "address above in a browser of this machine, stop with Ctrl-C",
            err=True,
        )
    if open_:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        sitting.close()
    typer.echo(
        f"\n{len(sitting.answers)} of {len(tasks)} pictures are labelled in {out}; the same "
        "command goes on",
        err=True,
    )


def calibrate_judge(
    run: Runs,
    labels: Annotated[
        Path, typer.Option(metavar="LABELS.csv", help="People's labels (`negbench label`).")
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "-j", "--judge",
            help="Judge; may be given many times; LABEL=NAME labels it. Default: miniature.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--param", metavar="KEY=VALUE",
            help="Parameter of the judge; with several judges LABEL.KEY=VALUE.",
        ),
    ] = None,
    concept: Concept = None,
    cache: CacheFolder = None,
    device: Device = "auto",
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Hold judges against people's labels, and correct removal rates for their errors."""
    from negbench.judges import build_judge
    from negbench.judges.calibration import calibrate
    from negbench.judges.calibration_table import as_text
    from negbench.judges.label_file import read_labels
    from negbench.judges.units import load_runs, places_of, units_of
    from negbench.params import parse_pairs
    from negbench.progress import progress_bar
    from negbench.store import default_cache

    load_plugins(plugin)
    judges = {
        name: build_judge(kind, params)
        for name, kind, params in _named(judge or ["miniature"], parse_pairs(param or []))
    }
    units = [unit for record in load_runs(run) for unit in units_of(record, concept=concept)]
    found = calibrate(
        units,
        read_labels(labels, places=places_of(units)),
        judges,
        cache=cache or default_cache(),
        device=device,
        progress=progress_bar,
    )
    if as_json:
        emit(found.model_dump(mode="json"))
    else:
        typer.echo(as_text(found))
