"""Pages in a real browser: Debian's chromium, driven by Playwright, without any network.

    def test_page(visit, tmp_path):
        page = visit(tmp_path / "index.html")
        page.get_by_role("searchbox").fill("cat")

A page whose policy forbids `eval` cannot be asked with ``wait_for_function``; ``expect(locator)``
works on all.
The fixtures are every test's (conftest.py). `visit` opens a file (or an http address of this
machine) and, when the test ends, fails it if the console showed an error, the page asked another
host for anything, or a hostile text ran.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHROMIUM = Path(os.environ.get("NEGBENCH_CHROMIUM", "/usr/bin/chromium"))
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
LOCAL = ("file://", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")


@pytest.fixture(scope="session")
def chromium():
    """One headless browser for all tests; skipped where there is none."""
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}; install chromium or set NEGBENCH_CHROMIUM")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open pages and watch them; with ``strict=False`` one may complain, but run nothing."""
    opened = []

    def open_page(target, *, viewport=DESKTOP, dark=False, strict=True, **options):
        context = chromium.new_context(
            viewport=viewport, color_scheme="dark" if dark else "light", **options
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        faults: list[str] = []
        page.on(
            "console",
            lambda message: (
                faults.append(f"console {message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
        page.on(
            "request",
            lambda request: (
                faults.append(f"request: {request.url[:200]}")
                if not request.url.startswith(LOCAL)
                else None
            ),
        )
        page.on("dialog", lambda dialog: (faults.append("a dialog opened"), dialog.dismiss()))
        context.on("page", lambda other: faults.append(f"a window opened: {other.url[:200]}"))
        address = target if isinstance(target, str) else Path(target).resolve().as_uri()
        page.goto(address)
        opened.append((context, page, faults if strict else []))
        return page

    yield open_page
    found = []
    for context, page, faults in opened:
        pwned = page.evaluate("() => window.__pwned")
        found += faults if pwned is None else [*faults, f"a hostile text ran: {pwned}"]
        context.close()
    assert not found, "\n".join(found)
