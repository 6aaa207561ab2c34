"""From files to pictures with what is known of them; what cannot be used keeps its reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import DataError, MissingError
from negbench.score.marks import KEYWORD, Mark, read_mark
from negbench.types import MAX_TEXT, Negative, Treatment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.database.records import RawRecord, Skip

TABLE = "pictures.csv"
"""Name of the table in a folder that `export` wrote; it is no picture, and not worth a word."""
MAX_FILE = 256 * 2**20
MAX_PIXELS = 100_000_000
"""Most pixels of a picture that is decoded; a header that promises more is not believed."""
FORMATS = ("PNG", "JPEG", "WEBP")
PATH_NAMES = ("path", "file", "filepath", "filename", "image", "imagepath", "imagefile", "picture")
"""Names of the column with paths, lower case, letters only, in order of preference."""
TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".gz", ".zst")


@dataclass(frozen=True)
class Known:
    """What metadata or a table say of a picture, before it is decoded.

    Attributes:
        id: path relative to the folder, or as the table has it.
        path: the file.
        prompt: what it should show.
        negative: the negative prompt, "" for none.
        seed: of its noise, if known.
        settings: model, sampler, steps and cfg_scale as far as they are known.
        convention: of the metadata, or ``table``.
        case: id of the case, if the table or a mark names one.
        replicate: which noise of the case, likewise.
        twin: id of its twin, likewise.
        concept: what should not be seen.
        tags: to break results down by.
        evaluations: denoiser predictions spent, if known.
        mark: what negbench wrote into a picture of its own.
    """

    id: str
    path: Path
    prompt: str
    negative: str
    seed: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    convention: str | None = None
    case: str | None = None
    replicate: int | None = None
    twin: str | None = None
    concept: str | None = None
    tags: tuple[str, ...] = ()
    evaluations: int | None = None
    mark: Mark | None = None

    def treatment(self) -> Treatment:
        """Prompt and negative prompt; the rule is the run's own or not known."""
        if self.mark is not None:
            return self.mark.treatment
        negatives = (Negative(text=self.negative),) if self.negative.strip() else ()
        return Treatment(prompt=self.prompt, negatives=negatives)


@dataclass(frozen=True)
class Unscored:
    """A file or row that gives no score, and why."""

    id: str
    reason: str


SETTINGS = ("model", "sampler", "steps", "cfg_scale")


def read_pictures(place: Path, *, mapping: Mapping[str, str]) -> Iterator[Known | Unscored]:
    """Everything in a folder, or in a table with a column of paths.

    Args:
        place: the folder, one picture, or a table.
        mapping: field -> column of the table, ``path`` included.

    Raises:
        MissingError: there is no such folder or file.
        DataError: the table cannot be read, or has no column of paths.
    """
    if place.is_dir() or (place.is_file() and not is_table(place)):
        yield from _from_folder(place)
    elif place.is_file():
        yield from _from_table(place, mapping)
    else:
        raise MissingError(f"{place} does not exist; give a folder of pictures or a table of paths")


def is_table(path: Path) -> bool:
    """Whether a file is taken for a table of paths, by its ending."""
    return path.suffix.lower() in TABLE_ENDINGS


def _source(place: Path) -> Any:
    from negbench.database.sources import open_source

    return open_source(f"images:{place}")


def _from_folder(place: Path) -> Iterator[Known | Unscored]:
    base = place if place.is_dir() else place.parent
    for item in _source(place).read():
        if item.source_id == TABLE:
            continue
        yield _known(item, base / item.source_id)


def _known(item: RawRecord | Skip, path: Path) -> Known | Unscored:
    from negbench.database.records import Skip

    if isinstance(item, Skip):
        return Unscored(item.source_id, item.reason)
    if not path.is_file():
        return Unscored(item.source_id, "its file name is not UTF-8; rename it")
    mark = _mark_of(path) if item.convention == "a1111" else None
    if mark is not None:
        return Known(
            id=item.source_id,
            path=path,
            prompt=mark.prompt,
            negative=mark.treatment.negative_text(),
            seed=mark.seed,
            settings=_settings(item.model, item.sampler, item.steps, item.cfg_scale),
            convention="negbench",
            case=mark.case,
            replicate=mark.replicate,
            twin=mark.twin,
            concept=mark.concept,
            tags=mark.tags,
            evaluations=mark.evaluations,
            mark=mark,
        )
    return _checked(
        Known(
            id=item.source_id,
            path=path,
            prompt=item.prompt or "",
            negative=(item.negative or "").strip(),
            seed=item.seed,
            settings=_settings(item.model, item.sampler, item.steps, item.cfg_scale),
            convention=item.convention,
        )
    )


def _settings(*values: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, value) for name, value in zip(SETTINGS, values, strict=True) if value is not None
    )


def _mark_of(path: Path) -> Mark | None:
    from negbench.database.sources.carriers import NotAPictureError, read_carried

    try:
        return read_mark(read_carried(path).texts.get(KEYWORD))
    except (NotAPictureError, OSError):
        return None


def _checked(known: Known) -> Known | Unscored:
    if not known.prompt.strip():
        return Unscored(known.id, "no prompt")
    for name, text in (("prompt", known.prompt), ("negative prompt", known.negative)):
        if len(text) > MAX_TEXT:
            return Unscored(known.id, f"{name} of {len(text)} characters is above {MAX_TEXT}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Unscored(known.id, f"{name} is not valid UTF-8")
    if known.seed is not None and known.seed < 0:
        return _replaced(known, seed=None)
    return known


def _replaced(known: Known, **changes: Any) -> Known:
    from dataclasses import replace

    return replace(known, **changes)


def _from_table(table: Path, mapping: Mapping[str, str]) -> Iterator[Known | Unscored]:
    from negbench.database.sources.columns import Columns
    from negbench.database.sources.readers import Broken, read_rows

    chosen = dict(mapping)
    column = chosen.pop("path", None)
    columns = Columns(chosen)
    seen_path = False
    for row in read_rows(table):
        if isinstance(row, Broken):
            yield Unscored(row.where, row.reason)
            continue
        name = column if column is not None else _path_column(row.data)
        value = row.data.get(name) if name is not None else None
        if isinstance(value, dict):  # the image feature of `datasets`
            value = value.get("path")
        if not isinstance(value, str) or not value.strip():
            if name is None and not seen_path:
                found = ", ".join(str(key) for key in list(row.data)[:20])
                raise DataError(
                    f"{table} has no column of paths (found: {found or 'none'}); call it path, or "
                    "name it with --map path=COLUMN"
                )
            yield Unscored(f"row {row.number}", "no path")
            continue
        seen_path = True
        yield _row(table.parent, value, columns.values(row.data), row.data)


def _path_column(row: Mapping[str, Any]) -> str | None:
    from negbench.database.sources.columns import plain

    by_name: dict[str, str] = {}
    for key in row:
        if isinstance(key, str):
            by_name.setdefault(plain(key), key)
    return next((by_name[name] for name in PATH_NAMES if name in by_name), None)


def _row(
    base: Path, place: str, values: Mapping[str, Any], row: Mapping[str, Any]
) -> Known | Unscored:
    from negbench.database.sources.columns import as_float, as_int, as_text

    path = base / Path(place).expanduser()
    if "\0" in place or not path.is_file():
        return Unscored(place, "no such file")
    prompt, negative = values.get("prompt"), values.get("negative")
    settings = _settings(
        as_text(values.get("model")),
        as_text(values.get("sampler")),
        as_int(values.get("steps")),
        as_float(values.get("cfg_scale")),
    )
    if prompt is None or not str(prompt).strip():
        item = _known(next(iter(_source(path).read())), path)
        return (
            _replaced(item, id=place) if isinstance(item, Known) else Unscored(place, "no prompt")
        )
    tags = row.get("tags")
    case, twin, concept = (_label(row.get(name)) for name in ("case", "twin", "concept"))
    return _checked(
        Known(
            id=place,
            path=path,
            prompt=str(prompt),
            negative=negative if isinstance(negative, str) else "",
            seed=as_int(values.get("seed")),
            settings=settings,
            convention="table",
            case=case[:200] if case else None,
            replicate=_count(row.get("replicate")),
            twin=twin,
            concept=concept,
            tags=tuple(tags.split("|")[:100]) if isinstance(tags, str) and tags else (),
            evaluations=_count(row.get("evaluations")),
        )
    )


def _label(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None


def _count(value: Any) -> int | None:
    from negbench.database.sources.columns import as_int

    number = as_int(value)
    return number if number is not None and number >= 0 else None


def load_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Pixels of a picture, uint8 (height, width, 3); the first frame of an animation.

    Raises:
        DataError: it is broken, too large, or of another format; the message is the reason alone.
    """
    import numpy as np
    from PIL import Image

    try:
        if path.stat().st_size > MAX_FILE:
            raise DataError(f"file is larger than {MAX_FILE >> 20} MiB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{width} x {height} pixels are above {MAX_PIXELS}")
                return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders raise whatever they like on broken files
        raise DataError(f"pixels cannot be decoded ({type(error).__name__})") from error
