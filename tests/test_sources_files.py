"""Tables of every format, and every way in which they are broken."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from negbench.database.records import RawRecord, Skip
from negbench.database.sources import Options, open_source
from negbench.database.sources.columns import parse_map
from negbench.errors import ConfigError, DataError, MissingError, UnknownNameError

ROWS = [
    {"id": "a1", "prompt": 'a cat, "red"\nhat', "negative_prompt": "blurry", "steps": 20},
    {"id": "a2", "prompt": "ein Häuschen 家", "negative_prompt": "", "steps": 30},
    {"id": "a3", "prompt": "a dog", "negative_prompt": "bad, worse", "steps": None},
]


def read(path: Path | str, **options: Any) -> list[RawRecord | Skip]:
    return list(open_source(f"files:{path}", Options(**options)).read())


def csv_bytes(delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode(encoding)


def jsonl_bytes() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(stream)
    return stream.getvalue()


FORMATS = {
    "x.csv": csv_bytes(),
    "bom.csv": csv_bytes(encoding="utf-8-sig"),
    "wide.csv": csv_bytes(encoding="utf-16"),
    "x.tsv": csv_bytes("\t"),
    "semicolon.csv": csv_bytes(";"),
    "x.jsonl": jsonl_bytes(),
    "no-extension": jsonl_bytes(),
    "x.json": json.dumps(ROWS).encode(),
    "nested.json": json.dumps({"data": {"items": ROWS}}, indent=2).encode(),
    "x.parquet": parquet_bytes(),
    "wrong-name.csv": parquet_bytes(),
    "x.csv.gz": gzip.compress(csv_bytes()),
    "x.jsonl.zst": zstandard.compress(jsonl_bytes()),
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_are_told_by_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    items = read(tmp_path / name)
    assert [(i.source_id, i.prompt, i.negative) for i in items if isinstance(i, RawRecord)] == [
        (row["id"], row["prompt"], row["negative_prompt"]) for row in ROWS
    ]
    first = items[0]
    assert isinstance(first, RawRecord)
    assert first.steps == 20


@pytest.mark.parametrize(
    "names",
    [("prompt", "negativePrompt"), ("full_prompt", "negative_prompt"), ("Positive Prompt", "Negative"),  # noqa: E501
     ("PROMPT", "NEGATIVE_PROMPT"), ("positive", "negative"), ("text_prompt", "uc")],
)  # fmt: skip
def test_usual_names_are_known(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({names[0]: "p", names[1]: "n"}) + "\n" * 2)
    assert [(i.prompt, i.negative) for i in read(path) if isinstance(i, RawRecord)] == [("p", "n")]


def test_nested_metadata_of_picture_sites(tmp_path: Path) -> None:
    page = {
        "items": [
            {"id": 1, "url": "u", "meta": {"prompt": "p", "negativePrompt": "n", "cfgScale": 7}},
            {"id": 2, "url": "u", "meta": None},
            {"id": 3, "url": "u", "meta": {"id": 3, "meta": {"prompt": "q"}}},
        ],
        "metadata": {"nextCursor": "x"},
    }
    (tmp_path / "page.json").write_text(json.dumps(page))
    one, two, three = read(tmp_path / "page.json")
    assert isinstance(one, RawRecord)
    assert (one.source_id, one.prompt, one.negative, one.cfg_scale) == ("1", "p", "n", 7.0)
    assert isinstance(two, Skip)
    assert "meta is null" in two.reason
    assert isinstance(three, RawRecord)
    assert (three.prompt, three.negative) == ("q", None)
    model = {"name": "m", "modelVersions": [{"id": 1, "images": page["items"]}] * 2}
    (tmp_path / "model.json").write_text(json.dumps(model))
    assert len(read(tmp_path / "model.json")) == 6


def test_styles_of_other_programs(tmp_path: Path) -> None:
    horde = {"a": {"prompt": "{p}, art###blurry, {np}"}, "b": {"prompt": "{p}{np}"}}
    (tmp_path / "horde.json").write_text(json.dumps(horde))
    a, b = read(tmp_path / "horde.json")
    assert isinstance(a, RawRecord)
    assert (a.source_id, a.prompt, a.negative) == ("a", "{p}, art", "blurry")
    assert isinstance(b, RawRecord)
    assert b.negative is None
    fooocus = [{"name": "x", "prompt": "{prompt}, 4k", "negative_prompt": "n"}, {"name": "y"}]
    (tmp_path / "styles.json").write_text(json.dumps(fooocus))
    x, y = read(tmp_path / "styles.json")
    assert isinstance(x, RawRecord)
    assert isinstance(y, Skip)


def test_a_table_without_the_columns_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id;A;B\n1;x;y\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.csv")
    message = str(caught.value)
    assert "found: id, A, B" in message
    assert "--map" in message
    assert "\n" not in message
    mapped = read(tmp_path / "x.csv", mapping=parse_map(["prompt=A,negative=B"]))
    assert [(i.prompt, i.negative) for i in mapped if isinstance(i, RawRecord)] == [("x", "y")]


def test_mapping_reaches_into_objects(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"gen": {"a": "p", "b": "n"}}\n{"gen": "{\\"a\\": \\"q\\"}"}\n'
    )
    items = read(tmp_path / "x.jsonl", mapping={"prompt": "gen.a", "negative": "gen.b"})
    assert [(i.prompt, i.negative) for i in items if isinstance(i, RawRecord)] == [
        ("p", "n"), ("q", None),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="field=column"):
        parse_map(["promt=a"])


def test_a_folder_and_a_glob(tmp_path: Path) -> None:
    for name in ("b.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(FORMATS[f"x.{name.split('.')[1]}"])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/words.txt").write_text("just\nwords\n")
    items = read(tmp_path)
    assert [i.source_id for i in items] == [
        "a.jsonl#a1", "a.jsonl#a2", "a.jsonl#a3", "b.csv#a1", "b.csv#a2", "b.csv#a3", "sub/words.txt",  # noqa: E501
    ]  # fmt: skip
    assert isinstance(items[-1], Skip)
    assert "not a table" in items[-1].reason
    assert len(read(f"{tmp_path}/*.csv")) == 3
    with pytest.raises(MissingError, match="no file at"):
        read(tmp_path / "none.csv")


def test_ids_that_repeat_stay_apart(tmp_path: Path) -> None:
    rows = [{"id": "x", "prompt": f"p{n}", "negative": "n"} for n in range(3)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert len({item.source_id for item in read(tmp_path / "x.json")}) == 3


def test_wrong_types_and_nulls_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"prompt": "p", "negative": "n", "steps": "many", "seed": 2**70, "cfg": float("nan")},
        {"prompt": None, "negative": None}, {"prompt": 3, "negative": "n"},
        {"prompt": ["a"], "negative": "n"}, {"prompt": "p", "negative": {"a": 1}}, 7, None,
        {"prompt": "\ud800", "negative": "n"},
    ]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(rows))
    items = read(tmp_path / "x.json")
    assert len(items) == len(rows)
    first = items[0]
    assert isinstance(first, RawRecord)
    assert (first.steps, first.seed, first.cfg_scale) == (None, None, None)
    reasons = [item.reason for item in items if isinstance(item, Skip)]
    assert reasons == [
        "no prompt and no negative prompt", "prompt is a number, not text",
        "prompt is a list, not text", "negative prompt is an object, not text",
        "entry is not an object", "entry is not an object", "text is not valid UTF-8",
    ]  # fmt: skip


def test_ragged_rows_nul_bytes_and_bad_utf8_in_csv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(
        b'prompt,negative\na,b\nc,d,e\nf\ng\x00g,h\n\xff\xfe,i\n"open,j\n'
    )
    items = read(tmp_path / "x.csv")
    assert [i.prompt for i in items if isinstance(i, RawRecord)][:2] == ["a", "g\x00g"]
    reasons = [i.reason for i in items if isinstance(i, Skip)]
    assert sum("ragged" in reason for reason in reasons) == 3
    assert "text is not valid UTF-8" in reasons


def test_broken_lines_of_jsonl(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "x.jsonl").write_text(
        f'{{"prompt": "p", "negative": "n"}}\n{{"prompt": \n[1]\n{deep}\n'
        '{"prompt": "q", "negative": "n"}\n'
    )
    items = read(tmp_path / "x.jsonl")
    assert [i.prompt for i in items if isinstance(i, RawRecord)] == ["p", "q"]
    assert [i.reason for i in items if isinstance(i, Skip)] == [
        "line is not valid JSON", "line is not a JSON object", "JSON nested too deep",
    ]  # fmt: skip


def test_truncated_archives_keep_what_came_before(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"prompt": f"cat {n} {n * n}", "negative": f"bad {n}"}) + "\n"
        for n in range(5000)
    )
    for name, packed in (
        ("x.jsonl.gz", gzip.compress(rows.encode())),
        ("x.jsonl.zst", zstandard.compress(rows.encode())),
    ):
        (tmp_path / name).write_bytes(packed[: len(packed) * 2 // 3])
        items = read(tmp_path / name)
        records = [i for i in items if isinstance(i, RawRecord)]
        if name.endswith("gz"):
            assert len(records) > 1000
        assert any("truncated or damaged" in i.reason for i in items if isinstance(i, Skip))


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(FORMATS["x.parquet"][:-20])
    with pytest.raises(DataError, match="truncated or damaged Parquet"):
        read(tmp_path / "x.parquet")


def test_a_damaged_row_group_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    frame = pl.DataFrame(
        {"prompt": [f"cat {n}" for n in range(4000)], "negative": [f"bad {n}" for n in range(4000)]}
    )
    frame.write_parquet(path, row_group_size=1000, compression="zstd")
    data = bytearray(path.read_bytes())
    data[200:1200] = b"\x00" * 1000
    path.write_bytes(data)
    items = read(path)
    assert sum(isinstance(i, RawRecord) for i in items) >= 2000
    assert any("damaged" in i.reason for i in items if isinstance(i, Skip))


def test_a_bomb_of_one_endless_line_is_not_held(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.jsonl.gz", "wb", compresslevel=1) as stream:
        stream.write(b'{"prompt": "p", "negative": "n"}\n{"prompt": "')
        for _ in range(20):
            stream.write(b"x" * 2**20)
        stream.write(b'"}\n{"prompt": "q", "negative": "n"}\n')
    items = read(tmp_path / "x.jsonl.gz")
    assert [i.prompt for i in items if isinstance(i, RawRecord)] == ["p", "q"]
    assert [i.reason for i in items if isinstance(i, Skip)] == [
        "line longer than 16777216 characters"
    ]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_bytes(FORMATS["x.csv"])
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    (folder / "x.csv").write_bytes(FORMATS["x.csv"])
    items = read(folder)
    assert [i.reason for i in items if isinstance(i, Skip)] == [
        "a link that leads out of the folder"
    ]
    assert sum(isinstance(i, RawRecord) for i in items) == 3


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x80\x04pickle" * 9])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError):
        read(tmp_path / "x")


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean files"):
        open_source("file:x.csv")


class Info:
    sha = "c0ffee" * 6
    card_data = type("Card", (), {"license": "cc0-1.0"})


def test_hub_resolves_the_commit_and_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    pl.DataFrame(ROWS).write_parquet(tmp_path / "data.parquet")
    asked: list[str | None] = []

    def info(self: Any, repo: str, revision: str | None = None) -> Info:
        asked.append(revision)
        return Info()

    load = datasets.load_dataset
    breaks = [True]

    def local(repo: str, *, revision: str, split: str, streaming: bool) -> Any:
        assert (repo, revision, streaming) == ("org/name", Info.sha, True)
        stream = load(
            "parquet", data_files=str(tmp_path / "data.parquet"), split=split, streaming=True
        )
        if breaks.pop() if breaks else False:

            class Torn:
                def __iter__(self) -> Any:
                    yield next(iter(stream))
                    raise ConnectionError("reset")

            return Torn()
        return stream

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda repo, revision: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", local)
    source = open_source("hub:org/name@v1")
    items = list(source.read())
    assert [i.source_id for i in items] == ["a1", "a2", "a3"]
    assert asked == ["v1"]
    assert source.describe() == {"revision": Info.sha, "license": "cc0-1.0"}
    with pytest.raises(ConfigError, match="org/name"):
        open_source("hub:justname")


def test_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(MissingError, match="cannot be reached"):
        list(open_source("hub:org/name").read())
