"""What the texts of a picture say, by the convention of the tool that wrote them.

InvokeAI's older forms are read by sd-parsers; the rest is read here because sd-parsers loses
records there (a marker written twice, settings with commas, one of ComfyUI's two keys, custom
nodes, JPEG and WebP of most tools).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from negbench.database.sources import comfy, comfy_workflow
from negbench.database.sources.carriers import Carried
from negbench.database.sources.columns import as_float, as_int, as_text, plain
from negbench.database.sources.infotext import parse_infotext

MAX_JSON_DEPTH = 300
_PLACEHOLDERS = {"unknown", "undefined", "none", "null", "n/a", "nan"}

_PROMPT_KEYS = ("prompt", "positiveprompt", "positive", "textprompt", "inputprompt", "c",
                "originalprompt", "rawprompt")  # fmt: skip
_NEGATIVE_KEYS = ("negativeprompt", "negative", "negprompt", "uc", "undesiredcontent",
                  "promptnegative", "negativeprompts", "originalnegativeprompt")  # fmt: skip
_CONTAINERS = ("suiimageparams", "extrametadata", "meta", "metadata", "image", "parameters",
               "params", "generationdata", "generation", "request", "input", "options", "v2",
               "data")  # fmt: skip
_SETTINGS: dict[str, tuple[str, ...]] = {
    "model": ("model", "modelname", "basemodel", "basemodelname", "basemodelnamehash", "checkpoint",
              "usestablediffusionmodel", "modelweights", "source", "sdmodelname"),
    "sampler": ("sampler", "samplername", "scheduler", "schedulename"),
    "steps": ("steps", "numinferencesteps", "ddimsteps"),
    "cfg_scale": ("cfgscale", "guidancescale", "cfg", "scale", "guidance"),
    "seed": ("seed", "noiseseed"),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "created": ("createddate", "date", "createdat", "generatedat"),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A reading of a picture's texts; a lower `rank` is believed first."""

    prompt: str | None
    negative: str | None
    convention: str
    rank: int
    settings: dict[str, Any] = field(default_factory=dict)


def read_dialects(carried: Carried) -> Found | str:
    """The best reading of what a picture carries, or the reason why there is none."""
    notes: list[str] = []
    found = [
        _doubted(item)
        for item in _readings(carried, notes)
        if not (item.prompt is None and item.negative is None)
    ]
    if found:
        return min(found, key=lambda item: item.rank)
    reasons = [*notes, *carried.problems]
    if reasons:
        return "; ".join(dict.fromkeys(reasons))
    names = sorted({*carried.texts, *carried.exif} - {"Make", "Model", "Software", "Artist"})
    if names:
        listed = ", ".join(name[:40] for name in names[:6])
        return f"no generation metadata (it carries {listed})"
    return "no generation metadata"


def _doubted(item: Found) -> Found:
    """Placeholders that image savers write when they failed are believed last."""
    if (item.prompt or "").strip().lower() in _PLACEHOLDERS:
        return replace(item, rank=item.rank + 100)
    return item


def _readings(carried: Carried, notes: list[str]) -> Iterator[Found]:
    texts = carried.texts
    lower = {key.lower(): value for key, value in texts.items()}
    if "dream" in lower or "sd-metadata" in lower:
        yield from _old_invoke(lower, notes)
    if "comment" in lower:
        yield from _novelai(lower["comment"], lower.get("description"), lower.get("source"), notes)
    if "negative_prompt" in lower or "uc" in lower:
        yield from _from_object(texts, "text chunks", 12, notes)
    for key, value in texts.items():
        name = key.lower()
        if name in ("dream", "sd-metadata", "software", "source", "title"):
            continue
        yield from _blob(value, name, notes)
    for key, value in carried.exif.items():
        labelled = re.match(r"\s*\w{3,20}\s*:\s*[{\[]", value)
        if key in ("Model", "Make", "Software") and not labelled:
            continue
        yield from _blob(value, key.lower(), notes)
    for value in carried.others:
        yield from _blob(value, "xmp or comment", notes)


def _blob(value: str, where: str, notes: list[str]) -> Iterator[Found]:
    """Readings of one text: JSON of any tool, or an infotext."""
    text = value.strip("\ufeff\0 \t\r\n")
    labelled = re.match(r"(\w{3,20})\s*:\s*(?=[{\[])", text)
    if labelled:
        where, text = labelled.group(1).lower(), text[labelled.end() :]
    if text[:1] in ("{", "["):
        document = load_json(text, notes)
        if document is not None:
            yield from _document(document, where, notes)
            return
        if where in ("prompt", "workflow"):
            return
    if labelled:
        text = value.strip("\ufeff\0 \t\r\n")
    parsed = parse_infotext(text)
    if parsed is None:
        if where == "parameters" and text:
            notes.append("parameters without a negative prompt or settings")
        return
    size = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", parsed.settings.get("Size", ""))
    sampler = parsed.settings.get("Sampler")
    schedule = parsed.settings.get("Schedule type")
    yield Found(
        parsed.prompt,
        parsed.negative,
        "a1111",
        20 if where in ("parameters", "usercomment") else 22,
        _known({
            "model": as_text(parsed.settings.get("Model")),
            "sampler": as_text(" ".join(part for part in (sampler, schedule) if part)),
            "steps": as_int(parsed.settings.get("Steps")),
            "cfg_scale": as_float(parsed.settings.get("CFG scale")),
            "seed": as_int(parsed.settings.get("Seed")),
            "width": int(size.group(1)) if size else None,
            "height": int(size.group(2)) if size else None,
            "created": as_text(parsed.settings.get("Created Date")),
        }),
    )  # fmt: skip


def load_json(text: str, notes: list[str]) -> Any:
    """A JSON document; None, and a note, where it is none, too deep or holds ``NaN`` garbage."""
    try:
        document = json.loads(text)
    except RecursionError:
        notes.append("JSON nested too deep")
        return None
    except ValueError:
        try:
            document, _ = json.JSONDecoder(strict=False).raw_decode(text)
        except RecursionError:
            notes.append("JSON nested too deep")
            return None
        except ValueError:
            notes.append("metadata is damaged JSON")
            return None
    if _deeper_than(document, MAX_JSON_DEPTH):
        notes.append("JSON nested too deep")
        return None
    return document


def _deeper_than(document: Any, bound: int) -> bool:
    level = [document]
    for _ in range(bound):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        if not inner:
            return False
        level = inner
    return True


def _document(document: Any, where: str, notes: list[str], depth: int = 0) -> Iterator[Found]:
    if isinstance(document, str) and depth < 4 and document.lstrip()[:1] == "{":
        document = load_json(document, notes)
    if not isinstance(document, dict) or depth > 4:
        return
    extra = document.get("extraMetadata")
    if extra is not None:
        yield from _object_or_text(extra, "civitai", 8, notes)
    if comfy.is_graph(document):
        yield from _comfy(comfy.graph_of(document), "comfyui", notes)
        return
    if comfy_workflow.is_workflow(document):
        yield from _comfy(comfy_workflow.graph_of_workflow(document), "comfyui-workflow", notes)
        return
    inner_graph = False
    for key in ("prompt", "workflow", "graph"):
        value = document.get(key)
        if isinstance(value, str) and value.lstrip()[:1] == "{":
            value = load_json(value, notes)
        if comfy.is_graph(value) or comfy_workflow.is_workflow(value):
            inner_graph = True
            yield from _document(value, key, notes, depth + 1)
    if inner_graph:
        return
    comment = document.get("Comment")
    if isinstance(comment, str):
        description = document.get("Description")
        source = document.get("Source")
        yield from _novelai(
            comment,
            description if isinstance(description, str) else None,
            source if isinstance(source, str) else None,
            notes,
        )
    if "v4_prompt" in document or (
        "uc" in document and "prompt" in document and "c" not in document
    ):
        yield from _novelai(json.dumps(document), None, None, notes)
        return
    convention, rank = _JSON_TOOLS.get(where, ("json", 14))
    if "sui_image_params" in document:
        convention, rank = "swarmui", 6
    elif where in ("parameters", "usercomment"):
        version = str(document.get("version") or document.get("software") or "")
        if "fooocus" in version.lower() or "base_model_hash" in document:
            convention = "fooocus"
        elif "c" in document and "uc" in document:
            convention = "drawthings"
    yield from _from_object(document, convention, rank, notes)


_JSON_TOOLS = {
    "invokeai_metadata": ("invokeai", 2),
    "generation_data": ("tensorart", 6),
    "sui_image_params": ("swarmui", 6),
}


def _object_or_text(value: Any, convention: str, rank: int, notes: list[str]) -> Iterator[Found]:
    if isinstance(value, str):
        value = load_json(value, notes)
    if isinstance(value, dict):
        yield from _from_object(value, convention, rank, notes)


def _from_object(
    document: Mapping[str, Any], convention: str, rank: int, notes: list[str], depth: int = 0
) -> Iterator[Found]:
    """Prompt and negative by the names tools give them, in the object or one inside it."""
    by_name: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(key, str):
            by_name.setdefault(plain(key), value)
    prompt = _text_of(by_name, _PROMPT_KEYS)
    negative = _text_of(by_name, _NEGATIVE_KEYS)
    is_record = negative is not None or (
        prompt is not None and any(n in by_name for n in ("steps", "seed", "sampler", "cfgscale",
                                                           "scheduler", "model"))
    )  # fmt: skip
    if is_record and not (prompt is not None and prompt.lstrip()[:1] == "{"):
        if convention == "json" and "suiimageparams" not in by_name and depth == 0:
            convention = _guess_tool(by_name)
        yield Found(prompt, negative, convention, rank, _settings_of(by_name))
        return
    if depth < 3:
        for name in _CONTAINERS:
            inner = by_name.get(name)
            if isinstance(inner, str) and inner.lstrip()[:1] == "{":
                inner = load_json(inner, notes)
            if isinstance(inner, dict):
                yield from _from_object(inner, convention, rank, notes, depth + 1)


def _guess_tool(by_name: Mapping[str, Any]) -> str:
    if "c" in by_name and "uc" in by_name:
        return "drawthings"
    if "usestablediffusionmodel" in by_name:
        return "easydiffusion"
    return "json"


def _text_of(by_name: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = by_name.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return ", ".join(value)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            parts = [item.get("prompt") for item in value]
            if all(isinstance(part, str) for part in parts):
                return ", ".join(str(part) for part in parts)
    return None


def _settings_of(by_name: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for target, names in _SETTINGS.items():
        for name in names:
            if name not in by_name:
                continue
            value = by_name[name]
            if target in ("steps", "seed", "width", "height"):
                found[target] = as_int(value)
            elif target == "cfg_scale":
                found[target] = as_float(value)
            else:
                found[target] = as_text(value)
            if found[target] is not None:
                break
    for name in ("size", "resolution"):
        text = by_name.get(name)
        match = re.search(r"(\d{2,5})\D{1,3}(\d{2,5})", text) if isinstance(text, str) else None
        if match and not found.get("width"):
            found["width"], found["height"] = int(match.group(1)), int(match.group(2))
    return _known(found)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _comfy(graph: comfy.Graph, convention: str, notes: list[str]) -> Iterator[Found]:
    try:
        texts = comfy.read_graph(graph)
    except RecursionError:
        notes.append("ComfyUI graph nested too deep")
        return
    if texts is None:
        notes.append("ComfyUI graph without a sampler that a prompt leads to")
        return
    literal = 10 if texts.literal else 30
    rank = literal if convention == "comfyui" else 40
    yield Found(texts.prompt, texts.negative, convention, rank, texts.settings)


def _novelai(
    comment: str, description: str | None, source: str | None, notes: list[str]
) -> Iterator[Found]:
    """NovelAI's ``Comment``: V4 captions, else ``prompt`` or the description, and ``uc``."""
    if comment.lstrip()[:1] != "{":
        yield from _blob(comment, "comment", notes)
        return
    document = load_json(comment, notes)
    if not isinstance(document, dict):
        return
    if not ({"uc", "v4_prompt", "v4_negative_prompt"} & set(document)):
        if "prompt" in document:
            yield from _document(document, "comment", notes)
        return
    prompt = document.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        prompt = _caption(document.get("v4_prompt"))
    if prompt is None:
        prompt = description
    negative = document.get("uc")
    if not isinstance(negative, str):
        negative = _caption(document.get("v4_negative_prompt"))
    by_name = {plain(key): value for key, value in document.items() if isinstance(key, str)}
    settings = _settings_of(by_name)
    if source:
        settings["model"] = source
    yield Found(prompt, negative, "novelai", 4, settings)


def _caption(value: Any) -> str | None:
    """Base and character captions of NovelAI V4."""
    caption = value.get("caption") if isinstance(value, dict) else None
    if not isinstance(caption, dict):
        return None
    parts = [caption.get("base_caption")]
    chars = caption.get("char_captions")
    if isinstance(chars, list):
        parts += [item.get("char_caption") for item in chars if isinstance(item, dict)]
    texts = [part for part in parts if isinstance(part, str)]
    filled = [text for text in texts if text.strip()]
    return ", ".join(filled) if filled else (texts[0] if texts else None)


def _old_invoke(lower: Mapping[str, str], notes: list[str]) -> Iterator[Found]:
    """InvokeAI's ``Dream`` line and ``sd-metadata``, read by sd-parsers."""
    from sd_parsers.exceptions import ParserError
    from sd_parsers.parsers import InvokeAIParser

    for key, name, rank in (("sd-metadata", "sd-metadata", 2), ("dream", "Dream", 3)):
        if key not in lower:
            continue
        try:
            info = InvokeAIParser().parse({name: lower[key]})
            sampler = info.samplers[0]
        except (ParserError, ValueError, TypeError, AttributeError, KeyError, IndexError,
                RecursionError):  # fmt: skip
            notes.append(f"InvokeAI {name} that cannot be read")
            continue
        values = {**info.metadata, **sampler.parameters}
        by_name = {plain(str(item)): value for item, value in values.items()}
        settings = _settings_of(by_name)
        if sampler.name:
            settings["sampler"] = as_text(sampler.name)
        if sampler.model is not None and sampler.model.name:
            settings["model"] = as_text(sampler.model.name)
        prompts = [item.value for item in sampler.prompts]
        negatives = [item.value for item in sampler.negative_prompts]
        yield Found(
            ", ".join(prompts) if prompts else None,
            ", ".join(negatives) if negatives else None,
            "invokeai-legacy",
            rank,
            settings,
        )
