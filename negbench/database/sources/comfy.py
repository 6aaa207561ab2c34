"""ComfyUI graphs: from the picture's output back to the sampler, from there to its texts."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from negbench.database.sources.columns import as_float, as_int, as_text

MAX_NODES = 20_000
MAX_DEPTH = 150

_SAMPLING = {
    "seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "sigmas",
    "sampler", "latent_image", "latent", "noise", "add_noise", "start_at_step", "guidance",
    "samples", "latents", "shift",
}  # fmt: skip
_ROLE_NAMES = {
    "positive": ("positive", "positive_prompt", "prompt_positive", "text_positive", "pos",
                 "pos_prompt", "positive_text", "positive_cond", "cond_pos", "prompt_pos"),
    "negative": ("negative", "negative_prompt", "prompt_negative", "text_negative", "neg",
                 "neg_prompt", "negative_text", "negative_cond", "cond_neg", "prompt_neg"),
}  # fmt: skip
_TEXT_NAME = re.compile(r"text|prompt|string|caption|clip_[lg]|t5xxl|llama|wildcard|^value$", re.I)
_NOT_TEXT_NAME = re.compile(
    r"file|path|mode|format|type|name|encod|device|token_norm|weight_interp|speak|delim|separator"
    r"|regex|select|style|pass_through|seed|populate$",
    re.I,
)
_NEUTRAL = re.compile(r"pipe|embed|cond|guider|prompt|context|bus|tuple", re.I)
_NO_WAY = re.compile(
    r"^(model|clip|vae|images?|pixels|latent.*|samples|mask|noise|sigmas|sampler|control_net"
    r"|style_model|clip_vision.*|bbox.*|sam_model.*|segs|upscale_model|lora.*|switch|boolean)\d*$",
    re.I,
)
_REGIONAL = re.compile(r"area|mask|gligen|region", re.I)
_JOINERS = re.compile(r"concat|join|append|combine|merge|multiline.*concat", re.I)
_MADE_UP = re.compile(
    r"llm|gpt|ollama|wildcard|random|generat|styl|replace|regex|tagger|caption|translat", re.I
)
_OUTPUTS = re.compile(r"save|videocombine|output|upload|websocket", re.I)


@dataclass(slots=True)
class Node:
    """One node of a graph in ComfyUI's API form: links are ``[id, slot]``."""

    kind: str
    inputs: dict[str, Any]
    title: str = ""


Graph = dict[str, Node]


@dataclass(frozen=True)
class ComfyTexts:
    """What a graph says: both texts, whether they are literal, and the sampler's settings."""

    prompt: str | None
    negative: str | None
    literal: bool
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Text:
    text: str
    regional: bool
    literal: bool


def is_graph(value: Any) -> bool:
    """Whether `value` is a graph in API form (an object of nodes with a ``class_type``)."""
    if not isinstance(value, dict) or not value:
        return False
    return any(isinstance(node, dict) and "class_type" in node for node in value.values())


def graph_of(value: Mapping[str, Any]) -> Graph:
    """A graph from its API form; what is no node is left out."""
    graph: Graph = {}
    for key, node in value.items():
        if len(graph) >= MAX_NODES:
            break
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            continue
        inputs = node.get("inputs")
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        graph[str(key)] = Node(
            node["class_type"],
            {str(k): v for k, v in inputs.items()} if isinstance(inputs, dict) else {},
            title if isinstance(title, str) else "",
        )
    return graph


def read_graph(graph: Graph) -> ComfyTexts | None:
    """Prompt and negative of the sampler nearest the output; None if no node takes prompts."""
    for node_id in _samplers(graph):
        walk = _Walk(graph)
        positive = walk.sampler_texts(node_id, "positive")
        negative = walk.sampler_texts(node_id, "negative")
        if positive is None and negative is None:
            continue
        literal = all(text.literal for text in (positive or []) + (negative or []))
        prompt = _merge(positive)
        if prompt is None and not (negative and _merge(negative)):
            continue
        return ComfyTexts(prompt, _merge(negative), literal, _settings(graph, node_id))
    return None


def _merge(texts: list[_Text] | None) -> str | None:
    """The text of the whole picture; texts of regions count only where it has none."""
    if not texts:
        return None
    whole = [text for text in texts if not text.regional] or texts
    seen: dict[str, None] = {}
    for text in whole:
        seen.setdefault(text.text, None)
    several = [text for text in seen if text.strip()]
    if len(several) <= 1:
        return several[0] if several else next(iter(seen))
    return ", ".join(text.strip().rstrip(",") for text in several)


def _link(graph: Graph, value: Any) -> str | None:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        head, slot = value
        if isinstance(slot, int) and isinstance(head, (str, int)) and str(head) in graph:
            return str(head)
    return None


def _samplers(graph: Graph) -> list[str]:
    """Nodes that sample, nearest the output first; detailers and the like only after samplers."""
    consumed = {
        source
        for node in graph.values()
        for value in node.inputs.values()
        if (source := _link(graph, value)) is not None
    }
    ends = [node_id for node_id in graph if node_id not in consumed]
    saves = [node_id for node_id in ends if _OUTPUTS.search(graph[node_id].kind)]
    distance: dict[str, int] = {}
    for starts in (saves, ends):
        queue = deque((node_id, 0) for node_id in starts)
        while queue:
            node_id, steps = queue.popleft()
            if node_id in distance:
                continue
            distance[node_id] = steps
            for value in graph[node_id].inputs.values():
                source = _link(graph, value)
                if source is not None and source not in distance:
                    queue.append((source, steps + 1))
        if any(_rank(graph, node_id) is not None for node_id in distance):
            break
    ranked = [
        (rank, distance.get(node_id, 10**6), place, node_id)
        for place, node_id in enumerate(graph)
        if (rank := _rank(graph, node_id)) is not None
    ]
    return [node_id for *_, node_id in sorted(ranked)]


def _rank(graph: Graph, node_id: str) -> int | None:
    """0 for a sampler, 1 for a detailer or upscaler that samples, 2 for others; None for no."""
    node = graph[node_id]
    names = {name.lower() for name in node.inputs}
    role_input = any(name in names for role in _ROLE_NAMES.values() for name in role) or any(
        _link(graph, v) and _NEUTRAL.search(k) for k, v in node.inputs.items()
    )
    if not role_input or _OUTPUTS.search(node.kind):
        return None
    kind = node.kind.lower()
    fields = len(names & _SAMPLING)
    if re.search(r"detail|provider|upscale|segs|iterative", kind):
        return 1 if fields >= 2 else None
    if "sampler" in kind and "select" not in kind and fields >= 1:
        return 0
    if "guider" in names and fields >= 2:
        return 0
    if re.search(r"controlnet|control_net|inpaintmodel|conditioning|encode|loader|pipe$", kind):
        return None
    return 0 if fields >= 4 else (2 if fields >= 3 else None)


class _Walk:
    """Follows links from a sampler to texts; every (node, role) is visited once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._seen: set[tuple[str, str]] = set()

    def sampler_texts(self, node_id: str, role: str) -> list[_Text] | None:
        """Texts of one role; None if the sampler has no such input."""
        self._seen.clear()
        return self._from(node_id, role, regional=False, depth=0, own_text=False)

    def _from(
        self, node_id: str, role: str, *, regional: bool, depth: int, own_text: bool
    ) -> list[_Text] | None:
        """Texts of `role` behind a node.

        `own_text`: a text of the node that names no role counts for this role, because the way
        here went through an input that does.
        """
        if depth > MAX_DEPTH or (node_id, role) in self._seen:
            return None
        self._seen.add((node_id, role))
        node = self.graph[node_id]
        kind = node.kind.lower()
        if "zeroout" in kind and role == "negative":
            return None
        inputs = {name.lower(): value for name, value in node.inputs.items()}

        named = self._named(inputs, role, regional=regional, depth=depth)
        if named is not None:
            return named
        other = "negative" if role == "positive" else "positive"
        two_sided = any(name in inputs for name in _ROLE_NAMES[other])
        found: list[_Text] = []
        if own_text and not two_sided:
            area = regional or bool(_REGIONAL.search(kind))
            conditionings = [
                source
                for name, value in inputs.items()
                if "cond" in name and (source := _link(self.graph, value)) is not None
            ]
            own = self._own_texts(inputs, depth=depth)
            for source in conditionings:
                shared = regional if own else area
                found += (
                    self._from(source, role, regional=shared, depth=depth + 1, own_text=True) or []
                )
            if own:
                found.append(_Text(own[0], (area and bool(conditionings)) or regional, own[1]))
            if found or conditionings or own is not None:
                return found
        for name, value in inputs.items():
            through = _link(self.graph, value)
            if through is None or _NO_WAY.match(name):
                continue
            if not own_text and not _NEUTRAL.search(name):
                continue
            goes_on = own_text or (role == "positive" and name in ("conditioning", "cond1", "cond"))
            more = self._from(through, role, regional=regional, depth=depth + 1, own_text=goes_on)
            if more is not None:
                found += more
                if not _JOINERS.search(kind):
                    return found
        return found or None

    def _named(
        self, inputs: dict[str, Any], role: str, *, regional: bool, depth: int
    ) -> list[_Text] | None:
        """Texts behind an input that is named for the role."""
        for name in _ROLE_NAMES[role]:
            if name not in inputs:
                continue
            value = inputs[name]
            if isinstance(value, str):
                return [_Text(value, regional, True)]
            through = _link(self.graph, value)
            if through is not None:
                return self._from(through, role, regional=regional, depth=depth + 1, own_text=True)
        return None

    def _own_texts(self, inputs: dict[str, Any], *, depth: int) -> tuple[str, bool] | None:
        """The node's own text and whether it is literal; None if it has no text input."""
        parts: list[str] = []
        literal = True
        any_input = False
        names = [n for n in inputs if _TEXT_NAME.search(n) and not _NOT_TEXT_NAME.search(n)]
        populated = [n for n in names if n.startswith("populated")]
        for name in populated or names:
            value = inputs[name]
            if isinstance(value, str):
                any_input = True
                text: str | None = value
            else:
                through = _link(self.graph, value)
                if through is None:
                    continue
                any_input = True
                text, sure = self._string(through, depth=depth + 1, slot=int(value[1]))
                literal = literal and sure
            if text is not None and text not in parts:
                parts.append(text)
        if not any_input:
            return None
        filled = [part for part in parts if part.strip()]
        if not filled:
            return (parts[0] if parts else ""), literal and bool(parts)
        return (filled[0] if len(filled) == 1 else "\n".join(filled)), literal

    def _string(self, node_id: str, *, depth: int, slot: int = 0) -> tuple[str | None, bool]:
        """The string a node gives, and whether it stands in the graph as such."""
        if depth > MAX_DEPTH or (node_id, "string") in self._seen:
            return None, False
        self._seen.add((node_id, "string"))
        try:
            return self._string_of(self.graph[node_id], depth=depth, slot=slot)
        finally:
            self._seen.discard((node_id, "string"))

    def _string_of(self, node: Node, *, depth: int, slot: int) -> tuple[str | None, bool]:
        inputs = {name.lower(): value for name, value in node.inputs.items()}
        for role, index in (("positive", 0), ("negative", 1)):
            both = all(any(n in inputs for n in _ROLE_NAMES[r]) for r in _ROLE_NAMES)
            if both and slot == index:
                name = next(n for n in _ROLE_NAMES[role] if n in inputs)
                value = inputs[name]
                if isinstance(value, str):
                    return value, not re.search(r"style|wildcard", node.kind, re.I)
                through = _link(self.graph, value)
                if through is not None:
                    return self._string(through, depth=depth + 1, slot=int(value[1]))
        chosen = self._switch(inputs)
        names = [chosen] if chosen else [
            n for n in inputs
            if not _NOT_TEXT_NAME.search(n)
            and (_TEXT_NAME.search(n) or _link(self.graph, inputs[n]) is not None
                 or re.fullmatch(r"(any|input|a|b|c|d|anything|source|result|output)_?\d*", n))
        ]  # fmt: skip
        populated = [n for n in names if n.startswith("populated")]
        parts: list[str] = []
        literal = True
        for name in populated or names:
            value = inputs[name]
            if isinstance(value, str):
                text: str | None = value
                sure = True
            else:
                through = _link(self.graph, value)
                if through is None or _NO_WAY.match(name):
                    continue
                text, sure = self._string(through, depth=depth + 1, slot=int(value[1]))
            literal = literal and sure
            if text:
                parts.append(text)
        if not parts:
            return None, False
        if len(parts) == 1:
            plain = re.search(r"primitive|string|text|prompt|reroute|note|show|switch", node.kind,
                              re.I)  # fmt: skip
            odd = _MADE_UP.search(node.kind)
            return parts[0], literal and bool(plain) and (not odd or bool(populated))
        if _JOINERS.search(node.kind):
            sign = next((inputs[n] for n in inputs if re.search("delim|separ", n)), None)
            sign = sign.replace("\\n", "\n") if isinstance(sign, str) else " "
            return sign.join(parts), literal
        return parts[0], False

    def _switch(self, inputs: dict[str, Any]) -> str | None:
        """The input that a switch node has chosen."""
        for name in ("select", "index", "selected", "input"):
            value = inputs.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                for option in (f"input{value}", f"input_{value}", f"any_{value}", f"text{value}"):
                    if option in inputs:
                        return option
        return None


def _settings(graph: Graph, node_id: str) -> dict[str, Any]:
    """Sampler settings, looked up in the sampler and the nodes its inputs link to."""
    node = graph[node_id]

    def find(*names: str) -> Any:
        for name in names:
            value = node.inputs.get(name)
            for _ in range(8):
                through = _link(graph, value)
                if through is None:
                    break
                inner = graph[through].inputs
                value = next(
                    (inner[n] for n in (*names, "value", "seed", "int", "float") if n in inner),
                    None,
                )
            if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                return value
        return None

    def behind(name: str, wanted: tuple[str, ...]) -> Any:
        queue = deque([_link(graph, node.inputs.get(name))])
        seen: set[str] = set()
        while queue and len(seen) < 200:
            current = queue.popleft()
            if current is None or current in seen:
                continue
            seen.add(current)
            for key in wanted:
                value = graph[current].inputs.get(key)
                if isinstance(value, str) or (
                    isinstance(value, int) and not isinstance(value, bool)
                ):
                    return value
            queue.extend(_link(graph, value) for value in graph[current].inputs.values())
        return None

    sampler = find("sampler_name")
    if sampler is None:
        sampler = behind("sampler", ("sampler_name",))
    scheduler = find("scheduler")
    steps = find("steps")
    settings = {
        "model": as_text(
            behind("model", ("ckpt_name", "unet_name", "model_name", "gguf_name"))
            or behind("guider", ("unet_name", "ckpt_name"))
            or behind("basic_pipe", ("ckpt_name",))
        ),
        "sampler": as_text(" ".join(str(part) for part in (sampler, scheduler) if part)),
        "steps": as_int(steps if steps is not None else behind("sigmas", ("steps",))),
        "cfg_scale": as_float(find("cfg", "guidance")),
        "seed": as_int(find("seed", "noise_seed") or behind("noise", ("noise_seed",))),
        "width": as_int(behind("latent_image", ("width",))),
        "height": as_int(behind("latent_image", ("height",))),
    }
    return {key: value for key, value in settings.items() if value is not None}
