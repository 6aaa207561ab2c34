"""A run's pictures as PNG files that other tools read, with a table of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import MissingError
from negbench.files import make_folder, write_atomic
from negbench.params import check_counts
from negbench.plan import MINIATURE
from negbench.progress import Progress, silent
from negbench.protocols.cases import order_key
from negbench.record import Record, Sample, load_record, safe_name
from negbench.score.marks import KEYWORD, Mark, infotext, write_mark
from negbench.score.pictures import TABLE
from negbench.store import ImageStore, default_cache

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

COLUMNS = (
    "path", "prompt", "negative", "seed", "model", "steps", "cfg_scale", "width", "height",
    "case", "replicate", "twin", "concept", "tags", "evaluations",
)  # fmt: skip


def export_run(
    run: str | Path,
    out: Path,
    *,
    cache: Path | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write a run's pictures and twins as PNG with metadata, and ``pictures.csv``.

    Metadata are A1111's ``parameters`` and negbench's own `Mark`; pixels are those of the run, so
    that scoring the folder gives the run's numbers.

    Args:
        run: folder of a run.
        out: where to; created.
        cache: where the run's images are; None for the default.
        limit: the first so many samples only.
        progress: called with a label and a total.

    Returns:
        The files written, the table last.

    Raises:
        MissingError: an image is not in the cache.
        RecordError: no run is there.
        StorageError: the folder cannot be written.
    """
    check_counts(limit=limit)
    record = load_record(run)
    samples = in_order(record)[:limit]
    if not samples:
        raise MissingError(f"{run} has no samples; give the command of the run again")
    store = ImageStore(cache or default_cache())
    store.fetch((image.key for s in samples for image in s.images().values()), progress=progress)
    make_folder(out)
    written: dict[str, Path] = {}
    rows: list[dict[str, Any]] = []
    with progress("exporting", len(samples)) as bar:
        for number, sample in enumerate(samples):
            name = f"{number:06d}-{safe_name(sample.case)[:60]}-{sample.replicate}.png"
            same = sample.treated.key == sample.twin.key
            twin = name if same else f"twins/{sample.twin.key[:24]}.png"
            for side, place in (("treated", name), ("twin", twin)):
                if (out / place) in written.values():
                    continue
                mark = _mark(record, sample, side=side, twin=twin)
                image = sample.treated if side == "treated" else sample.twin
                row = _write(record, mark, store, image.key, image.image, out / place)
                rows.append({**row, "path": place, "twin": mark.twin})
                written[place] = out / place
            bar.update()
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / TABLE, table.getvalue().encode("utf-8"))
    return [*written.values(), out / TABLE]


def in_order(record: Record) -> list[Sample]:
    """The samples in the order of the plan, as far as the record tells it."""
    samples = record.samples()
    if record.plan.benchmark.name.endswith("+prompts"):
        return sorted(samples, key=lambda s: (_natural(s.case), s.replicate))
    return sorted(samples, key=lambda s: (order_key(s.case), s.case, s.replicate))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``row-2`` before ``row-10``."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d{1,15})", text)]


def _mark(record: Record, sample: Sample, *, side: str, twin: str) -> Mark:
    plan, treatment = record.plan, sample.treatment
    same = sample.treated.key == sample.twin.key
    if side == "twin":
        treatment = treatment.model_copy(
            update={"prompt": sample.prompt, "negatives": (), "guidance": plan.guidance}
        )
    image = sample.treated if side == "treated" else sample.twin
    return Mark(
        benchmark=f"{plan.benchmark.name}@{plan.benchmark.version}",
        case=sample.case,
        replicate=sample.replicate,
        seed=sample.seed,
        prompt=sample.prompt,
        concept=sample.concept,
        tags=sample.tags,
        treatment=treatment,
        reference=plan.guidance,
        twin=twin if side == "treated" or same else None,
        generator=plan.generator.digest(),
        evaluations=image.evaluations,
    )


def _write(
    record: Record, mark: Mark, store: ImageStore, key: str, image: str, path: Path
) -> Mapping[str, Any]:
    from PIL import Image

    stored = store.get(key)
    pixels = None if stored is None or stored.image != image else store.load(stored)
    if pixels is None:
        raise MissingError(
            f"the image of case {mark.case}, noise {mark.replicate} is not in the cache; give the "
            "command of the run again, or the right --cache"
        )
    height, width = pixels.shape[:2]
    negative = mark.treatment.negative_text()
    steps = record.plan.generator.params.get("steps")
    model = model_name(record)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer,
        format="PNG",
        pnginfo=_texts(
            (
                "parameters",
                infotext(
                    mark,
                    negative=negative,
                    size=(width, height),
                    steps=steps if isinstance(steps, int) else None,
                    model=model,
                ),
            ),
            (KEYWORD, write_mark(mark)),
        ),
    )
    write_atomic(path, buffer.getvalue())
    return {
        "prompt": mark.prompt,
        "negative": negative,
        "seed": mark.seed,
        "model": model,
        "steps": steps,
        "cfg_scale": (mark.treatment.guidance or mark.reference).scale,
        "width": width,
        "height": height,
        "case": mark.case,
        "replicate": mark.replicate,
        "concept": mark.concept,
        "tags": "|".join(mark.tags),
        "evaluations": mark.evaluations,
    }


def model_name(record: Record) -> str:
    """A name of what drew a run: a repo, a file's or folder's own name, never a path."""
    about = record.provenance.get("generator")
    told = about if isinstance(about, dict) else {}
    spec = str(told.get("spec") or told.get("name") or record.plan.generator.name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", spec):
        return spec
    path = Path(spec)
    return MINIATURE if path.parts[-2:] == ("weights", "pipeline") else path.name


def _texts(*chunks: tuple[str, str]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in chunks:
        info.add_itxt(keyword, text)
    return info
