"""Ending a run early: where its state is again that of the path it left, the path's own end tells the rest.

Exact, not an approximation: registers, flags, hidden parts of segments and latches are equal, the contract has the same entries
open, and every word of memory that differs is one that the rest of the path never reads before it writes it whole. At the end such
a word is as the run left it, or as the path writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fuzzer.sweep.memory_use import WORD, Fate
from fuzzer.sweep.path import Path, state_of
from fuzzer.sweep.running import Running
from reference.boot import observe
from reference.fork import fork
from reference.image import PAGE, End, Observation
from reference.machine import RSP, Machine
from reference.paging import writable_page

_QWORDS: Final = struct.Struct("<512Q")


def is_back(m: Machine, home: Machine) -> bool:
    """Whether a run seems to be where `home` is; `merged` tells for certain."""
    return m.rip == home.rip and m.gpr[RSP] == home.gpr[RSP] and m.cpl == home.cpl


def merged(path: Path, boundary: int, run: Running) -> Observation | None:
    """What a run that has come back to the state of `path` at `boundary` ends with; None where it has to be run to see."""
    m, start = run.m, path.starts[boundary]
    home = start.m
    if run.watch and start.watch and not run.watch.agrees(start.watch):
        return None
    if m.arrivals or home.arrivals or path.observation.end is End.DID_NOT_END or state_of(m) != path.state(boundary):
        return None
    longer = m.retired - boundary
    if path.observation.retired + longer >= path.image.limit or len(m.deliveries) + len(path.observation.deliveries) >= path.image.limit:
        return None
    fates = {word: path.use.fate(word, boundary) for word in _differing(m, home)}
    if Fate.READ in fates.values():
        return None
    return _end(path, home, m, longer, {word for word, fate in fates.items() if fate is Fate.KEPT})


def _differing(m: Machine, home: Machine) -> Iterator[int]:
    """Physical addresses of the words that differ in value, or in what is undefined of them."""
    for frame in m.copied:
        ours, theirs = m.pages[frame], home.pages[frame]
        if ours != theirs:
            words = zip(_QWORDS.unpack(ours), _QWORDS.unpack(theirs), strict=True)
            yield from (frame * PAGE + WORD * n for n, (one, other) in enumerate(words) if one != other)
    for address, _ in m.undefined_words.items() ^ home.undefined_words.items():
        yield from {address & -WORD, (address + WORD - 1) & -WORD}


def _end(path: Path, home: Machine, m: Machine, longer: int, kept: set[int]) -> Observation:
    """The end of the path, with the words that stay as the run left them."""
    last = fork(path.last_machine)
    for word in kept:
        page, offset = writable_page(last, word // PAGE), word % PAGE
        page[offset : offset + WORD] = m.pages[word // PAGE][offset : offset + WORD]
    last.undefined_words = {
        address: bits
        for machine, own in ((path.last_machine, False), (m, True))
        for address, bits in machine.undefined_words.items()
        if (address & -WORD in kept) is own
    }
    rest = last.deliveries[len(home.deliveries) :]
    last.deliveries = [*m.deliveries, *(replace(each, boundary=each.boundary + longer) for each in rest)]
    last.retired += longer
    return observe(last, path.image, path.observation.end, path.observation.detail)
