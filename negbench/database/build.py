"""`negbench build-db`: sources to a data set with splits, manifest, card and plots."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negbench.database import manifest as manifests
from negbench.database.card import write_card
from negbench.database.clean import Rules
from negbench.database.config import BuildConfig
from negbench.database.evaluation import draw_subsets, evaluation_json, read_evaluation
from negbench.database.funnel import Funnel
from negbench.database.ingest import Gathered, gather
from negbench.database.previous import Previous, apply_list, carry_over, open_previous
from negbench.database.rows import SPLITS, CleanShard, clean_shard, load_rows
from negbench.database.schema import SCHEMA_VERSION
from negbench.database.sources import Options, open_source
from negbench.database.split import CAPPED, RULE, Decision, SplitRules, decide, describe
from negbench.database.stats import compute_stats
from negbench.database.write import write_rows
from negbench.errors import DataError, NegbenchError, StorageError

Progress = Callable[[str, int, int | None], None]
"""Called with the stage, how much is done, and of how much (None = not known)."""

PARALLEL_FROM = 2
"""Fewer shards than this are cleaned in the calling process."""


@dataclass(frozen=True)
class Built:
    """A finished data set: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]


def build_db(
    config: BuildConfig, *, workers: int | None = None, progress: Progress | None = None
) -> Built:
    """Gather, clean, split and write a data set.

    The same sources give byte-identical files, whatever the order of sources, the number of
    workers or the machine. A build that dies leaves the old data set and the crawled pages as they
    were.

    Args:
        config: what to build; without sources the miniature.
        workers: processes that clean; default: the CPU's cores.
        progress: told how far it is.

    Raises:
        NegbenchError: a source cannot be read at all, or the folder cannot be written.
    """
    told: Progress = progress or (lambda stage, done, total: None)
    out = config.out
    sources = config.sources or ("miniature",)
    name = config.name or ("miniature" if sources == ("miniature",) else out.resolve().name.lower())
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in name) or "negbench-db"
    _check_out(out)
    previous = open_previous(config.previous) if config.previous else None
    evaluation = read_evaluation(config.evaluation) if config.evaluation else None
    work = out / ".work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        (work / "owner").write_text(str(os.getpid()), encoding="ascii")
        new = work / "new"
        new.mkdir()
        manifest = _build(config, name, sources, previous, evaluation, work, new, workers, told)
        _install(new, out)
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written: {error.strerror or error}; free space or choose --out"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Built(out, manifest)


def _build(
    config: BuildConfig, name: str, sources: tuple[str, ...], previous: Previous | None,
    evaluation: dict[str, Any] | None, work: Path, new: Path, workers: int | None, told: Progress,
) -> dict[str, Any]:  # fmt: skip
    rules = Rules(config.clean.languages, config.clean.nsfw)
    frozen = (previous is not None or evaluation is not None) and not config.new_evaluation
    split_rules = SplitRules(**config.split.model_dump(), grow=not frozen)
    gathered, shards, given = _gather_and_clean(config, sources, work, rules, workers, told)
    funnel = Funnel(read=sum(item.rows + item.skipped for item in gathered))
    if previous is not None:
        told("carrying over", 0, None)
        carried = carry_over(previous, work)
        funnel.carried = sum(count for _, count in carried)
        shards = [shard for shard, _ in carried] + shards
    rows = load_rows(shards)
    if evaluation is not None:
        apply_list(rows, evaluation, firm=True)
    if given:
        apply_list(rows, given, firm=False)
    told("finding duplicates", 0, None)
    decision = decide(rows, shards, split_rules, work)
    funnel.matched = int((decision.split == -1).sum())
    told("writing", 0, None)
    files = write_rows(rows, shards, decision, new, work, funnel)
    kept = sum(count for path, count in files.items() if path.startswith("data/"))
    if kept == 0:
        worst = [f"{reason} ({n})" for step in funnel.excluded.values() for reason, n in
                 step.most_common(2)]  # fmt: skip
        raise DataError(
            f"no row is left of {funnel.read} read: {'; '.join(worst[:4]) or 'nothing was read'}"
        )
    version = _evaluation_version(previous, evaluation, config)
    capped = sorted(
        rows.hex_id(int(row))
        for row in (decision.reason == decision.reasons.index(CAPPED)).nonzero()[0]
    )
    lists = _write_evaluation(
        name, new, files, previous, evaluation, capped, version=version, frozen=frozen
    )
    licence, shareable = manifests.license_of([g.entry for g in gathered], previous)
    stats = compute_stats(new, files, show_texts=shareable)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "negbench": manifests.package_version(),
        "license": licence,
        "may_be_shared": shareable,
        "sources": manifests.source_entries([g.entry for g in gathered], previous),
        "previous": None if previous is None else previous.summary(),
        "cleaning": {"languages": list(rules.languages), "nsfw": rules.nsfw},
        "split_rule": describe(split_rules),
        "rows": {split: stats["rows"][split] for split in SPLITS},
        "excluded": files["excluded.parquet"],
        "clusters": {"number": decision.clusters, "above_large_share": decision.large_clusters},
        "changed": dict(sorted(funnel.changed.items())),
        "funnel": funnel.as_json(kept),
        "evaluation": {"version": version, "frozen": frozen, "lists": lists},
    }
    told("card and plots", 0, None)
    write_card(new, manifest, stats)
    manifest["files"] = manifests.digests(new, files)
    (new / "manifest.json").write_bytes(manifests.to_bytes(manifest))
    return manifest


def _gather_and_clean(
    config: BuildConfig, sources: tuple[str, ...], work: Path, rules: Rules, workers: int | None,
    told: Progress,
) -> tuple[list[Gathered], list[CleanShard], dict[str, list[str]]]:  # fmt: skip
    options = Options(
        mapping=config.mapping,
        accept_terms=config.accept_terms,
        crawl_dir=config.crawl_dir or config.out / "crawls",
        offline=config.offline,
        license=config.license,
        max_pages=config.max_pages,
    )
    opened = [open_source(text, options) for text in sources]
    opened.sort(key=lambda source: source.name)  # the order on the command line does not matter
    total = 0
    gathered: list[Gathered] = []
    for number, source in enumerate(opened):

        def count(rows: int) -> None:
            nonlocal total
            total += rows
            told("reading", total, None)

        gathered.append(gather(source, work / "raw", number=number, progress=count))
    raw = [path for item in gathered for path in item.shards]
    clean = work / "clean"
    clean.mkdir()
    jobs = [(path, clean / path.name.replace("raw-", "clean-")) for path in raw]
    shards: list[CleanShard] = []
    with _pool(workers, len(jobs)) as submit:
        futures = [submit(source, target, rules) for source, target in jobs]
        for index, future in enumerate(futures):
            shards.append(future.result())
            jobs[index][0].unlink()
            told("cleaning", index + 1, len(jobs))
    given: dict[str, list[str]] = {}
    for source in opened:
        for split, ids in source.given_splits().items():
            given.setdefault(split, []).extend(ids)
    return gathered, shards, given


Submit = Callable[[Path, Path, Rules], "Future[CleanShard]"]


@contextmanager
def _pool(workers: int | None, jobs: int) -> Iterator[Submit]:
    """Something that cleans shards: worker processes, or this one where there are few."""
    count = min(workers or os.cpu_count() or 1, jobs)
    if count <= 1 or jobs < PARALLEL_FROM:

        def here(raw: Path, out: Path, rules: Rules) -> Future[CleanShard]:
            done: Future[CleanShard] = Future()
            done.set_result(clean_shard(raw, out, rules))
            return done

        yield here
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as pool:
        yield lambda raw, out, rules: pool.submit(clean_shard, raw, out, rules)


def _start_worker() -> None:
    os.environ["POLARS_MAX_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"


def _evaluation_version(
    previous: Previous | None, evaluation: dict[str, Any] | None, config: BuildConfig
) -> int:
    before = 0
    if previous is not None:
        before = previous.evaluation_version
    elif evaluation is not None:
        before = int(evaluation["version"])
    return before if before and not config.new_evaluation else before + 1


def _write_evaluation(
    name: str, new: Path, files: dict[str, int], previous: Previous | None,
    evaluation: dict[str, Any] | None, capped: list[str], *, version: int, frozen: bool,
) -> dict[str, int]:  # fmt: skip
    """Lists of earlier versions as they are, and this version's if it is new."""
    import polars as pl

    folder = new / "evaluation"
    folder.mkdir()
    if previous is not None:
        for path in previous.evaluation_files():
            shutil.copyfile(path, folder / path.name)
    target = folder / f"v{version}.json"
    if frozen and not target.exists() and evaluation is not None:
        target.write_bytes(manifests.to_bytes(evaluation))
    if not target.exists():
        lists: dict[str, list[str]] = {}
        for split in ("validation", "test"):
            names = [path for path in files if path.startswith(f"data/{split}-")]
            columns = ["id", "nsfw", "cluster", "prompt_tags"]
            frame = pl.concat([pl.read_parquet(new / path, columns=columns) for path in names])
            lists[split] = frame["id"].to_list()
            if split == "test":
                lists.update(draw_subsets(frame))
        lists["capped"] = capped
        target.write_bytes(manifests.to_bytes(evaluation_json(name, version, RULE, lists)))
    for path in sorted(folder.iterdir()):
        files[f"evaluation/{path.name}"] = 0
    data = json.loads(target.read_text(encoding="utf-8"))
    return {key: len(value) for key, value in data.items() if isinstance(value, list)}


def _check_out(out: Path) -> None:
    """Refuse to write over a folder that is not a data set of ours."""
    if out.is_file():
        raise StorageError(f"{out} is a file; give a folder with --out")
    if not out.is_dir():
        return
    others = [path.name for path in out.iterdir() if path.name not in ("crawls", ".work")]
    if others and not (out / "manifest.json").is_file():
        raise StorageError(
            f"{out} holds other things ({', '.join(sorted(others)[:3])}) and no manifest.json; "
            "give an empty folder with --out"
        )


def _install(new: Path, out: Path) -> None:
    """Put the finished files in place; the manifest comes last."""
    (out / "manifest.json").unlink(missing_ok=True)
    for path in sorted(new.iterdir(), key=lambda p: p.name == "manifest.json"):
        target = out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)


__all__ = ["BuildConfig", "Built", "Decision", "NegbenchError", "build_db"]
