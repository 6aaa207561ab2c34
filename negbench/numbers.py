"""Numbers as people read them, the same in every table, page and sentence."""

from __future__ import annotations


def number(value: float, unit: str = "1") -> str:
    """`value` with as many decimals as its size deserves; counts without trailing zeros."""
    if unit == "count":
        return f"{value:.1f}".rstrip("0").rstrip(".")
    digits = 2 if abs(value) >= 100 else 3 if abs(value) >= 1 else 4
    return f"{value:.{digits}f}"


def with_interval(value: float | None, ci95: tuple[float, float] | None, unit: str = "1") -> str:
    """``0.568 [0.549, 0.584]``, without brackets where there is no interval."""
    if value is None:
        return "unscored"
    text = number(value, unit)
    if ci95 is None:
        return text
    return f"{text} [{number(ci95[0], unit)}, {number(ci95[1], unit)}]"


def signed(value: float, unit: str = "1") -> str:
    """A difference with its sign, a true minus sign included."""
    text = number(value, unit)
    return text.replace("-", "−") if value < 0 else f"+{text}"


def signed_interval(value: float | None, ci95: tuple[float, float] | None, unit: str = "1") -> str:
    """``+0.31 [−0.02, 0.64]``, for differences."""
    if value is None:
        return "unscored"
    if ci95 is None:
        return signed(value, unit)
    low, high = (number(end, unit).replace("-", "−") for end in ci95)
    return f"{signed(value, unit)} [{low}, {high}]"


def p_value(p: float | None) -> str:
    """A p value with three decimals, or one significant digit below 0.001; nothing for None."""
    if p is None:
        return ""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def arrow(higher_is_better: bool | None) -> str:  # noqa: FBT001
    """The good direction, or nothing where neither is better."""
    return "" if higher_is_better is None else "↑" if higher_is_better else "↓"


_TEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def tex(text: str) -> str:
    """`text` escaped for LaTeX, on one line."""
    from negbench.errors import one_line

    return "".join(_TEX.get(c, c) for c in one_line(text))
