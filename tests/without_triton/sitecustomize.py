"""Hide Triton from every process that has this folder on its path."""

import sys

sys.modules["triton"] = None  # type: ignore[assignment]
