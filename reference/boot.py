"""The two ends of a run: a machine from its image, an observation from the machine."""

from __future__ import annotations

from reference.compatibility import check_mode
from reference.descriptors import Segment
from reference.image import SEGMENTS, End, Image, Observation, Undefined
from reference.instructions.tables import system_segment
from reference.machine import FS, GS, Machine, access_rules_changed, set_cpl
from reference.memory import load_implicit
from reference.segmentation import descriptor_address, is_null, read_descriptor


def boot(image: Image) -> Machine:
    """The machine that `image` describes, hidden parts of segment registers loaded from its descriptor tables."""
    m = Machine(image)
    registers = image.registers
    m.ldtr = _initial_system_segment(m, registers["ldtr"])
    m.tr = _initial_system_segment(m, registers["tr"])
    for name in SEGMENTS:
        m.segments.append(_initial_segment(m, registers[name]))
    m.segments[FS].base = registers["fs_base"]
    m.segments[GS].base = registers["gs_base"]
    set_cpl(m, m.cs.selector & 3)
    access_rules_changed(m)
    check_mode(m)
    return m


def _initial_segment(m: Machine, selector: int) -> Segment:
    return Segment.null(selector) if is_null(selector) else Segment.from_descriptor(selector, read_descriptor(m, selector))


def _initial_system_segment(m: Machine, selector: int) -> Segment:
    address = None if is_null(selector) else descriptor_address(m, selector, 16)
    if address is None:
        return Segment.null(selector)
    return system_segment(selector, load_implicit(m, address, 8), load_implicit(m, address + 8, 8))


def registers_of(m: Machine) -> tuple[int, ...]:
    """The registers in the order of `image.REGISTERS`."""
    return (
        *m.gpr,
        m.rip,
        m.rflags,
        *(segment.selector for segment in m.segments),
        m.ldtr.selector,
        m.tr.selector,
        m.fs.base,
        m.gs.base,
        m.kernel_gs_base,
        m.cr0,
        m.cr2,
        m.cr3,
        m.cr4,
        m.cr8,
        m.efer,
        *m.dr,
        m.dr6,
        m.dr7,
        m.star,
        m.lstar,
        m.cstar,
        m.sfmask,
        m.sysenter_cs,
        m.sysenter_esp,
        m.sysenter_eip,
        m.gdtr_base,
        m.gdtr_limit,
        m.idtr_base,
        m.idtr_limit,
    )


def observe(m: Machine, image: Image, end: End, detail: str = "") -> Observation:
    """What can be seen of the machine now: registers, and the pages whose bytes are not the image's."""
    memory = {
        frame: bytes(page) for frame in sorted(m.copied) if (page := m.pages[frame]) != image.pages[frame] and frame not in image.scratch
    }
    undefined = Undefined(m.undefined, aligned(m.undefined_words), m.undefined_dr6)
    return Observation(end, registers_of(m), memory, tuple(m.deliveries), detail, m.retired, undefined)


def aligned(images: dict[int, int]) -> dict[int, int]:
    """The undefined bits of RFLAGS images, by the aligned words of memory that hold them."""
    words: dict[int, int] = {}
    for address, bits in images.items():
        for place, part in ((address, bits & 0xFF), (address + 1, bits >> 8)):
            if part:
                words[place & ~7] = words.get(place & ~7, 0) | part << 8 * (place & 7)
    return words
