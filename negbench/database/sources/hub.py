"""``hub:org/name[@revision]``: a Hugging Face data set, streamed row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from negbench.database.records import RawRecord, Skip
from negbench.database.sources.base import Options, Source
from negbench.database.sources.columns import Columns
from negbench.errors import ConfigError, DataError, MissingError, one_line

RETRIES = 5


class HubSource(Source):
    """Any data set with prompt and negative prompt columns; no code of a repository is run."""

    kind = "hub"

    def __init__(self, place: str, options: Options) -> None:
        super().__init__(place, options)
        repo, _, revision = place.partition("@")
        if repo.count("/") != 1 or not all(repo.split("/")):
            raise ConfigError(
                f"hub:{place} is not hub:org/name[@revision], for example hub:mikeogezi/negopt_full"
            )
        self.repo = repo
        self.revision = revision or None
        self._columns = Columns(options.mapping)
        self._commit: str | None = None
        self._license: str | None = options.license

    @property
    def name(self) -> str:
        """``hub:org/name``; the revision stands in the manifest."""
        return f"hub:{self.repo}"

    def describe(self) -> dict[str, Any]:
        """The commit that was read and the licence that the card declares."""
        return {"revision": self._commit, "license": self._license}

    def resolve(self) -> str:
        """The commit behind the revision.

        Raises:
            MissingError: there is no such data set, or the hub cannot be reached.
        """
        from huggingface_hub import HfApi

        try:
            info = HfApi().dataset_info(self.repo, revision=self.revision)
        except Exception as error:
            raise MissingError(
                f"hub:{self.place} cannot be reached: {type(error).__name__}: "
                f"{one_line(str(error), limit=160)}; check the name, `hf auth login` for gated "
                "sets, or download it and use files:DIR"
            ) from error
        if not info.sha:
            raise DataError(f"hub:{self.place} has no commit")
        card = info.card_data
        declared = getattr(card, "license", None) if card is not None else None
        if isinstance(declared, list):
            declared = declared[0] if len(declared) == 1 else None
        if self._license is None and isinstance(declared, str):
            self._license = declared
        self._commit = str(info.sha)
        return self._commit

    def read(self) -> Iterator[RawRecord | Skip]:
        """Rows of all splits in order; a broken connection is taken up where it broke.

        Raises:
            DataError: the data set has no prompt and negative prompt columns.
            MissingError: it cannot be reached.
        """
        import datasets

        commit = self.resolve()
        try:
            names = datasets.get_dataset_split_names(self.repo, revision=commit)
        except Exception as error:
            raise MissingError(
                f"hub:{self.place} cannot be opened: {type(error).__name__}: "
                f"{one_line(str(error), limit=160)}"
            ) from error
        checked = False
        for split in names:
            for number, row in self._rows(datasets, commit, split):
                if not checked:
                    self._check(row)
                    checked = True
                key = self._columns.values(row).get("id")
                plain = isinstance(key, (str, int)) and str(key).strip()
                source_id = str(key).strip()[:200] if plain else f"{split}#{number}"
                yield self._columns.record(row, source=self.name, source_id=source_id, licence=None)

    def _check(self, row: dict[str, Any]) -> None:
        if not self._columns.complete(row) and not self._columns.nested(row):
            raise DataError(
                f"hub:{self.repo} has no prompt and negative prompt columns; found: "
                f"{', '.join(list(row)[:20])}; name them with --map prompt=COLUMN,negative=COLUMN"
            )

    def _rows(self, datasets: Any, commit: str, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        done = 0
        failures = 0
        while True:
            try:
                stream = datasets.load_dataset(
                    self.repo, revision=commit, split=split, streaming=True
                )
                for row in stream.skip(done) if done else stream:
                    done += 1
                    failures = 0
                    yield done, row
                return
            except (OSError, TimeoutError, ConnectionError) as error:
                failures += 1
                if failures > RETRIES:
                    raise MissingError(
                        f"hub:{self.repo} broke off after {done} rows of {split}: "
                        f"{type(error).__name__}; give the same command again"
                    ) from error
