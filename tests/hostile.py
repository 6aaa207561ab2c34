"""Texts that try to break out of a page, a table, a file name or a terminal.

Whatever shows prompts, labels, tags or links runs these through; a payload that executes sets
``window.__pwned``, which the browser tests look at.
"""

from __future__ import annotations

import json
from pathlib import Path

from negbench.types import MAX_TEXT

PWN = "window.__pwned='{}'"

HOSTILE: dict[str, str] = {
    "script": "<script>window.__pwned='script'</script>",
    "script-end": "</script><script>window.__pwned='script-end'</script>",
    "json-end": '"}]</script><!--<script>window.__pwned="json-end"</script>-->',
    "comment": "<!--<script>",
    "textarea": "</textarea></style></title></template><script>window.__pwned='t'</script>",
    "img": "<img src=x onerror=\"window.__pwned='img'\">",
    "svg": "<svg/onload=\"window.__pwned='svg'\"><animate onbegin=window.__pwned='svg2'>",
    "attribute": '" autofocus onfocus="window.__pwned=\'attr\'" x="',
    "attribute-single": "' onmouseover='window.__pwned=1' x='",
    "iframe": "<iframe srcdoc=\"<script>parent.__pwned='iframe'</script>\"></iframe>",
    "base": "<base href=//example.invalid/><link rel=stylesheet href=//example.invalid/x.css>",
    "meta": "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "form": "<form action=javascript:window.__pwned=1><button autofocus>go</button></form>",
    "link": "javascript:window.__pwned='link'",
    "link-markdown": "[look](javascript:window.__pwned='md') ![x](https://example.invalid/x.png)",
    "link-data": "data:text/html,<script>window.__pwned='data'</script>",
    "css": "red;background:url(https://example.invalid/x);}*{display:none}</style>",
    "jinja": "{{7*7}} {% for x in range(9) %}{{ cycler.__init__.__globals__ }}{% endfor %}",
    "js-template": "${window.__pwned=1} `+(window.__pwned=1)+`",
    "angular": "{{constructor.constructor('window.__pwned=1')()}}",
    "entity": "&lt;script&gt;window.__pwned=1&lt;/script&gt; &#60;img&#62; &amp;",
    "prototype": "__proto__",
    "constructor": "constructor",
    "rtl": "a photo of a \u202egnp.exe\u202c \u2066cat\u2069 \u200fdog",
    "zero-width": "a\u200bb\u2060c\ufeffd\u00ade\U000e0041",
    "separators": "line\u2028line\u2029line\r\nline\x0bline\x0cline\x85line",
    "controls": "bell\x07 escape \x1b[31mred\x1b]0;title\x07 backspace\x08 nul\x00 delete\x7f",
    "marks": "Z" + "\u0300\u0316\u0321" * 60 + "algo",
    "wide": "﷽" * 40 + " 𒐫" * 20,
    "no-spaces": "w" * 3000,
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f1e9\U0001f1ea",
    "arabic": "قطة تجلس على كرسي <b>غامق</b>",
    "latex": r"\input{/etc/passwd} \write18{id} $x^2$ 100% & _under_ #1 ~",
    "csv": '=HYPERLINK("https://example.invalid","x")',
    "csv-plus": "+1+cmd|' /C calc'!A0",
    "path": "../../../../etc/passwd",
    "path-windows": "..\\..\\con.txt",
    "sql": "'; DROP TABLE prompts; --",
    "format": "%s%n {0.__class__} {prompt!r}",
    "yaml": "- !!python/object/apply:os.system ['id']\n---\nkey: [",
    "markdown": "| a | b |\n|---|---|\n```\n<details open ontoggle=window.__pwned=1>x</details>",
    "newlines": "first\n\n\nsecond\tthird",
    "longest": ("<b>long</b> " * MAX_TEXT)[:MAX_TEXT],
}
"""Name -> text. Every one of them is a legal prompt and has to be shown harmlessly."""

TOO_LONG = "x" * 100_000
"""Longer than a prompt may be: refused in one line."""


def write_prompts(path: Path, *, negatives: bool = True) -> Path:
    """The corpus as a JSON lines file for ``--prompts``: each text as prompt, negative and id."""
    rows = [
        {"id": text[:60], "prompt": text, **({"negative": text} if negatives else {})}
        for text in HOSTILE.values()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
