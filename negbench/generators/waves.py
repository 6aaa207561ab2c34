"""Draw trees of requests in full batches: nothing twice, and memory bounded.

Work waits as nodes (`negbench.generators.sharing`) before model calls. Each turn takes one call
and enough of the nodes before it to fill the network's fixed shape, and lets them part where their
requests do. The turn farthest along that can be filled comes first, so that few states are kept;
new noise is begun only where no turn can be filled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from negbench.generators.loop import Denoiser, Lane, LoopState, join
from negbench.generators.network import Encoding, Network
from negbench.generators.sharing import Lead, Node, Root, Text
from negbench.guidance.base import Branch

Item = TypeVar("Item")

KEPT = 1 << 30
"""Bytes of states that may wait before no new noise is begun."""


@dataclass(frozen=True)
class _Steady(Generic[Item]):
    """What the last turn of a chunk did, for those in which it does the same.

    Attributes:
        until: the first model call at which a picture may do something else.
        leads: one a row.
        lanes: one a row.
        table: row by text that the lanes speak of.
    """

    until: int
    leads: list[Lead[Item]]
    lanes: list[Lane]
    table: dict[Text, int]


@dataclass
class _Chunk(Generic[Item]):
    """Nodes before one model call: a row of the state each, and the predictions it needs."""

    state: LoopState
    nodes: list[Node[Item]]
    costs: list[int]
    steady: _Steady[Item] | None = None

    def __post_init__(self) -> None:
        self.cost = sum(self.costs)


@dataclass(frozen=True)
class Finished(Generic[Item]):
    """One picture, and everyone who asked for it.

    Attributes:
        latent: (1, channels, height, width).
        items: whose picture it is.
        spent: predictions it would have needed alone.
        paid: predictions made for it first.
    """

    latent: torch.Tensor
    items: list[Item]
    spent: int
    paid: int


class Waves(Generic[Item]):
    """Draws roots to the end.

    Args:
        denoiser: runs single model calls.
        network: encodes texts.
        roots: what to draw, in order.
        chunks: chunks of every text.
        target: predictions a turn, a multiple of the network's rows.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        network: Network,
        roots: Sequence[Root[Item]],
        *,
        chunks: int,
        target: int,
    ) -> None:
        self.denoiser = denoiser
        self.network = network
        self.chunks = chunks
        self.target = target
        self._roots = deque(roots)
        self._begun: list[tuple[int, Node[Item]]] = []
        self._waiting: dict[int, list[_Chunk[Item]]] = {}
        self._table: dict[Text, int] = {}
        self._encoding: Encoding | None = None

    def turn(self) -> list[Finished[Item]] | None:
        """One model call of one batch; what is finished by it, or None if nothing is left.

        Where an error is raised nothing is lost: the next turn tries again.
        """
        index = self._choose()
        if index is None:
            return None
        chunk = self._fill(index)
        try:
            rows, steady = self._advance(chunk, index)
        except BaseException:
            self._waiting.setdefault(index, []).append(chunk)
            raise
        index += 1
        state, leads = chunk.state, steady.leads
        if index == len(self.denoiser.steps):
            return [
                Finished(
                    state.latents[row : row + 1],
                    [track.item for track in lead.tracks],
                    state.spent[row],
                    state.paid[row],
                )
                for row, lead in enumerate(leads)
            ]
        nodes, costs = chunk.nodes, chunk.costs
        if rows is not None:
            nodes = [Node(lead.tracks) for lead in leads]
            costs = [node.cost(index) for node in nodes]
        elif index >= steady.until:
            costs = [node.cost(index) for node in nodes]
        after = _Chunk(state, nodes, costs, steady if index < steady.until else None)
        self._waiting.setdefault(index, []).append(after)
        return []

    def _choose(self) -> int | None:
        """The model call of the next turn."""
        waiting = {index: sum(chunk.cost for chunk in chunks)
                   for index, chunks in self._waiting.items()}  # fmt: skip
        new = bool(self._roots or self._begun)
        if not self.denoiser.divisible:
            return max(waiting) if waiting else (0 if new else None)
        enough = self.target - (self.network.rows.denoiser or 0) // 8
        full = [index for index, cost in waiting.items() if cost >= enough]
        if full:
            return max(full)
        if new and self._nbytes() <= KEPT:
            return 0
        if waiting:
            return max(waiting) if new else min(waiting)
        return 0 if new else None

    def _nbytes(self) -> int:
        return sum(chunk.state.nbytes for chunks in self._waiting.values() for chunk in chunks)

    def _fill(self, index: int) -> _Chunk[Item]:
        """Enough nodes before call `index`, taken out of what waits."""
        chunks = self._waiting.pop(index, [])
        if not self.denoiser.divisible and chunks:
            taken = chunks.pop()
            if chunks:
                self._waiting[index] = chunks
            return taken
        room = self.target
        parts: list[_Chunk[Item]] = []
        rest: list[_Chunk[Item]] = []
        for chunk in chunks:
            inside = []
            for row, cost in enumerate(chunk.costs):
                if cost <= room or room == self.target:
                    inside.append(row)
                    room -= cost
            if len(inside) == len(chunk.nodes):
                parts.append(chunk)
                continue
            if inside:
                parts.append(_cut(chunk, inside))
            taken_rows = set(inside)
            outside = [row for row in range(len(chunk.nodes)) if row not in taken_rows]
            rest.append(_cut(chunk, outside))
        if rest:
            self._waiting[index] = rest
        if index == 0:
            begun = self._begin(room)
            if begun is not None:
                parts.append(begun)
        if len(parts) == 1:
            return parts[0]
        return _Chunk(
            join([part.state for part in parts]),
            [node for part in parts for node in part.nodes],
            [cost for part in parts for cost in part.costs],
        )

    def _begin(self, room: int) -> _Chunk[Item] | None:
        """Noise for as many roots as there is room, one at least where all of it is left."""
        seeds: list[int] = []
        nodes: list[Node[Item]] = []
        costs: list[int] = []
        whole = room == self.target
        while self._begun or self._roots:
            if not self._begun:
                root = self._roots.popleft()
                self._begun.append((root.seed, Node(root.tracks())))
            seed, node = self._begun[0]
            cost = node.cost(0)
            if cost > room and not (whole and not nodes):
                break
            self._begun.pop()
            room -= cost
            seeds.append(seed)
            nodes.append(node)
            costs.append(cost)
        return _Chunk(self.denoiser.noise(seeds), nodes, costs) if nodes else None

    def _advance(self, chunk: _Chunk[Item], index: int) -> tuple[list[int] | None, _Steady[Item]]:
        """One model call; the row that each lane came from, if rows parted, and what was done."""
        steady = chunk.steady
        if steady is not None and steady.table is self._table and self._encoding is not None:
            self.denoiser.advance(chunk.state, steady.lanes, self._encoding)
            return None, steady
        if index == 0:
            self.network.remember(_all_texts(chunk.nodes), chunks=self.chunks)
        rows: list[int] = []
        leads: list[Lead[Item]] = []
        for row, node in enumerate(chunk.nodes):
            for lead in node.leads(index):
                rows.append(row)
                leads.append(lead)
        table, encoding = self._texts(leads)
        lanes = [
            Lane(
                seed=0,
                rule=lead.span.rule,
                # one call of `combine` for all lanes of a phase, whatever their rules
                group=(lead.span.phase, lead.span.needs),
                texts=_rows_of_texts(lead, table),
            )
            for lead in leads
        ]
        parted = len(rows) != len(chunk.nodes)
        self.denoiser.advance(chunk.state, lanes, encoding, rows if parted else None)
        until = min(lead.stop for lead in leads)
        return rows if parted else None, _Steady(until, leads, lanes, table)

    def _texts(self, leads: Sequence[Lead[Item]]) -> tuple[dict[Text, int], Encoding]:
        """Row by text, and the encodings; those of the turn before where they are enough."""
        wanted: dict[Text, None] = {}
        for lead in leads:
            for ask in lead.span.asks:
                wanted[ask.text] = wanted[ask.away] = None
        if self._encoding is None or not wanted.keys() <= self._table.keys():
            self._table = {text: row for row, text in enumerate(wanted)}
            self._encoding = self.network.encode(list(wanted), chunks=self.chunks)
        return self._table, self._encoding


def _rows_of_texts(lead: Lead[Item], table: dict[Text, int]) -> dict[Branch, int]:
    rows = {}
    for branch, ask in zip(lead.span.needs, lead.span.asks, strict=True):
        own, *away = branch.texts()
        rows[own] = table[ask.text]
        for other in away:
            rows[other] = table[ask.away]
    return rows


def _all_texts(nodes: Sequence[Node[Item]]) -> list[Text]:
    asks = (
        ask for node in nodes for track in node.tracks for span in track.spans for ask in span.asks
    )
    return list(dict.fromkeys(text for ask in asks for text in (ask.text, ask.away)))


def _cut(chunk: _Chunk[Item], rows: Sequence[int]) -> _Chunk[Item]:
    return _Chunk(
        chunk.state.take(rows),
        [chunk.nodes[row] for row in rows],
        [chunk.costs[row] for row in rows],
    )
