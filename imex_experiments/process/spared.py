"""Leave out an import of other packages that takes a second and is not needed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

UNUSED = "scipy.signal"


class _Unused(ModuleType):
    """Stand for the module until more of it is used than torchmetrics uses."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks
            raise AttributeError(name)
        sys.modules.pop(UNUSED, None)
        return getattr(import_module(UNUSED), name)


@contextmanager
def without_unused() -> Iterator[None]:
    """Import torchmetrics in the body, which Lightning does, without scipy.signal.

    torchmetrics imports it to define `scipy.signal.hamming`, if that is missing, for a package
    that measures speech. It keeps no reference.
    """
    if UNUSED in sys.modules:
        yield
        return
    sys.modules[UNUSED] = unused = _Unused(UNUSED)
    try:
        yield
    finally:
        if sys.modules.get(UNUSED) is unused:
            del sys.modules[UNUSED]
