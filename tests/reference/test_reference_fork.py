"""A fork goes its own way: what one of two machines does, the other never sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reference_machine import KERNEL_DATA, USER32_CS, USER_DATA, image, interrupt, nmi

from reference.boot import boot, observe
from reference.delivery import Ended
from reference.descriptors import Segment
from reference.fork import fork
from reference.image import End, Image, Observation
from reference.machine import Machine, Translations
from reference.run import step

RUNS = [
    pytest.param(image("48890424 50 50 58 0f01f8 90", rax=7, rbx=1, kernel_gs_base=5), id="stores-and-swapgs"),
    pytest.param(image("f348ab 4801c0 90", rcx=4, rdi=KERNEL_DATA, rflags=0x202, events=(interrupt(3), nmi(4)),
                       handlers={0x72: "48cf", 2: "50 58 48cf"}), id="events"),
    pytest.param(image("488907 488b07 0f05", 3, rdi=USER_DATA, rax=9, star=0x0023_0010_0000_0000), id="from-user"),
    pytest.param(image("9c 58 b9020000c0 0fae00 90", rax=KERNEL_DATA), id="not-modelled"),
]  # fmt: skip


def end_of(m: Machine, made: Image) -> Observation:
    """The rest of a run."""
    try:
        while step(m):
            pass
    except Ended:
        return observe(m, made, End.ENDED)
    except Exception as reason:
        return observe(m, made, End.NOT_MODELLED, str(reason))
    return observe(m, made, End.HALTED)


def after(made: Image, steps: int) -> Machine:
    m = boot(made)
    for _ in range(steps):
        step(m)
    return m


@pytest.mark.parametrize("made", RUNS)
@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("fork_runs_first", [True, False], ids=["fork-first", "original-first"])
def test_both_end_as_a_run_that_was_never_forked(made: Image, steps: int, fork_runs_first: bool) -> None:
    whole = end_of(after(made, steps), made)
    original = after(made, steps)
    forked = fork(original)

    first, second = (forked, original) if fork_runs_first else (original, forked)

    assert (end_of(first, made), end_of(second, made)) == (whole, whole)


def changeable(value: object) -> Iterator[object]:
    """Everything that a machine holds there and could change in place."""
    if isinstance(value, list | dict | set | bytearray | Segment | Translations):
        yield value
    if isinstance(value, list):
        for each in value:
            yield from changeable(each)
    if isinstance(value, dict):
        for each in value.values():
            yield from changeable(each)
    if isinstance(value, Translations):
        yield from (value.reads, value.writes, value.fetches)
        yield from value.writes.values()


@pytest.mark.parametrize("made", RUNS)
def test_nothing_that_can_change_is_shared(made: Image) -> None:
    original = after(made, 3)

    forked = fork(original)

    ours, theirs = ([thing for name in Machine.__slots__ for thing in changeable(getattr(m, name))] for m in (original, forked))
    assert len(ours) == len(theirs)
    assert {id(thing) for thing in ours}.isdisjoint(id(thing) for thing in theirs)


@pytest.mark.parametrize(
    ("made", "mode"),
    [
        pytest.param(image("90 90"), "supervisor", id="kernel"),
        pytest.param(image("90 90", 3), "user", id="user"),
        pytest.param(image("90 90", 3, cs=USER32_CS), "user32", id="compatibility"),
    ],
)
def test_the_fork_has_the_translations_of_its_own_mode(made: Image, mode: str) -> None:
    forked = fork(after(made, 1))

    assert forked.translations is getattr(forked, mode)
