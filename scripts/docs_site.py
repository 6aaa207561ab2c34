"""What mkdocs cannot know by itself: the navigation, the command pages, formulas, links.

mkdocs calls the functions whose names begin with ``on_``. A command's page is its own ``--help``,
made while the site is built, so it cannot be out of date. Formulas become pictures while building,
so no page loads a script for them.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/negbench/negbench/blob/main"
WIDTH = 88

NAV: list[tuple[str, str | list[tuple[str, str]]]] = [
    ("negbench", "index.md"),
    ("Five minutes", "tour.md"),
    (
        "Questions",
        [
            ("Quality", "quality.md"),
            ("Removal", "removal.md"),
            ("Timing", "timing.md"),
            ("Judges", "judges.md"),
            ("NegOpt, reproduced", "reproduction.md"),
            ("Removal numbers, checked", "removal-numbers.md"),
            ("Which tags help?", "ablate.md"),
            ("Pictures you have", "score.md"),
        ],
    ),
    (
        "Running it",
        [
            ("A real Stable Diffusion", "run/stable-diffusion.md"),
            ("Several GPUs, a cluster", "run/many-gpus.md"),
            ("Without internet", "run/offline.md"),
            ("What a run leaves", "run/record.md"),
            ("How fast", "benchmarks.md"),
        ],
    ),
    (
        "Adding to it",
        [
            ("A method", "write/method.md"),
            ("A guidance rule", "write/rule.md"),
            ("A metric", "write/metric.md"),
            ("A judge", "write/judge.md"),
            ("A source", "write/source.md"),
            ("A benchmark", "write/benchmark.md"),
            ("A leaderboard entry", "write/entry.md"),
        ],
    ),
    ("Its neighbours", "relation.md"),
]
"""Titles and pages; one that is not there is left out."""


def on_config(config: Any) -> Any:
    """Set the navigation: the pages that exist, then the commands."""
    config.nav = [*_nav(Path(config.docs_dir)), {"Commands": _command_nav()}]
    return config


def _nav(docs: Path) -> Iterator[dict[str, Any]]:
    for title, place in NAV:
        if isinstance(place, str):
            if (docs / place).is_file():
                yield {title: place}
            continue
        pages = [{name: page} for name, page in place if (docs / page).is_file()]
        if pages:
            yield {title: pages}


def _command_nav() -> list[dict[str, str]]:
    pages = [{"All commands": "commands/index.md"}]
    return pages + [{name: f"commands/{name}.md"} for name in sorted(commands())]


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each command."""
    from mkdocs.structure.files import File

    for name, text in command_pages().items():
        files.append(File.generated(config, f"commands/{name}", content=text))
    return files


def commands() -> dict[str, list[str]]:
    """Top-level commands and the names of their subcommands, none for a plain one."""
    import typer

    from negbench.cli import app

    found = {}
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        if not command.hidden:
            found[name] = sorted(getattr(command, "commands", {}))
    return found


def help_of(*names: str) -> str:
    """What ``negbench NAMES --help`` prints."""
    from typer.testing import CliRunner

    from negbench.cli import app

    result = CliRunner().invoke(
        app, [*names, "--help"], prog_name="negbench", terminal_width=WIDTH, color=False
    )
    if result.exit_code:
        raise RuntimeError(f"negbench {' '.join(names)} --help failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def command_pages() -> dict[str, str]:
    """File name -> Markdown of the pages about commands."""
    pages = {}
    lines = [
        "# Commands",
        "",
        "Data goes to stdout, talk to stderr. What you can mend is one line and exit code 2; a",
        "command that was stopped or killed goes on when it is given again.",
        "",
    ]
    for name, children in sorted(commands().items()):
        text = help_of(name)
        lines.append(f"- [`negbench {name}`]({name}.md): {_summary(text)}")
        page = [f"# negbench {name}", "", *_fenced(text)]
        for child in children:
            page += ["", f"## negbench {name} {child}", "", *_fenced(help_of(name, child))]
        pages[f"{name}.md"] = "\n".join(page) + "\n"
    pages["index.md"] = "\n".join(lines) + "\n"
    return pages


def _fenced(text: str) -> list[str]:
    return ["```text", text.replace("```", "` ` `"), "```"]


def _summary(text: str) -> str:
    """The first paragraph after the usage line."""
    paragraphs = re.split(r"\n\s*\n", text)
    return " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead out of ``docs/`` go to the repository."""
    depth = page.file.src_uri.count("/")
    up = "../" * (depth + 1)

    def outside(match: re.Match[str]) -> str:
        return f"]({REPOSITORY}/{match[1]})"

    return re.sub(rf"\]\({re.escape(up)}(?!\.\./)([^)\s]+)\)", outside, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as SVG, drawn while building."""
    block = re.compile(r'<(div|span) class="arithmatex">(.*?)</\1>', re.S)
    return block.sub(
        lambda match: formula(html.unescape(match[2]), block=match[1] == "div"), content
    )


def formula(tex: str, *, block: bool) -> str:
    """A formula as an inline SVG picture with its TeX as text for screen readers."""
    source = re.sub(r"^\\[\[(]|\\[\])]$", "", tex.strip()).strip()
    try:
        svg = _svg(_plain(source))
    except (ValueError, RuntimeError):
        return f"<code>{html.escape(source)}</code>"
    label = html.escape(source, quote=True)
    kind = "formula block" if block else "formula"
    return f'<span class="{kind}" role="img" aria-label="{label}">{svg}</span>'


def _plain(tex: str) -> str:
    """TeX as matplotlib's mathtext knows it."""
    changes = {
        r"\operatorname*": r"\operatorname", r"\Big": "", r"\big": "", r"\lVert": r"\|",
        r"\rVert": r"\|", r"\text": r"\mathrm",
    }  # fmt: skip
    for old, new in changes.items():
        tex = tex.replace(old, new)
    spaced = re.sub(
        r"\\mathrm\{([^}]*)\}", lambda m: r"\mathrm{" + m[1].replace(" ", r"\ ") + "}", tex
    )
    return " ".join(spaced.split())


def _svg(tex: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "path", "mathtext.fontset": "cm", "svg.hashsalt": tex}):
        figure = Figure(figsize=(0.01, 0.01))
        figure.text(0, 0, f"${tex}$", fontsize=13)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", pad_inches=0.03, transparent=True,
            metadata={"Date": None, "Creator": None},
        )  # fmt: skip
    text = buffer.getvalue().decode("utf-8")
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # the ink takes the colour of the text, in the dark too
    return svg.replace("<svg ", '<svg fill="currentColor" aria-hidden="true" ', 1)
