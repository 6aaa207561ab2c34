"""How much a sample can show: variance components, detectable differences, prompts needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negbench.stats.summary import gather

MAX_PROMPTS = 10_000_000


@dataclass(frozen=True)
class Components:
    """Where paired differences vary.

    Attributes:
        prompt_sd: standard deviation between prompts, beyond what replicates explain.
        image_sd: standard deviation between replicates of one prompt.
    """

    prompt_sd: float
    image_sd: float

    def mean_sd(self, replicates: float) -> float:
        """Standard deviation of a prompt's mean over `replicates` images."""
        return float(np.sqrt(self.prompt_sd**2 + self.image_sd**2 / replicates))


def variance_components(
    values: Sequence[float | None], prompts: Sequence[str]
) -> Components | None:
    """Between- and within-prompt deviations by one-way analysis of variance (method of moments).

    Without replicates all variation counts as between prompts. None if there are fewer than two
    prompts.
    """
    clusters = gather(values, prompts)
    groups = len(clusters.prompts)
    if groups < 2:
        return None
    n, sizes = clusters.n, clusters.sizes
    means = clusters.totals / sizes
    grand = clusters.totals.sum() / n
    within = sum(
        float(((np.array(v) - mean) ** 2).sum())
        for v, mean in zip(clusters.values, means, strict=True)
    )
    between = float((sizes * (means - grand) ** 2).sum())
    typical = (n - float((sizes**2).sum()) / n) / (groups - 1)
    within_var = within / (n - groups) if n > groups else 0.0
    between_var = max(0.0, (between / (groups - 1) - within_var) / typical)
    return Components(prompt_sd=float(np.sqrt(between_var)), image_sd=float(np.sqrt(within_var)))


def minimum_detectable_difference(
    sd: float | Components,
    *,
    prompts: int,
    replicates: float = 1,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float | None:
    """Smallest true difference that a two-sided paired t test over prompts finds with `power`.

    Args:
        sd: standard deviation of the prompts' mean differences at this number of replicates, or
            components from which it follows.
        prompts: number of prompts.
        replicates: images a prompt; used with components only.
        power: chance to find it.
        alpha: two-sided level.

    Returns:
        The difference in the unit of `sd`, from the noncentral t distribution; None below two
        prompts.
    """
    if prompts < 2:
        return None
    scale = sd.mean_sd(replicates) if isinstance(sd, Components) else float(sd)
    return scale * _shift(prompts, power, alpha) / float(np.sqrt(prompts))


def _shift(prompts: int, power: float, alpha: float) -> float:
    """Noncentrality at which a two-sided t test with prompts - 1 df has `power`."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr, ndtri, stdtrit

    if not (alpha < power < 1 and 0 < alpha < 1):
        raise ValueError(f"need 0 < alpha < power < 1, got alpha {alpha} and power {power}")
    df = prompts - 1
    critical = float(stdtrit(df, 1 - alpha / 2))
    if df > 1000:
        return float(ndtri(1 - alpha / 2) + ndtri(power))

    def lack(shift: float) -> float:
        return float(nctdtr(df, shift, critical)) - (1 - power)  # the far tail adds under 1e-3

    upper = critical + 10.0
    while lack(upper) > 0 and upper < 1e6:
        upper *= 2
    return float(brentq(lack, 0.0, upper, xtol=1e-9))


def prompts_needed(
    effect: float,
    sd: float | Components,
    *,
    replicates: float = 1,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int | None:
    """Number of prompts at which `effect` would be found with `power`.

    Args:
        effect: the true difference; its sign does not matter.
        sd: as in `minimum_detectable_difference`.
        replicates: images a prompt; used with components only.
        power: chance to find it.
        alpha: two-sided level.

    Returns:
        At least 2; None if the effect is 0 or would need more than ten million prompts.
    """
    target = abs(float(effect))
    if target == 0:
        return None

    def enough(prompts: int) -> bool:
        found = minimum_detectable_difference(
            sd, prompts=prompts, replicates=replicates, power=power, alpha=alpha
        )
        return found is not None and found <= target

    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
        if high > MAX_PROMPTS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
