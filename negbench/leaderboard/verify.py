"""Draw a random sample of an entry again, score it again, and say how sure that makes us.

Of N samples n are drawn without replacement, so that if A of them were altered, at least one of
those is in the sample with probability

    1 - C(N - A, n) / C(N, n)                       (hypergeometric; no altered sample in n draws)

The sample is chosen by fresh randomness, after the entry was sealed, so that nobody can know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from negbench.drawing import Drawing
from negbench.errors import ConfigError, DataError, MissingError
from negbench.generators.base import RunOptions
from negbench.leaderboard.add import ENTRIES, relative_path
from negbench.leaderboard.checks import Checked, read_entry_files
from negbench.leaderboard.tolerance import SAME_BYTES, apart, spread, tolerance
from negbench.leaderboard.values import DIGEST_BYTES, Values
from negbench.metrics.base import SetMetric
from negbench.plan import Resolved, make_plan
from negbench.progress import Progress, silent
from negbench.scoring import Scoring
from negbench.store import FeatureStore
from negbench.types import Score

if TYPE_CHECKING:
    from negbench.record import Plan, Sample

SHARES = (0.01, 0.05, 0.10, 0.25)


def detection_power(total: int, altered: int, drawn: int) -> float:
    """Probability that a sample of `drawn` of `total` holds at least one of `altered`."""
    if not 0 <= altered <= total or not 0 <= drawn <= total:
        raise ValueError(f"{altered} altered and {drawn} drawn do not fit {total} samples")
    return 1.0 - comb(total - altered, drawn) / comb(total, drawn)


def surely_caught(total: int, drawn: int, *, confidence: float = 0.95) -> int | None:
    """Smallest number of altered samples that is found with that confidence, or None."""
    low, high = 1, total
    if drawn == 0 or detection_power(total, high, drawn) < confidence:
        return None
    while low < high:
        middle = (low + high) // 2
        if detection_power(total, middle, drawn) >= confidence:
            high = middle
        else:
            low = middle + 1
    return low


def choose(total: int, drawn: int, *, seed: int) -> list[int]:
    """`drawn` of `total` samples without replacement, sorted."""
    rng = np.random.default_rng(seed)
    return sorted(int(at) for at in rng.choice(total, size=drawn, replace=False))


@dataclass
class Verification:
    """What drawing again showed.

    Attributes:
        entry: path below ``entries/``.
        total: samples of the entry.
        drawn: samples drawn again.
        seed: of the choice, to repeat it.
        same_bytes: images that came out byte for byte, of `images`.
        images: distinct images drawn.
        exact: whether bytes had to agree.
        limits: metric -> largest difference let pass, where bytes did not agree.
        differing: what does not agree, one line each.
    """

    entry: str
    total: int
    drawn: int
    seed: int
    same_bytes: int = 0
    images: int = 0
    exact: bool = True
    limits: dict[str, float] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether everything agreed."""
        return not self.differing

    def power(self) -> dict[int, float]:
        """Number of altered samples -> chance that this check finds one, for some shares."""
        counts = dict.fromkeys(max(1, round(share * self.total)) for share in SHARES)
        return {count: detection_power(self.total, count, self.drawn) for count in counts}

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "entry": self.entry,
            "accepted": self.accepted,
            "samples": self.total,
            "drawn": self.drawn,
            "seed": self.seed,
            "images": self.images,
            "same_bytes": self.same_bytes,
            "exact": self.exact,
            "limits": self.limits,
            "differing": self.differing,
            "power": [{"altered": count, "found": power} for count, power in self.power().items()],
            "caught_with_95": surely_caught(self.total, self.drawn),
        }

    def as_text(self) -> str:
        """For people."""
        lines = [
            f"{self.entry}: {self.drawn} of {self.total} samples drawn again (--seed {self.seed})",
            f"  {self.same_bytes} of {self.images} images came out byte for byte"
            + ("" if self.exact else "; the others are held to the tolerance of their devices"),
        ]
        lines += [f"  differs: {line}" for line in self.differing[:20]]
        if len(self.differing) > 20:
            lines.append(f"  and {len(self.differing) - 20} more")
        for count, power in self.power().items():
            lines.append(
                f"  had {count} of {self.total} samples ({count / self.total:.1%}) been altered, "
                f"this check would have found one with {power:.1%}"
            )
        sure = surely_caught(self.total, self.drawn)
        if sure is not None:
            lines.append(f"  from {sure} altered samples on it finds one in 95 % of cases")
        lines.append("accepted" if self.accepted else "NOT accepted")
        return "\n".join(lines)


def verify(
    board: str | Path,
    entry: str,
    *,
    sample: int = 32,
    seed: int | None = None,
    exact: bool | None = None,
    benchmark: str | None = None,
    generator: str | None = None,
    generator_params: Mapping[str, Any] | None = None,
    method_params: Mapping[str, Any] | None = None,
    db: str | None = None,
    options: RunOptions | None = None,
    progress: Progress = silent,
) -> Verification:
    """Draw a sample of an entry again in an empty cache and compare.

    Args:
        board: folder of the leaderboard.
        entry: path of the entry.
        sample: how many samples.
        seed: of the choice; None for fresh randomness.
        exact: whether bytes have to agree; None: if both are CPUs with the same libraries.
        benchmark: a TOML file, where the benchmark is not shipped.
        generator: what draws, where it is not the benchmark's own.
        generator_params: its parameters.
        method_params: parameters of the method that its identity does not hold, such as paths.
        db: a data set in place of the benchmark's.
        options: device and batch size.
        progress: a bar a stage.

    Raises:
        DataError: what is here makes another plan than the entry's; the difference is named.
        MissingError: weights or data are not at hand.
    """
    if sample < 1:
        raise ConfigError(f"--sample {sample}: at least 1")
    root = Path(board)
    name = relative_path(entry, root)
    checked = read_entry_files(root, name)
    with TemporaryDirectory(prefix="negbench-verify-") as folder:
        resolved = _resolve(
            checked,
            Path(folder),
            benchmark=benchmark,
            generator=generator,
            generator_params=generator_params or {},
            method_params=method_params or {},
            db=db,
            options=options or RunOptions(),
        )
        total = len(checked.values.cases)
        chosen_seed = secrets.randbits(32) if seed is None else seed
        rows = choose(total, min(sample, total), seed=chosen_seed)
        found = Verification(
            entry=f"{ENTRIES}/{name}", total=total, drawn=len(rows), seed=chosen_seed
        )
        fresh = _draw(resolved, checked.values, rows, progress=progress)
        found.exact = _must_be_exact(checked, resolved) if exact is None else exact
        _compare(found, checked, resolved, rows, fresh)
    return found


def _resolve(
    checked: Checked,
    folder: Path,
    *,
    benchmark: str | None,
    generator: str | None,
    generator_params: Mapping[str, Any],
    method_params: Mapping[str, Any],
    db: str | None,
    options: RunOptions,
) -> Resolved:
    entry = checked.entry
    plan = entry.plan
    own = {k: v for k, v in plan.method.params.items() if not k.startswith("sha256:")}
    rule = plan.treatment_guidance
    plain = rule == plan.guidance
    try:
        resolved = make_plan(
            benchmark=benchmark or entry.benchmark,
            methods=[plan.method.name],
            method_params={**own, **method_params},
            guidance=None if plain else rule.kind,
            guidance_params={} if plain else {**rule.params, "scale": rule.scale},
            metrics=list(entry.metrics),
            generator=generator,
            generator_params=generator_params,
            db=db,
            out=folder / "runs",
            cache=folder / "cache",
            options=options,
        )
    except MissingError as error:
        raise MissingError(f"{entry.path} cannot be drawn here: {error}") from error
    here = resolved.jobs[0].plan
    if here != plan:
        raise DataError(
            f"{entry.path}: what is here makes another plan: {_differing(here, plan)}; give the "
            "release, --generator, -o, -p or --db that the entry was drawn with"
        )
    for name, facts in entry.metrics.items():
        if resolved.metric_refs[name] != facts.ref:
            raise DataError(
                f"{entry.path}: metric {name} has other weights or parameters here; take the "
                "release that the entry was scored with"
            )
    return resolved


def _differing(here: Plan, there: Plan) -> str:
    parts = []
    for name in type(here).model_fields:
        ours, theirs = getattr(here, name), getattr(there, name)
        if ours != theirs:
            parts.append(f"{name} {_short(ours)} instead of {_short(theirs)}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    if hasattr(value, "digest"):
        return f"{getattr(value, 'name', getattr(value, 'kind', ''))} {value.digest()[:12]}"
    return str(value)[:12]


@dataclass
class _Fresh:
    samples: dict[tuple[str, int], Sample]
    rows: dict[str, FeatureStore]


def _draw(resolved: Resolved, values: Values, rows: Sequence[int], *, progress: Progress) -> _Fresh:
    job = resolved.jobs[0]
    wanted_ids = {values.ids[at] for at in rows}
    job.wanted = [wanted for wanted in job.wanted if wanted.id in wanted_ids]
    drawing = Drawing(resolved)
    drawing.draw((key for w in job.wanted for key in w.requests()), progress=progress)
    stores = {
        name: FeatureStore(resolved.out, resolved.metric_refs[name], kind="rows")
        for name, metric in resolved.metrics.items()
        if isinstance(metric, SetMetric)
    }
    samples: dict[tuple[str, int], Sample] = {}
    with progress("scoring", len(job.wanted)) as bar:
        for made in Scoring(resolved, drawing).score(job.wanted, stores):
            samples |= {sample.id: sample for sample in made}
            bar.update(len(made))
    return _Fresh(samples, stores)


def _must_be_exact(checked: Checked, resolved: Resolved) -> bool:
    """Bytes must agree between CPUs of one architecture with the same libraries."""
    from negbench.drawing import provenance

    there = checked.entry.provenance
    here = provenance()
    device = str(resolved.generator.describe().get("device", "cpu")).partition(":")[0]
    named = {k: v for k, v in there.versions.items() if k != "generator"}
    return (
        there.device == device == "cpu"
        and there.machine == here["machine"]
        and named == here["versions"]
    )


def _compare(
    found: Verification, checked: Checked, resolved: Resolved, rows: Sequence[int], fresh: _Fresh
) -> None:
    entry, values = checked.entry, checked.values
    device = str(resolved.generator.describe().get("device", "cpu"))
    wide = tolerance(entry.provenance.device, device)
    spreads = {key: _spread(values, key) for key in (*values.scores, *values.rows)}
    found.limits = {
        name: wide * spreads["treated", name]
        for name in entry.metrics
        if ("treated", name) in spreads
    }
    images: dict[str, bool] = {}
    for at in rows:
        case, replicate = values.ids[at]
        sample = fresh.samples.get((case, replicate))
        where = f"{case}/{replicate}"
        if sample is None:
            found.differing.append(f"{where}: the plan here has no such sample")
            continue
        for side, result in sample.images().items():
            if not result.key.startswith(values.keys[side][at]):
                found.differing.append(f"{where} {side}: made by another request")
                continue
            same = result.image[: 2 * DIGEST_BYTES] == values.images[side][at]
            images[result.key] = same
            if not same and found.exact:
                found.differing.append(f"{where} {side}: other pixels")
            factor = SAME_BYTES if same else wide
            for name in entry.metrics:
                limit = factor * spreads.get((side, name), 0.0)
                if (side, name) in values.rows:
                    told = values.rows[side, name][at]
                    seen = fresh.rows[name][result.image]
                    far = (
                        told.shape != seen.shape or float(np.abs(told - seen).max()) > limit + 1e-6
                    )
                    if far:
                        found.differing.append(f"{where} {side} {name}: another row")
                    continue
                claimed, score = values.scores[side, name][at], result.scores[name]
                if apart(claimed, score, limit=limit):
                    found.differing.append(
                        f"{where} {side} {name}: {_said(claimed)}, drawn again {_said(score)}"
                    )
    found.images = len(images)
    found.same_bytes = sum(images.values())


def _spread(values: Values, key: tuple[str, str]) -> float:
    if key in values.rows:
        return float(values.rows[key].std())
    return spread([score.value for score in values.scores[key]])


def _said(score: Score) -> str:
    return f"unscored ({score.unscored})" if score.value is None else f"{score.value:.6g}"
