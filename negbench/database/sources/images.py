"""``images:DIR``: one record, or one reason, for each picture in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from negbench.database.records import RawRecord, Skip
from negbench.database.sources.base import Options, Source
from negbench.database.sources.carriers import Carried, NotAPictureError, read_carried
from negbench.database.sources.columns import is_utf8
from negbench.database.sources.dialects import Found, read_dialects
from negbench.errors import MissingError


class ImageSource(Source):
    """PNG, JPEG and WebP files with the generation metadata of the common tools."""

    kind = "images"

    def __init__(self, place: str, options: Options) -> None:
        super().__init__(place, options)
        self._count = 0

    @property
    def name(self) -> str:
        """``images:`` and the folder's own name."""
        return f"images:{Path(self.place).name or Path(self.place).resolve().name}"

    def describe(self) -> dict[str, Any]:
        """Licence and the number of files seen."""
        return {"license": self.options.license, "files_seen": self._count}

    def read(self) -> Iterator[RawRecord | Skip]:
        """Walk the folder in a fixed order; links that lead out of it are refused.

        Raises:
            MissingError: there is no such folder or file.
        """
        place = Path(self.place).expanduser()
        if place.is_file():
            base, paths = place.parent, [place]
        elif place.is_dir() and self.place:
            base = place
            paths = sorted(
                Path(folder) / name for folder, _, names in os.walk(place) for name in names
            )
        else:
            raise MissingError(f"no folder at {self.place or '(nothing)'}; write images:DIR")
        root = base.resolve()
        for path in paths:
            self._count += 1
            relative = path.relative_to(base).as_posix()
            relative = relative.encode("utf-8", "replace").decode("utf-8")
            yield self._read_one(path, root, relative)

    def _read_one(self, path: Path, root: Path, relative: str) -> RawRecord | Skip:
        try:
            if not path.resolve(strict=True).is_relative_to(root):
                return Skip(self.name, relative, "a link that leads out of the folder")
            if not path.is_file():
                return Skip(self.name, relative, "not a regular file")
            size = path.stat().st_size
            if size > self.options.max_bytes:
                reason = f"file of {size} bytes is above the bound of {self.options.max_bytes}"
                return Skip(self.name, relative, reason)
            carried = read_carried(path)
        except NotAPictureError as error:
            return Skip(self.name, relative, str(error))
        except (OSError, RuntimeError) as error:
            return Skip(self.name, relative, f"cannot be read ({type(error).__name__})")
        found = read_dialects(carried)
        if isinstance(found, str):
            found = self._hidden(path, carried, found)
        if isinstance(found, str):
            return Skip(self.name, relative, found)
        if not (is_utf8(found.prompt) and is_utf8(found.negative)):
            return Skip(self.name, relative, "text is not valid UTF-8")
        settings = found.settings
        return RawRecord(
            source=self.name,
            source_id=relative,
            prompt=found.prompt,
            negative=found.negative,
            model=settings.get("model"),
            sampler=settings.get("sampler"),
            steps=settings.get("steps"),
            cfg_scale=settings.get("cfg_scale"),
            seed=settings.get("seed"),
            width=settings.get("width") or carried.width,
            height=settings.get("height") or carried.height,
            created=settings.get("created"),
            license=self.options.license,
            convention=found.convention,
        )

    @staticmethod
    def _hidden(path: Path, carried: Carried, reason: str) -> Found | str:
        """A second look at the pixels of lossless pictures with an alpha channel."""
        if not carried.alpha or carried.format == "jpeg":
            return reason
        from negbench.database.sources.stealth import read_stealth

        text = read_stealth(path, width=carried.width, height=carried.height)
        if text is None:
            return reason
        return read_dialects(Carried(carried.format, texts={"parameters": text}))
