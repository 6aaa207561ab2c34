"""The leaderboard's pages in a real browser: they work, and nothing of others' runs in them."""

from __future__ import annotations

import html
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boards
import pytest
from boards import edit, entries
from browser import DESKTOP, PHONE
from hostile import HOSTILE, TOO_LONG

from negbench.leaderboard.build import write
from negbench.leaderboard.checks import read_board
from negbench.leaderboard.wording import link
from negbench.types import Guidance, Negative, Treatment, canonical_json


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    board = boards.make_board(tmp_path_factory.mktemp("leaderboard"))
    write(read_board(board))
    return board


@pytest.fixture(scope="module")
def hostile(made, tmp_path_factory):
    """Every text that a submitter chooses is one that tries to break out."""
    board = boards.copied(made, tmp_path_factory.mktemp("hostile"))
    texts = list(HOSTILE.values())
    joined = " ".join(text[:60] for text in texts)[:1900]

    def rename(data, at):
        data["plan"]["method"]["name"] = texts[at][:400] or "x"
        data["plan"]["method"]["params"] = {texts[at + 1][:100]: texts[at + 2][:200]}
        data["plan"]["treatment_guidance"]["kind"] = texts[at + 3][:100]
        if at == 0:
            data["plan"]["benchmark"]["name"] = texts[1][:100]
        data["notes"] = [text.replace("\x00", "")[:900] for text in texts[:30]]
        data["declared"] = {
            "paper": "https://example.invalid/%22onload=window.__pwned=1/&lt;",
            "code": None,
            "report": None,
            "overlap": joined,
            "contact": texts[at][:200],
        }

    for number, path in enumerate(entries(board)):
        edit(path, lambda data, at=4 * number: rename(data, at))

    def prompts(columns):
        for at, text in enumerate(texts):
            if at < len(columns["prompt"]):
                treatment = Treatment(
                    prompt=text, negatives=(Negative(text=text),), guidance=Guidance()
                )
                columns["prompt"][at] = text
                columns["treatment"][at] = canonical_json(treatment.model_dump()).decode()
                columns["case"][at] = columns["case"][at]

    boards.edit_values(entries(board)[0], prompts)
    found = read_board(board)
    assert not found.problems
    write(found)
    return board


ADDRESSES = "as => as.map(a => new URL(a.getAttribute('href'), document.baseURI).href)"


def pages(board):
    return sorted((board / "pages").rglob("*.html"))


def test_the_table_sorts_filters_and_switches(made, visit):
    page = visit(made / "index.html")
    rows = page.locator("table.board tbody:last-of-type tr")
    assert rows.count() == 4
    head = page.get_by_role("columnheader", name="Aesthetic")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(v) for v in rows.evaluate_all("rs => rs.map(r => r.cells[3].dataset.v)")]
    assert values == sorted(values, reverse=True)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.get_by_role("searchbox").fill("perp")
    assert [row.is_visible() for row in rows.all()].count(True) == 1
    assert page.get_by_role("status").inner_text() == "1 of 4 entries"
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Guidance rule").select_option("perp_neg")
    assert page.get_by_role("status").inner_text() == "1 of 4 entries"
    page.get_by_label("Guidance rule").select_option("")
    page.get_by_role("button", name="Differences").click()
    assert page.locator(".view-difference").first.is_visible()
    assert not page.locator(".view-value").first.is_visible()
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("checkbox", name="No-op").uncheck()
    assert not page.get_by_role("columnheader", name="No-op").is_visible()
    page.keyboard.press("Escape")


def test_unscored_entries_come_last_in_either_direction(made, visit):
    page = visit(made / "index.html")
    button = page.get_by_role("columnheader", name="PSNR").get_by_role("button")
    for _ in range(2):
        button.click()
        last = page.locator("table.board tbody:last-of-type tr").last
        assert "none" in last.inner_text()


def test_a_phone_has_no_column_heads_and_sorts_all_the_same(made, visit):
    page = visit(made / "index.html", viewport=PHONE)
    order = page.get_by_label("Sort by").first
    order.select_option(label="Entry")
    names = page.locator("table.board").first.locator("tbody:last-of-type th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    order.select_option(index=3)
    shown = page.locator("table.board").first.locator("tbody:last-of-type tr td:nth-of-type(2)")
    values = [float(v) for v in shown.evaluate_all("c => c.map(x => x.dataset.v)") if v]
    assert len(values) > 1
    assert values in (sorted(values), sorted(values, reverse=True))


def test_every_link_of_every_page_leads_to_a_file(made, visit):
    for path in [made / "index.html", *pages(made)]:
        page = visit(path)
        links = page.locator("a[href]").evaluate_all(ADDRESSES)
        assert links
        for address in links:
            if address.startswith("file:"):
                target = Path(unquote(urlsplit(address).path))
                assert target.is_file(), address


@pytest.mark.parametrize(("viewport", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_nothing_runs_and_nothing_overflows(hostile, visit, viewport, dark):
    for path in [hostile / "index.html", *pages(hostile)]:
        page = visit(path, viewport=viewport, dark=dark)
        assert page.locator("h1").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= viewport["width"]
        assert page.locator("img, iframe, form, object, base, link").count() == 0
        assert page.locator("script").count() <= 1
        for button in page.locator(".tools button").all():
            button.click()


def test_a_right_to_left_override_is_shown_and_not_obeyed(hostile):
    whole = "".join(path.read_text() for path in [hostile / "index.html", *pages(hostile)])
    for char in "\u202e\u2066\u200b\x00\x1b\ufeff":
        assert char not in whole
    assert "⟨U+202E⟩" in whole
    assert "<script>window" not in whole


def test_pages_ask_no_other_host_even_if_they_wanted(made):
    for path in [made / "index.html", *pages(made)]:
        text = html.unescape(path.read_text())
        assert "default-src 'none'" in text
        assert "style=" not in text
        assert " on" + "click" not in text


def test_a_table_is_readable_without_script(made, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((made / "index.html").as_uri())
    assert page.get_by_role("row").count() == 6
    assert not page.get_by_role("searchbox").is_visible()
    context.close()


def test_addresses_are_quoted():
    assert link('a"b<c>/é ü.json', up=2) == "../../a%22b%3Cc%3E/%C3%A9%20%C3%BC.json"


def test_an_entry_of_100_kb_of_text_is_refused(made, tmp_path):
    board = boards.copied(made, tmp_path)
    edit(entries(board)[0], lambda data: data["declared"].update(overlap=TOO_LONG))
    [problem] = read_board(board).problems
    assert "at most 2000" in problem
    assert len(problem) < 700
    assert json.loads(entries(board)[0].read_text())
