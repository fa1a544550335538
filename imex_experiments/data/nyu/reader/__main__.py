"""Parse .mat files in a process of its own: `python reader '<request in JSON>'`.

A damaged file can crash or stall the libraries that parse it, so `file.py` runs this folder
as a process and watches it. Its files import each other alone, and nothing else of this
package, so that it starts in 0.15 s. The layout is checked before any pixel is read.

Every response on stdout is one line of JSON; for a frame its bytes follow. The last one is
{"done": true} or {"refused": "<reason>"}.

Shapes: N frames of H x W pixels. HDF5 shows the axes of MATLAB reversed: images (N, 3, W, H),
depths (N, W, H). Sent are image (3, H, W) uint8 and depth (H, W) float32, metres.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator

import numpy as np
from hdf5 import describe_hdf5, frames_hdf5
from refusal import Arrays, RefusedError, Response
from v5 import describe_v5, frames_v5, official_split

MEMORY = 2**31
"""Bytes that this process may allocate, since a damaged length field may hold any."""

RESPONSES: dict[str, Callable[..., Iterator[Response | Arrays]]] = {
    "describe_v7.3": describe_hdf5,
    "frames_v7.3": frames_hdf5,
    "describe_v5": describe_v5,
    "frames_v5": frames_v5,
    "official_split": official_split,
}


def send(response: Response, arrays: Arrays = ()) -> None:
    """Write a response to stdout, with the bytes of its arrays."""
    out = sys.stdout.buffer
    out.write(json.dumps(response).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array).data)
    out.flush()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    request = json.loads(sys.argv[1])
    try:
        for found in RESPONSES[request.pop("kind")](**request):
            if isinstance(found, dict):
                send(found)
            else:
                send({"shapes": [array.shape for array in found]}, found)
        send({"done": True})
    except RefusedError as error:
        send({"refused": str(error)})
    except MemoryError:
        send({"refused": f"needs more than {MEMORY:,} bytes at once; it is damaged"})
    except Exception as error:  # the libraries raise nearly anything for a damaged file
        reason = " ".join(ascii(str(error))[1:-1].split())[:200]
        send({"refused": f"damaged, it cannot be read ({reason})"})


if __name__ == "__main__":
    main()
