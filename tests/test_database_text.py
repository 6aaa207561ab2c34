"""Cleaning of single texts: tags with weights, networks, Unicode, personal data, languages."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negbench.database.clean import clean_text
from negbench.database.language import language_of
from negbench.database.sources.infotext import parse_infotext, parse_settings
from negbench.database.tags import parse_tags
from negbench.database.text import fix_unicode, mask_personal, mend_pair


def tags(text: str) -> list[tuple[str, float]]:
    return [(tag.text, tag.weight) for tag in parse_tags(text).tags]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat, a dog", [("a cat", 1), ("a dog", 1)]),
        ("(word:1.3)", [("word", 1.3)]),
        ("(a, b:1.2), c", [("a", 1.2), ("b", 1.2), ("c", 1)]),
        ("((best quality))", [("best quality", 1.21)]),
        ("[blurry]", [("blurry", 0.9091)]),
        ("(red:1.3) hat", [("red hat", 1.15)]),
        ("{{masterpiece}}", [("masterpiece", 1.1025)]),
        ("1.2::rain::, -0.8::feet::", [("rain", 1.2), ("feet", -0.8)]),
        (r"astolfo \(fate, stay night\), 1boy", [("astolfo (fate, stay night)", 1), ("1boy", 1)]),
        ('sign "hello, world", x', [('sign "hello, world"', 1), ("x", 1)]),
        ("[a:b:0.5]", [("a", 1), ("b", 1)]),
        ("[cow:10]", [("cow", 1)]),
        ("[cow::0.4]", [("cow", 1)]),
        ("[cat|dog] house", [("cat", 1), ("dog house", 1)]),
        ("x BREAK y", [("x", 1), ("y", 1)]),
        ("a AND b :1.2 AND c:0.5", [("a", 1), ("b", 1.2), ("c", 0.5)]),
        ("smile :), wink", [("smile :)", 1), ("wink", 1)]),
        ("(never closed, more", [("never closed", 1.1), ("more", 1.1)]),
        ("closed), more", [("closed)", 1), ("more", 1)]),
        ("photorealistic:1.4, cat", [("photorealistic", 1.4), ("cat", 1)]),
        ("aspect 16:9", [("aspect 16:9", 1)]),
        ("long_hair, ^_^, @_@", [("long hair", 1), ("^_^", 1), ("@_@", 1)]),
        ("masterpiece，最佳质量、蓝天", [("masterpiece", 1), ("最佳质量", 1), ("蓝天", 1)]),
        ("one\ntwo", [("one", 1), ("two", 1)]),
        ("{prompt}, 4k", [("4k", 1)]),
        ("BREAKFAST, SAND", [("breakfast", 1), ("sand", 1)]),
        (" , ,", []),
    ],
)  # fmt: skip
def test_the_grammar_of_weights(text: str, expected: list[tuple[str, float]]) -> None:
    assert tags(text) == [(name, pytest.approx(weight, abs=1e-4)) for name, weight in expected]


def test_networks_leave_the_text() -> None:
    parsed = parse_tags(
        "cat <lora:SD1.5/cloth/2b V2:0.8:1.0:LBW=0,0,A>, <hypernet:x:0.5>, (embedding:bad-x:1.2), "
        "EasyNegative, bad_prompt_version2, blurry"
    )
    assert parsed.plain == "cat, blurry"
    assert tags("bad quality, negative hand") == [("bad quality", 1), ("negative hand", 1)]
    assert [(n.kind, n.name, n.weight) for n in parsed.networks] == [
        ("lora", "SD1.5/cloth/2b V2", 0.8),
        ("hypernetwork", "x", 0.5),
        ("embedding", "bad-x", 1.0),
        ("embedding", "easynegative", 1.0),
        ("embedding", "bad_prompt_version2", 1.0),
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        alphabet=st.sampled_from(list('ab ,:.0123456789()[]{}|\\<>"\nANDBREAK_@-')), max_size=80
    )
)
def test_any_text_has_a_reading(text: str) -> None:
    parsed = parse_tags(text)
    assert all(tag.text == tag.text.strip() and tag.text for tag in parsed.tags)
    assert parsed.plain == parsed.plain.strip()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_cleaning_takes_any_unicode(text: str) -> None:
    clean = clean_text(text.encode("utf-8", "replace").decode("utf-8"))
    assert not any(unicodedata.category(sign) == "Cc" for sign in clean.parsed.plain)


def test_plain_words_are_left_alone() -> None:
    text = "a photo of an old house, evening light, 35mm, f/1.8"
    clean = clean_text(text)
    assert clean.parsed.plain == text
    assert clean.changes == ()


def test_unicode_and_entities() -> None:
    assert (
        fix_unicode("&amp;lt;b&amp;gt; schÃ¶n\u200b\r\nx &quot;y&quot;\x00") == '<b> schön\nx "y"'
    )
    assert fix_unicode("e\u0301") == "\u00e9"
    assert fix_unicode("AT&T & more") == "AT&T & more"


@pytest.mark.parametrize(
    ("text", "expected", "kinds"),
    [
        ("mail foo.bar@x.com!", "mail <email>!", ("email",)),
        ("by @greg.art, cat", "by <handle>, cat", ("handle",)),
        ("(@greg)", "(<handle>)", ("handle",)),
        ("call +1 (415) 555-2671 now", "call <phone> now", ("phone",)),
        ("415-555-2671", "<phone>", ("phone",)),
        ("u/some_one and instagram.com/x_y", "<handle> and <handle>", ("handle",)),
    ],
)
def test_personal_data_is_masked(text: str, expected: str, kinds: tuple[str, ...]) -> None:
    assert mask_personal(text) == (expected, kinds)


@pytest.mark.parametrize(
    "text",
    ["@_@, >_<, :@", "seed 2162551523, 512x768", "1.25, 2023-05-05, 192.168.0.1", "f/1.8 @ 50mm",
     "16:9, 8k, (cat:1.2)", "score_9, score_8_up", "1girl, #1, 100-200"],
)  # fmt: skip
def test_faces_and_numbers_are_not(text: str) -> None:
    assert mask_personal(text) == (text, ())


def test_raw_text_in_the_data_is_masked_too() -> None:
    clean = clean_text("(cat:1.2) by @greg, write me@x.org")
    assert clean.raw == "(cat:1.2) by <handle>, write <email>"
    assert clean.parsed.plain == "cat by <handle>, write <email>"


def test_pairs_that_sites_mixed_up_are_mended() -> None:
    block = "a cat\nNegative prompt: blurry, bad\nSteps: 20, Sampler: Euler a, Seed: 1"
    assert mend_pair(block, None) == ("a cat", " blurry, bad", True)
    assert mend_pair("a cat", "Negative prompt: Negative prompt: bad") == ("a cat", " bad", True)
    assert mend_pair("a cat", "bad") == ("a cat", "bad", False)


def test_infotext_settings_keep_commas_and_colons() -> None:
    line = (
        'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, Lora hashes: "a: 1, b: 2", '
        'Hashes: {"model": "x, y"}, Model: a: b, Version: v1.6, 2'
    )
    found = parse_settings(line)
    assert found["Lora hashes"] == "a: 1, b: 2"
    assert found["Hashes"] == '{"model": "x, y"}'
    assert found["Model"] == "a: b"
    assert found["Version"] == "v1.6, 2"
    parsed = parse_infotext(f"a\nb\nNegative prompt: c\nd, Steps to go\n{line}")
    assert parsed is not None
    assert (parsed.prompt, parsed.negative) == ("a\nb", " c\nd, Steps to go")
    few = parse_infotext("a cat\nNegative prompt: x\nSteps: 4")
    assert few is not None
    assert few.negative == " x"
    assert parse_infotext("just words, no settings") is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_infotext_gives_back_what_was_written(prompt: str, negative: str) -> None:
    lines = [*prompt.splitlines(), *negative.splitlines()]
    if any(line.lstrip().startswith(("Negative prompt:", "Steps: ")) for line in lines):
        return
    plain = {"\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"}
    if plain & set(prompt + negative) or "Negative prompt:" in prompt + negative:
        return
    parsed = parse_infotext(f"{prompt}\nNegative prompt: {negative}\nSteps: 20, Seed: 1")
    assert parsed is not None
    assert parsed.prompt == prompt
    assert (parsed.negative or "").removeprefix(" ") == negative.removeprefix(" ") or (
        (parsed.negative or "").strip() == negative.strip()
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("masterpiece, best quality, 1girl, solo", "en"),
        ("a cat", "en"),
        ("ein altes Haus im Wald bei Nacht", "de"),
        ("una mujer caminando por la playa al atardecer", "es"),
        ("一个美丽的女孩在海边", "zh"),
        ("美しい女性が海辺を歩いている", "ja"),
        ("아름다운 소녀", "ko"),
        ("кошка на столе, красивая картина", "ru"),
        ("123 456", "und"),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert language_of(text) == code
