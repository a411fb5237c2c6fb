"""What the specification says of the first event of a case in user mode."""

from __future__ import annotations

from dataclasses import replace

from fuzzer.cores.silicon.event import FIELDS, FirstEvent, Kind
from fuzzer.cores.silicon.exchange import USER_FRAMES
from fuzzer.cores.silicon.host import INT_80
from fuzzer.targets.layout import USER_CS, USER_DS
from reference.bits import RF
from reference.boot import aligned, boot
from reference.delivery import Ended
from reference.faults import Fault, NotModelled, Shutdown, Vector
from reference.image import GPRS, SEGMENTS, Image
from reference.instructions.tables import UMIP_RULE
from reference.machine import R11, RCX, Machine
from reference.memory import load_implicit
from reference.run import step

_USER = frozenset(USER_FRAMES)


def first_event(image: Image) -> FirstEvent:
    """Run `image` on the specification until it leaves CPL 3 for the first time."""
    try:
        m = boot(image)
    except (Fault, NotModelled) as reason:
        return FirstEvent(Kind.OPEN, detail=f"initial state: {reason}")
    start, retired = m.rip, m.retired
    try:
        while m.cpl == 3:
            if m.retired >= image.limit:
                return FirstEvent(Kind.OPEN, detail="no event")
            start, retired = m.rip, m.retired
            step(m)
    except Ended:
        return replace(_event(m, image, Kind.END, rip=start, rflags=m.rflags | RF), start=start, retired=retired)
    except Shutdown:
        return FirstEvent(Kind.OPEN, detail="shutdown")
    except NotModelled as reason:
        return FirstEvent(Kind.OPEN, detail=reason.what)
    return replace(_left(m, image), start=start, retired=retired)


def _left(m: Machine, image: Image) -> FirstEvent:
    """User mode has been left: by a delivery, or by SYSCALL."""
    if m.last_fault is not None and m.last_fault.rule is UMIP_RULE:
        return FirstEvent(Kind.OPEN, detail="an instruction that CR4.UMIP forbids, and Linux answers for")
    if m.deliveries and m.deliveries[0].vector == INT_80:
        return FirstEvent(Kind.OPEN, detail="int 0x80 is the kernel's system call")
    return _delivered(m, image) if m.deliveries else _called(m, image)


def _called(m: Machine, image: Image) -> FirstEvent:
    """SYSCALL: RIP and RFLAGS are in RCX and R11 (SDM Vol. 2B, SYSCALL); the selectors as Linux shows them, whatever they were."""
    return _event(m, image, Kind.CALL, rip=m.gpr[RCX], rflags=m.gpr[R11], cs=USER_CS, ss=USER_DS)


def _delivered(m: Machine, image: Image) -> FirstEvent:
    """What was delivered, from the frame that it pushed."""
    delivery = m.deliveries[0]
    frame = delivery.frame + (0 if delivery.error_code is None else 8)
    rip, cs, rflags, rsp, ss = (load_implicit(m, frame + 8 * n, 8) for n in range(5))
    seen = _event(m, image, Kind.EXCEPTION, rip=rip, rflags=rflags, rsp=rsp, cs=cs, ss=ss)
    return replace(seen, vector=delivery.vector, error_code=delivery.error_code, cr2=m.cr2 if delivery.vector == Vector.PF else None)


def _event(m: Machine, image: Image, kind: Kind, **saved: int) -> FirstEvent:
    """The machine now, with what was saved in place of what the handler has."""
    now = dict(zip(SEGMENTS, (segment.selector for segment in m.segments), strict=True))
    registers = dict(zip(GPRS, m.gpr, strict=True)) | now | {"fs_base": m.fs.base, "gs_base": m.gs.base} | saved
    memory = {frame: bytes(m.pages[frame]) for frame in sorted(m.copied) if frame in _USER and m.pages[frame] != image.pages[frame]}
    return FirstEvent(
        kind,
        registers=tuple(registers[name] for name in FIELDS),
        memory=memory,
        undefined=m.undefined,
        undefined_words=aligned(m.undefined_words),
    )
