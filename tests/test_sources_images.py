"""Pictures with the metadata of every tool, drawn up here; and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from negbench.database.records import RawRecord, Skip
from negbench.database.sources import Options, open_source
from negbench.database.sources.carriers import NotAPictureError, decode_user_comment, read_carried
from negbench.database.sources.comfy import graph_of, read_graph

P, N = "a cat, 家, (red:1.2)\nsitting", "blurry, bad: worse, <lora:x:1>"
INFOTEXT = (
    f"{P}\nNegative prompt: {N}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x32"
)


def png(path: Path, texts: dict[str, str], *, international: bool = True, packed: bool = False,
        mode: str = "RGB") -> None:  # fmt: skip
    info = PngInfo()
    for key, value in texts.items():
        if international:
            info.add_itxt(key, value, zip=packed)
        else:
            info.add_text(key, value, zip=packed)
    Image.new(mode, (8, 8)).save(path, pnginfo=info)


def jpeg(path: Path, comment: bytes | None = None, tags: dict[int, str] | None = None,
         form: str = "JPEG") -> None:  # fmt: skip
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        exif[tag] = value
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (8, 8)).save(path, form, exif=exif)


def one(path: Path, **options: Any) -> RawRecord | Skip:
    (item,) = open_source(f"images:{path}", Options(**options)).read()
    assert item.source_id == path.name
    return item


def graph(positive: Any = P, negative: Any = N, **more: Any) -> dict[str, Any]:
    nodes = {
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 32}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": positive, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": negative, "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
    }  # fmt: skip
    return {**nodes, **more}


WORKFLOW = {
    "nodes": [
        {"id": 1, "type": "KSampler", "inputs": [
            {"name": "model", "type": "MODEL", "link": 9}, {"name": "positive", "link": 1},
            {"name": "negative", "link": 2}, {"name": "latent_image", "link": None}],
         "widgets_values": [5, "randomize", 20, 7.0, "euler", "normal", 1.0]},
        {"id": 2, "type": "CLIPTextEncode", "inputs": [], "widgets_values": [P]},
        {"id": 3, "type": "Reroute", "inputs": [{"name": "", "link": 3}]},
        {"id": 4, "type": "CLIPTextEncode", "inputs": [], "widgets_values": [N]},
        {"id": 5, "type": "CLIPTextEncode", "mode": 2, "inputs": [], "widgets_values": ["muted"]},
    ],
    "links": [[1, 2, 0, 1, 1, "CONDITIONING"], [2, 3, 0, 1, 2, "CONDITIONING"],
              [3, 4, 0, 3, 0, "CONDITIONING"]],
}  # fmt: skip

NOVELAI = {"prompt": P, "uc": N, "steps": 28, "sampler": "k_euler", "scale": 5, "seed": 5}
V4 = {
    "v4_prompt": {"caption": {"base_caption": P, "char_captions": []}},
    "v4_negative_prompt": {"caption": {"base_caption": N, "char_captions": []}},
    "steps": 28,
}
PNGS: dict[str, dict[str, str]] = {
    "a1111": {"parameters": INFOTEXT},
    "comfyui": {"prompt": json.dumps(graph()), "workflow": json.dumps(WORKFLOW)},
    "comfyui prompt only": {"prompt": json.dumps(graph())},
    "comfyui workflow only": {"workflow": json.dumps(WORKFLOW)},
    "invokeai": {"invokeai_metadata": json.dumps(
        {"positive_prompt": P, "negative_prompt": N, "steps": 3, "scheduler": "euler"})},
    "invokeai without a scheduler": {"invokeai_metadata": json.dumps(
        {"positive_prompt": P, "negative_prompt": N})},
    "novelai": {"Comment": json.dumps(NOVELAI), "Description": P, "Software": "NovelAI"},
    "novelai v4": {"Comment": json.dumps(V4), "Source": "NovelAI Diffusion V4"},
    "fooocus": {"parameters": json.dumps(
        {"prompt": P, "negative_prompt": N, "full_prompt": ["x"], "version": "Fooocus v2"}),
        "fooocus_scheme": "fooocus"},
    "fooocus a1111": {"parameters": INFOTEXT, "fooocus_scheme": "a1111"},
    "ruined fooocus": {"parameters": json.dumps({"Prompt": P, "Negative": N, "steps": 30})},
    "swarmui": {"parameters": json.dumps({"sui_image_params": {"prompt": P, "negativeprompt": N}}),
                "prompt": json.dumps(graph("other", "other"))},
    "tensorart": {"generation_data": json.dumps({"prompt": P, "negativePrompt": N}) + "\0",
                  "prompt": json.dumps(graph("other", "other"))},
    "hugging face space": {"parameters": json.dumps({"prompt": P, "negative_prompt": N})},
    "easy diffusion": {"prompt": P, "negative_prompt": N, "seed": "5"},
    "saver that knew nothing": {"prompt": json.dumps(graph()),
                                "parameters": INFOTEXT.replace(P, "unknown").replace(N, "unknown")},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PNGS))
def test_png_of_every_tool(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.png"
    png(path, PNGS[name])
    item = one(path)
    assert isinstance(item, RawRecord), item
    assert (item.prompt, (item.negative or "").strip()) == (P, N)


@pytest.mark.parametrize("packed", [False, True])
def test_png_text_in_utf8_and_packed(tmp_path: Path, *, packed: bool) -> None:
    png(tmp_path / "x.png", {"parameters": INFOTEXT}, packed=packed)
    item = one(tmp_path / "x.png")
    assert isinstance(item, RawRecord)
    assert (item.steps, item.cfg_scale, item.seed, item.width, item.height) == (20, 7.0, 5, 64, 32)
    raw = INFOTEXT.encode().decode("latin-1")  # UTF-8 bytes in a Latin-1 chunk, as some write it
    png(tmp_path / "x.png", {"parameters": raw}, international=False, packed=packed)
    item = one(tmp_path / "x.png")
    assert isinstance(item, RawRecord)
    assert item.prompt == P


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bare_png(*chunks: bytes, width: int = 1, height: int = 1) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def test_text_after_the_pixels_and_before_a_cut(tmp_path: Path) -> None:
    text = chunk(b"tEXt", b"parameters\0" + INFOTEXT.encode())
    (tmp_path / "x.png").write_bytes(bare_png(chunk(b"IDAT", b"junk"), text))
    assert isinstance(one(tmp_path / "x.png"), RawRecord)
    (tmp_path / "x.png").write_bytes(bare_png(text, chunk(b"IDAT", bytes(9000)))[:3000])
    assert isinstance(one(tmp_path / "x.png"), RawRecord)
    (tmp_path / "x.png").write_bytes(bare_png(text)[:80])
    item = one(tmp_path / "x.png")
    assert isinstance(item, Skip)
    assert "truncated" in item.reason


CODES = {
    "big endian": b"UNICODE\0" + INFOTEXT.encode("utf-16-be"),
    "little endian": b"UNICODE\0" + INFOTEXT.encode("utf-16-le"),
    "byte order mark": b"UNICODE\0" + INFOTEXT.encode("utf-16"),
    "utf-8 under unicode": b"UNICODE\0" + INFOTEXT.encode(),
    "ascii": b"ASCII\0\0\0" + INFOTEXT.encode(),
    "undefined": bytes(8) + INFOTEXT.encode(),
    "no code": INFOTEXT.encode(),
}


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("name", sorted(CODES))
def test_user_comments_in_every_code(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / f"x.{form.lower()}"
    jpeg(path, CODES[name], form=form)
    item = one(path)
    assert isinstance(item, RawRecord), item
    assert (item.prompt, (item.negative or "").strip()) == (P, N)


def test_jis_and_odd_bytes() -> None:
    assert decode_user_comment(b"JIS\0\0\0\0\0" + "猫, cat".encode("iso2022_jp")) == "猫, cat"
    assert decode_user_comment(b"UNICODE\0" + "猫, a cat".encode("utf-16-be") + b"\0") != ""


JSONS = {
    "novelai": {"Comment": json.dumps(NOVELAI), "Source": "NovelAI"},
    "swarmui": {"sui_image_params": {"prompt": P, "negativeprompt": N}},
    "draw things": {"c": P, "uc": N, "steps": 20, "seed": 5},
    "civitai": {**graph("", ""), "extraMetadata": json.dumps({"prompt": P, "negativePrompt": N})},
    "comfyui": {"prompt": graph(), "workflow": WORKFLOW},
}


@pytest.mark.parametrize("name", sorted(JSONS))
def test_json_in_user_comments(tmp_path: Path, name: str) -> None:
    jpeg(tmp_path / "x.jpg", b"UNICODE\0" + json.dumps(JSONS[name]).encode("utf-16-be"))
    item = one(tmp_path / "x.jpg")
    assert isinstance(item, RawRecord), item
    assert (item.prompt, (item.negative or "").strip()) == (P, N)


def test_comfyui_in_camera_tags_of_webp(tmp_path: Path) -> None:
    tags = {0x010F: f"workflow:{json.dumps(WORKFLOW)}", 0x0110: f"prompt:{json.dumps(graph())}"}
    jpeg(tmp_path / "x.webp", tags=tags, form="WEBP")
    item = one(tmp_path / "x.webp")
    assert isinstance(item, RawRecord)
    assert (item.prompt, item.negative) == (P, N)
    jpeg(tmp_path / "camera.jpg", tags={0x010F: "NIKON: D90", 0x0110: "D90"})
    assert isinstance(one(tmp_path / "camera.jpg"), Skip)


def test_xmp_of_draw_things_and_xml_bombs(tmp_path: Path) -> None:
    body = json.dumps({"c": "cat", "uc": "bad", "steps": 2}).replace('"', "&quot;")
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/"><exif:UserComment><rdf:Alt><rdf:li>'
        f"{body}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", xmp=xmp.encode())
    item = one(tmp_path / "x.jpg")
    assert isinstance(item, RawRecord)
    assert (item.prompt, item.negative) == ("cat", "bad")
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]>' + xmp
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", xmp=bomb.encode())
    item = one(tmp_path / "x.jpg")
    assert isinstance(item, Skip)
    assert "document type" in item.reason


def test_doubled_marker_few_fields_and_a_negative_alone(tmp_path: Path) -> None:
    for text, expected in (
        ("a\nNegative prompt: Negative prompt: b\nSteps: 4, Seed: 1", ("a", "b")),
        ("a\nNegative prompt: b\nNegative prompt: c\nSteps: 4", ("a", "b\n c")),
        ("a\nNegative prompt: b", ("a", "b")),
        ("Negative prompt: b\nSteps: 4", ("", "b")),
        ("a\nSteps: 4, Sampler: x", ("a", None)),
        ("a\nNegative prompt: \nSteps: 4", ("a", "")),
    ):
        png(tmp_path / "x.png", {"parameters": text})
        item = one(tmp_path / "x.png")
        assert isinstance(item, RawRecord)
        negative = None if item.negative is None else item.negative.strip()
        assert (item.prompt, negative) == expected


def link(node: str, slot: int = 0) -> list[Any]:
    return [node, slot]


def test_graphs_with_custom_nodes() -> None:
    text = {"class_type": "Text Multiline", "inputs": {"text": P}}
    joined = {"class_type": "StringConcatenate",
              "inputs": {"string_a": "a cat", "string_b": "b", "delimiter": ", "}}  # fmt: skip
    control = {"class_type": "ControlNetApplyAdvanced", "inputs": {
        "positive": link("6"), "negative": link("7"), "control_net": link("x"), "strength": 1.0}}  # fmt: skip  # noqa: E501
    cases = [
        (graph(link("20"), N, **{"20": text}), (P, N)),
        (graph(link("20"), N, **{"20": joined}), ("a cat, b", N)),
    ]
    through = graph(**{"30": control})
    through["3"]["inputs"].update(positive=link("30", 0), negative=link("30", 1))
    cases.append((through, (P, N)))
    zero = graph(
        **{"7": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": link("6")}}}
    )
    cases.append((zero, (P, None)))
    loader = graph(**{"40": {"class_type": "Efficient Loader", "inputs": {
        "ckpt_name": "m", "positive": P, "negative": N}}})  # fmt: skip
    loader["3"]["inputs"].update(positive=link("40", 1), negative=link("40", 2))
    cases.append((loader, (P, N)))
    guided = graph(**{"50": {"class_type": "CFGGuider", "inputs": {
        "model": link("4"), "positive": link("6"), "negative": link("7"), "cfg": 3}},
        "3": {"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": link("x"), "guider": link("50"), "sampler": link("x"), "sigmas": link("x"),
            "latent_image": link("5")}}})  # fmt: skip
    cases.append((guided, (P, N)))
    flux = graph(**{"50": {"class_type": "BasicGuider", "inputs": {
        "model": link("4"), "conditioning": link("51")}},
        "51": {"class_type": "FluxGuidance", "inputs": {"conditioning": link("6"), "guidance": 3}},
        "3": guided["3"]})  # fmt: skip
    cases.append((flux, (P, None)))
    detailed = graph(**{"60": {"class_type": "FaceDetailer", "inputs": {
        "image": link("8"), "positive": link("61"), "negative": link("61"), "seed": 1, "steps": 2,
        "cfg": 1, "sampler_name": "x", "denoise": 0.5}},
        "61": {"class_type": "CLIPTextEncode", "inputs": {"text": "face"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": link("60")}}})  # fmt: skip
    cases.append((detailed, (P, N)))
    for value, expected in cases:
        found = read_graph(graph_of(value))
        assert found is not None
        assert (found.prompt, found.negative) == expected


def test_graphs_that_run_in_circles_end() -> None:
    circle = graph(link("20"), N, **{"20": {"class_type": "Text", "inputs": {"text": link("21")}},
                                     "21": {"class_type": "Text", "inputs": {"text": link("20")}}})  # fmt: skip  # noqa: E501
    found = read_graph(graph_of(circle))
    assert found is not None
    assert found.negative == N


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=6)
    | st.tuples(st.sampled_from(["3", "6", "7", "9"]), st.integers(0, 2)).map(list),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["class_type", "inputs", "text", "positive", "negative", "nodes", "links"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["3", "6", "7", "9"]), st.fixed_dictionaries(
    {"class_type": st.sampled_from(["KSampler", "CLIPTextEncode", "X", "SaveImage"]),
     "inputs": st.dictionaries(st.sampled_from(["positive", "negative", "text", "steps", "cfg",
                                                "images", "conditioning", "seed"]), VALUES)}),
    max_size=4), VALUES)  # fmt: skip
def test_any_graph_gives_texts_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any], other: Any
) -> None:
    path = tmp_path_factory.mktemp("f") / "x.png"
    png(path, {"prompt": json.dumps(value), "workflow": json.dumps(other),
               "parameters": json.dumps(other)})  # fmt: skip
    item = one(path)
    assert isinstance(item, (RawRecord, Skip))


def stealth(path: Path, text: bytes, mark: bytes) -> None:
    body = gzip.compress(text) if mark.endswith(b"comp") else text
    data = mark + struct.pack(">I", len(body) * 8) + body
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    pixels = np.full((64, 64, 4), 254, np.uint8)
    if b"png" in mark:
        plane = pixels[..., 3].T.reshape(-1)
        plane[: len(bits)] |= bits
        pixels[..., 3] = plane.reshape(64, 64).T
    else:
        plane = pixels[..., :3].transpose(1, 0, 2).reshape(-1)
        plane[: len(bits)] |= bits
        pixels[..., :3] = plane.reshape(64, 64, 3).transpose(1, 0, 2)
    Image.fromarray(pixels, "RGBA").save(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mark", [b"stealth_pnginfo", b"stealth_pngcomp", b"stealth_rgbcomp"])
def test_metadata_hidden_in_the_lowest_bits(tmp_path: Path, mark: bytes) -> None:
    for text in (INFOTEXT, json.dumps({"Comment": json.dumps(NOVELAI)})):
        stealth(tmp_path / "x.png", text.encode(), mark)
        item = one(tmp_path / "x.png")
        assert isinstance(item, RawRecord), item
        assert (item.prompt, (item.negative or "").strip()) == (P, N)


def test_hidden_bombs_are_bounded(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 4), 254, np.uint8)
    packed = gzip.compress(bytes(50_000_000))[:300]
    bits = np.unpackbits(np.frombuffer(b"stealth_pngcomp" + b"\xff" * 4 + packed, np.uint8))
    plane = pixels[..., 3].T.reshape(-1)
    plane[: len(bits)] |= bits
    pixels[..., 3] = plane.reshape(64, 64).T
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert isinstance(one(tmp_path / "x.png"), Skip)


def test_bombs_and_broken_files_are_counted(tmp_path: Path) -> None:
    huge = zlib.compress(bytes(40 * 2**20), 9)
    files = {
        "a.png": bare_png(chunk(b"zTXt", b"parameters\0\0" + huge)),
        "b.png": bare_png(width=2**31 - 1, height=2**31 - 1),
        "c.png": bare_png(chunk(b"tEXt", b"prompt\0" + b'{"a":' * 1000 + b"1" + b"}" * 1000)),
        "d.png": b"",
        "e.jpg": b"\xff\xd8\xff\xe1\xff\xff",
        "f.webp": b"RIFF\x10\0\0\0WEBPEXIF\xff\xff\xff\x7f",
        "g.gif": b"GIF89a" + bytes(20),
        "h.png": b"\x89PNG\r\n\x1a\n" + b"\xff" * 30,
        "i.png": bare_png(chunk(b"zTXt", b"parameters\0\0not zlib")),
        "j.jpg": b"\xff\xd8\xff\xe1" + struct.pack(">H", 40) + b"Exif\0\0II*\0" + b"\xff" * 28,
        "k.png": bare_png(chunk(b"tEXt", b"prompt\0" + b"[" * 200_000)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "l.png").symlink_to("/etc/hostname")
    (tmp_path / "m.png").symlink_to(tmp_path / "nowhere")
    items = list(open_source(f"images:{tmp_path}").read())
    assert [item.source_id for item in items] == sorted([*files, "l.png", "m.png"])
    reasons = {item.source_id: item.reason for item in items if isinstance(item, Skip)}
    assert len(reasons) == len(items)
    assert "unpacks to more than" in reasons["a.png"]
    assert "too deep" in reasons["c.png"]
    assert reasons["d.png"] == "file is empty"
    assert reasons["l.png"] == "a link that leads out of the folder"
    assert "too deep" in reasons["k.png"] or "damaged" in reasons["k.png"]


def test_a_file_above_the_bound_is_not_opened(tmp_path: Path) -> None:
    png(tmp_path / "x.png", {"parameters": INFOTEXT})
    item = one(tmp_path / "x.png", max_bytes=10)
    assert isinstance(item, Skip)
    assert "above the bound of 10" in item.reason


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_pictures_never_raise(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + INFOTEXT.encode("utf-16-be")
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    Image.new("RGB", (8, 8)).save(stream, form, exif=exif)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(12, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("g") / "x"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        read_carried(path)
    except NotAPictureError:
        return
    assert isinstance(one(path), (RawRecord, Skip))
