"""Coverage counters of our own, beside those of the instrumented code: libFuzzer reads them after every run and clears them before.

Compiled code is invisible to atheris, and so is what Python code means. Its native module exports the two functions by which compilers
hand over counters; that is no interface it promises, so `selftest` shows at the start of every worker that it still works.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Final

SIZE: Final = 1 << 16
_BEFORE: Final = ("atheris.custom_mutator", "atheris.custom_crossover")
"""What libFuzzer finds its mutator and crossover by, if they are loaded before it is; otherwise it goes without them and
says nothing. `atheris.Setup` has to be given both, for libFuzzer calls what is loaded."""
_MULTIPLIER: Final = 0x9E37_79B9_7F4A_7C15
_HIGHEST: Final = 255
_LIBRARY: Final = "atheris.core_with_libfuzzer"
_FUNCTIONS: Final = {"counters": "__sanitizer_cov_8bit_counters_init", "pcs": "__sanitizer_cov_pcs_init"}


class Counters:
    """An array of saturating counters that libFuzzer watches; to be made after `atheris.Setup`, before `atheris.Fuzz`."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._array = (ctypes.c_uint8 * size)()
        self._places = (ctypes.c_size_t * (2 * size))()
        """(address, flags) of each counter; nothing is there, but libFuzzer wants as many as there are counters, none of them twice."""
        for index in range(size):
            self._places[2 * index] = ctypes.addressof(self._array) + index
        self._view = memoryview(self._array).cast("B")
        library = ctypes.CDLL(_library())
        for name, array in (("counters", self._array), ("pcs", self._places)):
            start = ctypes.addressof(array)
            getattr(library, _FUNCTIONS[name])(ctypes.c_void_p(start), ctypes.c_void_p(start + ctypes.sizeof(array)))

    def count(self, numbers: Iterable[int]) -> None:
        """Count each number once, in the counter that it falls into; a full counter stays full."""
        view, size = self._view, self._size
        for number in numbers:
            place = (number * _MULTIPLIER >> 40) % size
            if view[place] < _HIGHEST:
                view[place] += 1


def _library() -> str:
    """The file of libFuzzer, loaded."""
    usual = sys.getdlopenflags()
    sys.setdlopenflags(usual | os.RTLD_GLOBAL)
    for name in _BEFORE:
        importlib.import_module(name)
    sys.setdlopenflags(usual)
    return str(importlib.import_module(_LIBRARY).__file__)
