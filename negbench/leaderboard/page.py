"""The pages: one table, and a page an entry; each a file that works offline and runs nothing alien.

Texts of submitters are shown by `visible` and escaped by the template engine; a policy in each page
allows its own style and script by their sha256 and nothing else, no other host least of all.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from negbench.leaderboard.entry_view import entry_view
from negbench.leaderboard.overview import overview
from negbench.leaderboard.ranks import Rankings
from negbench.leaderboard.table import Table
from negbench.leaderboard.wording import metric_name
from negbench.numbers import p_value
from negbench.report.text import content_security_policy, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from negbench.leaderboard.checks import Board


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(str(_templates())),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"visible": visible, "p": p_value, "metric_name": metric_name}
    return made


def _templates() -> Any:
    return files("negbench.leaderboard") / "templates"


@cache
def _asset(name: str) -> str:
    text: str = (_templates() / name).read_text(encoding="utf-8")
    return text


def _page(template: str, **context: Any) -> bytes:
    style = _asset("style.css")
    script = _asset("page.js") if template == "index.html" else ""
    html = (
        _environment()
        .get_template(template)
        .render(
            style=_markup(style),
            script=_markup(script),
            policy=content_security_policy(style=style, script=script),
            **context,
        )
    )
    return html.encode("utf-8")


def _markup(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 (our own file)


def render(table: Table, board: Board, rankings: Rankings) -> dict[str, bytes]:
    """All pages by path: ``index.html`` and one an entry."""
    groups = [overview(at, group) for at, group in enumerate(table.groups)]
    pages = {"index.html": _page("index.html", table=table, groups=groups)}
    for place, group in enumerate(table.groups):
        mine = {name: found for (at, name), found in rankings.items() if at == place}
        for row in group.rows:
            checked = board.entries[row.entry.removeprefix("entries/")]
            pages[row.page] = _page("entry.html", **entry_view(group, row, checked, mine))
    return pages
