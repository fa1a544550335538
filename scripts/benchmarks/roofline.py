"""What a step costs on paper: operations, bytes moved, and a machine that limits both.

An operation takes the longest of three times: its arithmetic, its traffic, its launch,
t = max(FLOPs / rate, bytes / bandwidth, launch) (Williams, Waterman and Patterson 2009).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

from imex_experiments.networks.cost import FFTS, KERNELS

CONVOLUTIONS, TRANSFORMS, OTHERS = "convolutions", "FFT", "norms, products, sums"
KINDS = (CONVOLUTIONS, TRANSFORMS, OTHERS)

FLOPS = {
    **flop_registry,
    **{op: shape_wrapper(f) for op, f in (FFTS | KERNELS).items()},
}
"""Operation -> its FLOPs, called with its arguments and `out_val`."""


@dataclass(frozen=True)
class Operation:
    """One call of a kernel: its kind, arithmetic, and least traffic."""

    kind: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class Machine:
    """Rates of one device: FLOP/s of products and of the rest, byte/s, seconds a launch."""

    name: str
    products: float
    vector: float
    bandwidth: float
    launch: float

    def seconds(self, operation: Operation) -> float:
        """The roofline's time of one operation."""
        rate = self.products if operation.kind == CONVOLUTIONS else self.vector
        return max(
            operation.flops / rate, operation.bytes / self.bandwidth, self.launch
        )

    def predict(self, operations: Iterable[Operation]) -> dict[str, float]:
        """Seconds by kind, one operation after the other."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for operation in operations:
            seconds[operation.kind] += self.seconds(operation)
        return seconds


def exchange_seconds(weights: int, devices: int, link: float) -> float:
    """Of the gradient's ring all-reduce in float32: 2 (N - 1) / N x 4 bytes a weight."""
    return 2 * (devices - 1) / devices * 4 * weights / link


def training_step(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """A forward and a backward pass, gradients of x and of all weights."""
    leaf = x.clone().requires_grad_()
    wanted = [leaf, *module.parameters()]

    def step() -> object:
        y = module(leaf)
        return torch.autograd.grad(y, wanted, grad_outputs=torch.ones_like(y))

    return step


def count_operations(job: Callable[[], object]) -> list[Operation]:
    """What a job does, kernel by kernel, when it is repeated: constants are made once.

    On the meta device it is counted without being done.
    Traffic is what an operation has to read and write at least, inputs and outputs once
    each; of an FFT once for each axis. Views and room for results cost nothing. Pointwise
    work counts no FLOPs: its traffic takes longer.
    """
    job()
    with _Counter() as counter:
        job()
    return counter.operations


def kept_bytes(job: Callable[[], object]) -> int:
    """What the forward passes of a job keep for their backward passes, weights included."""
    kept: dict[int, UntypedStorage] = {}  # alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        job()
    return sum(storage.nbytes() for storage in kept.values())


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if not (func.is_view or "empty" in name or "detach" in name):
            packet = func.overloadpacket
            formula = FLOPS.get(packet, lambda *_, **__: 0)
            flops = formula(*args, **(kwargs or {}), out_val=result)
            traffic = sum(map(_bytes, tree_leaves((args, kwargs, result))))
            passes = len(args[1]) if packet in FFTS else 1
            self.operations.append(Operation(_kind(packet), flops, passes * traffic))
        return result


def _kind(packet: Any) -> str:
    if packet in FFTS or packet in KERNELS:
        return TRANSFORMS
    return CONVOLUTIONS if "convolution" in str(packet) else OTHERS


def _bytes(value: object) -> int:
    """Of the numbers that a tensor holds; one that is broadcast holds few."""
    if not isinstance(value, Tensor):
        return 0
    held = (n for n, step in zip(value.shape, value.stride(), strict=True) if step)
    return math.prod(held) * value.element_size()
