"""Memory that was freed, back to the system. The C library keeps it for the next need, which may come days later."""

import ctypes


def give_back() -> None:
    """Does nothing where the C library has no `malloc_trim` (glibc has)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
