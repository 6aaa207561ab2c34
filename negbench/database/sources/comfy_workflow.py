"""ComfyUI's editor form of a graph (``workflow``) turned into the API form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negbench.database.sources.comfy import MAX_NODES, Graph, Node

_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler",
                 "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", "control_after_generate", "steps", "cfg",
                         "sampler_name", "scheduler", "start_at_step", "end_at_step",
                         "return_with_leftover_noise"),
    "KSampler (Efficient)": ("seed", "control_after_generate", "steps", "cfg", "sampler_name",
                             "scheduler", "denoise"),
    "SamplerCustom": ("add_noise", "noise_seed", "control_after_generate", "cfg"),
    "RandomNoise": ("noise_seed", "control_after_generate"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CheckpointLoader": ("config_name", "ckpt_name"),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height",
                           "text_g", "text_l"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "PrimitiveNode": ("value",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "Efficient Loader": ("ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength",
                         "lora_clip_strength", "positive", "negative", "token_normalization",
                         "weight_interpretation", "empty_latent_width", "empty_latent_height",
                         "batch_size"),
    "ImpactWildcardProcessor": ("wildcard_text", "populated_text"),
    "ImpactWildcardEncode": ("wildcard_text", "populated_text"),
    "WanVideoTextEncode": ("positive_prompt", "negative_prompt"),
    "CR Prompt Text": ("prompt",),
}  # fmt: skip
_CONTROL = {"fixed", "increment", "decrement", "randomize"}


def is_workflow(value: Any) -> bool:
    """Whether `value` is a graph in the editor's form."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("nodes"), list)
        and any(isinstance(node, dict) and "type" in node for node in value["nodes"])
    )


def graph_of_workflow(workflow: Mapping[str, Any]) -> Graph:
    """The API form: muted nodes left out, bypassed ones bridged, subgraphs laid open."""
    subgraphs: dict[str, Any] = {}
    definitions = workflow.get("definitions")
    if isinstance(definitions, dict) and isinstance(definitions.get("subgraphs"), list):
        for item in definitions["subgraphs"]:
            if isinstance(item, dict) and isinstance(item.get("id"), str):
                subgraphs[item["id"]] = item
    graph: Graph = {}
    _add(graph, workflow, "", subgraphs, {}, depth=0)
    return graph


def _links(workflow: Mapping[str, Any]) -> dict[int, tuple[int, int, int, int, str]]:
    """Link id -> (from node, from slot, to node, to slot, type), both of ComfyUI's spellings."""
    found: dict[int, tuple[int, int, int, int, str]] = {}
    links = workflow.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, list) and len(link) >= 6:
            number, *ends, kind = link[:6]
        elif isinstance(link, dict):
            number = link.get("id")
            ends = [
                link.get(key) for key in ("origin_id", "origin_slot", "target_id", "target_slot")
            ]
            kind = link.get("type")
        else:
            continue
        numbers = [_number(end) for end in ends]
        if isinstance(number, int) and all(end is not None for end in numbers):
            a, b, c, d = (end for end in numbers if end is not None)
            found[number] = (a, b, c, d, str(kind))
    return found


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else None


def _add(
    graph: Graph,
    workflow: Mapping[str, Any],
    prefix: str,
    subgraphs: dict[str, Any],
    outer: dict[int, list[Any]],
    *,
    depth: int,
) -> dict[int, list[Any]]:
    """Add the nodes of one (sub)graph; returns output slot -> link for a subgraph."""
    links = _links(workflow)
    raw = workflow.get("nodes")
    nodes = {
        str(node["id"]): node
        for node in (raw if isinstance(raw, list) else [])[:MAX_NODES]
        if isinstance(node, dict) and "id" in node and isinstance(node.get("type"), str)
    }
    setters = {
        _first(node): str(node["id"]) for node in nodes.values() if node["type"] == "SetNode"
    }
    inner_outputs: dict[str, dict[int, list[Any]]] = {}

    def target(number: Any, hops: int = 0) -> list[Any] | None:
        """The link with this number in API form, through bypassed and virtual nodes."""
        if not isinstance(number, int) or number not in links or hops > 200:
            return None
        source, slot, _, _, kind = links[number]
        if source == -10:
            return outer.get(slot)
        node = nodes.get(str(source))
        if node is None or node.get("mode") == 2:
            return None
        if node["type"] == "GetNode":
            setter = nodes.get(setters.get(_first(node), ""))
            return (
                target(_inputs(setter)[0].get("link"), hops + 1)
                if setter and _inputs(setter)
                else None
            )
        if node.get("mode") == 4:
            same = [item for item in _inputs(node) if item.get("type") == kind]
            return target(same[0].get("link"), hops + 1) if same else None
        if node["type"] in subgraphs and depth < 8:
            outputs = inner_outputs.get(str(source))
            if outputs is None:
                inner_outputs[str(source)] = {}
                feeds = {
                    index: link
                    for index, item in enumerate(_inputs(node))
                    if (link := target(item.get("link"), hops + 1)) is not None
                }
                outputs = inner_outputs[str(source)] = _add(
                    graph, subgraphs[node["type"]], f"{prefix}{source}:", subgraphs, feeds,
                    depth=depth + 1,
                )  # fmt: skip
            return outputs.get(slot)
        return [f"{prefix}{source}", slot]

    for key, node in nodes.items():
        if node.get("mode") in (2, 4) or node["type"] in ("SetNode", "GetNode", "Note"):
            continue
        if len(graph) >= MAX_NODES or node["type"] in subgraphs:
            continue
        inputs: dict[str, Any] = {}
        for item in _inputs(node):
            link = target(item.get("link"))
            if link is not None:
                inputs[str(item.get("name") or "value")] = link
        for name, value in _widgets(node).items():
            inputs.setdefault(name, value)
        title = node.get("title")
        graph[prefix + key] = Node(node["type"], inputs, title if isinstance(title, str) else "")
    return {
        slot: link
        for number, (_, _, end, slot, _) in links.items()
        if end == -20 and (link := target(number)) is not None
    }


def _inputs(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    value = node.get("inputs")
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _first(node: Mapping[str, Any]) -> str:
    values = node.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    """Widget name -> value: by the node's own list, by known orders, else strings as texts."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return {str(key): value for key, value in values.items()}
    if not isinstance(values, list):
        return {}
    known = _WIDGETS.get(node["type"])
    if known is not None:
        names = list(known)
        if "control_after_generate" in names:
            position = names.index("control_after_generate")
            if len(values) <= position or values[position] not in _CONTROL:
                names.remove("control_after_generate")
        return dict(zip(names, values, strict=False))
    own = [
        str(item["widget"].get("name"))
        for item in _inputs(node)
        if isinstance(item.get("widget"), dict)
    ]
    kept = [
        value
        for index, value in enumerate(values)
        if not (
            index
            and isinstance(value, str)
            and value in _CONTROL
            and isinstance(values[index - 1], (int, float))
        )
    ]
    if own and len(own) == len(kept):
        return dict(zip(own, kept, strict=True))
    found: dict[str, Any] = {}
    texts = [value for value in values if isinstance(value, str)]
    sampler = "sampler" in node["type"].lower() or "detailer" in node["type"].lower()
    for index, text in enumerate(texts):
        if not sampler:
            found["text" if index == 0 else f"widget_{index}"] = text
    if sampler:
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        found.update(zip(("seed", "steps", "cfg", "denoise"), numbers, strict=False))
    return found
