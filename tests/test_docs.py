"""The documentation: examples that run, commands that exist, a site that asks no other host."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from browser import PHONE

from negbench.registry import load_plugin_file

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def site_hook():
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known():
    """Options of each command, by its words: ("leaderboard", "add") -> {"--board", ...}."""
    import typer

    from negbench.cli import app

    found = {}

    def walk(command, words):
        children = getattr(command, "commands", {})
        if not children:
            options = [o for p in command.params for o in (*p.opts, *p.secondary_opts)]
            found[words] = {"--help", *(o for o in options if o.startswith("-"))}
        for name, child in children.items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def fences(path, *kinds):
    text = path.read_text(encoding="utf-8")
    return [m[2] for m in re.finditer(r"```(\w*)\n(.*?)```", text, re.S) if m[1] in kinds]


def command_lines(path):
    """Every line that calls negbench, as words; continued lines joined, comments cut off."""
    for block in fences(path, "bash", "sh", "console", ""):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:
                continue
            while "negbench" in words:
                words = words[words.index("negbench") + 1 :]
                end = next((i for i, w in enumerate(words) if w in ("&&", "|", ";", ">")), None)
                yield line, words[:end]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_commands_in_the_pages_exist(path, known):
    groups = {words[0] for words in known if len(words) > 1}
    for line, words in command_lines(path):
        if not words or words[0] in ("--help", "--version"):
            continue
        if re.fullmatch(r"[=<>~].*|\w+\.\w+", words[0]):
            continue
        name = tuple(words[: 2 if words[0] in groups else 1])
        assert name in known, f"{path.name}: {line!r}: no such command"
        for word in words[len(name) :]:
            option = word.partition("=")[0]
            if re.fullmatch(r"--[a-z][a-z-]*|-[a-z]", option):
                assert option in known[name], f"{path.name}: {line!r}: no option {option}"


def test_each_command_has_a_page_with_its_help(site_hook, known):
    pages = site_hook.command_pages()
    assert {words[0] for words in known} | {"index"} == {name[:-3] for name in pages}
    for words, options in known.items():
        page = pages[f"{words[0]}.md"]
        assert f"Usage: negbench {' '.join(words)}" in page
        for option in options:
            assert option in page
    assert "score-verdicts.md" in pages["index.md"]
    assert "\x1b" not in "".join(pages.values())


def test_navigation_leaves_out_what_is_not_there(site_hook, tmp_path):
    (tmp_path / "index.md").write_text("# x")
    assert list(site_hook._nav(tmp_path)) == [{"negbench": "index.md"}]
    every = set()
    for _, place in site_hook.NAV:
        every |= {place} if isinstance(place, str) else {page for _, page in place}
    there = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert there <= every, f"not in the navigation: {there - every}"


def test_formulas_are_drawn(site_hook):
    for path in PAGES:
        for tex in re.findall(r"^\$\$(.*?)\$\$", path.read_text(encoding="utf-8"), re.M | re.S):
            assert "<svg" in site_hook.formula(rf"\[{tex}\]", block=True), (path.name, tex)
    assert "<code>" in site_hook.formula(r"\(\nonsense<b>{\)", block=False)
    assert "<b>" not in site_hook.formula(r"\(\nonsense<b>{\)", block=False)


@pytest.fixture
def example(tmp_path):
    """The one Python file that a page shows, loaded as a user would with --plugin."""

    def load(page, *, run=True):
        [code] = [
            block
            for block in fences(ROOT / "docs" / "write" / page, "python")
            if re.match(r"# \w+\.py\n", block)
        ]
        path = tmp_path / re.match(r"# (\w+\.py)\n", code)[1]
        path.write_text(code)
        if run:
            load_plugin_file(path)
        return path

    return load


def drawn(tmp_path, **changes):
    from negbench.evaluate import evaluate
    from negbench.plan import make_plan

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a castle\na dog\n")
    options = {
        "generator": "fake",
        "generator_params": {"size": 16, "steps": 4},
        "prompts": prompts,
        "metrics": ["no_op"],
        "methods": ["static"],
        "out": tmp_path / "runs",
        "cache": tmp_path / "cache",
    }
    [record] = evaluate(make_plan(**{**options, **changes}))
    return record


def test_the_method_of_the_docs_runs(tmp_path, example):
    example("method.md")
    record = drawn(tmp_path, methods=["shouty"], method_params={"times": "3"})
    assert {s.treatment.negative_text() for s in record.samples()} == {"UGLY, UGLY, UGLY"}


def test_the_metric_of_the_docs_runs(tmp_path, example):
    example("metric.md")
    record = drawn(tmp_path, metrics=["contrast"])
    assert record.estimates[0].n_scored == 4
    assert 0 < record.estimates[0].value < 127.5


def test_the_rule_of_the_docs_keeps_its_word(example):
    from negbench.conformance.parts import check_part, find_parts

    [part] = find_parts(str(example("rule.md", run=False)), kind=None)
    outcomes = check_part(part, params={})
    assert outcomes
    assert [o.check for o in outcomes if not o.passed] == []


def test_the_judge_of_the_docs_judges(example, monkeypatch):
    import numpy as np

    from negbench.judges import Question, build_judge, judges

    monkeypatch.setattr(judges, "_local", {})
    example("judge.md")
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[..., 0] = 255
    questions = [Question(image="x", pixels=red, concept=c) for c in ("red", "dog")]
    seen, unknown = build_judge("reddish").judge(questions)
    assert seen.present
    assert "dog" in unknown.unscored


def test_the_source_of_the_docs_reads(tmp_path, example, monkeypatch):
    from negbench.database.sources import SOURCES, open_source

    monkeypatch.setattr(SOURCES, "_local", {})
    example("source.md")
    (tmp_path / "d.txt").write_text("a dog | blurry\nno bar\n")
    record, skip = open_source(f"diary:{tmp_path / 'd.txt'}").read()
    assert (record.prompt, record.negative) == ("a dog", "blurry")
    assert "no bar" in skip.reason


def test_the_benchmark_of_the_docs_is_one(tmp_path):
    from negbench.protocols import load_benchmark

    [toml] = fences(ROOT / "docs" / "write" / "benchmark.md", "toml")
    (tmp_path / "mine.toml").write_text(toml)
    assert load_benchmark(str(tmp_path / "mine.toml")).title == "my-quality@1"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly; any warning of mkdocs is an error."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_the_site_asks_no_other_host(site):
    loads = re.compile(
        r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(https?:)?//'
        r'|<link\b[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?:)?//'
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page
    pictures = [p for p in (ROOT / "docs").rglob("*") if p.suffix in (".png", ".webp", ".jpg")]
    assert sum(p.stat().st_size for p in pictures) < 300_000


def test_the_site_works_from_a_folder(site, visit):
    from playwright.sync_api import expect

    page = visit(site / "index.html")
    expect(page.locator("h1")).to_contain_text("negbench")
    page.get_by_placeholder("Search").first.fill("jackknife")
    expect(page.locator(".md-search-result__list")).to_contain_text("Quality")
    for name in ("quality.html", "tour.html", "commands/evaluate.html", "write/rule.html"):
        page = visit(site / name, viewport=PHONE, dark=True)
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
