"""Predict the time of a training step from its operations, by the roofline model.

The time of an operation is the longest of arithmetic, memory traffic and launch,
t = max(FLOPs / rate, bytes / bandwidth, launch). Source: Williams, Waterman and Patterson
(2009).
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
"""Operation -> formula of its FLOPs, called with its arguments and `out_val`."""


@dataclass(frozen=True)
class Operation:
    """A call of a kernel: its kind, FLOPs and least memory traffic."""

    kind: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class Machine:
    """A device: FLOP/s of products and of the rest, byte/s, and seconds per launch."""

    name: str
    products: float
    vector: float
    bandwidth: float
    launch: float

    def seconds(self, operation: Operation) -> float:
        """Return the time of one operation."""
        rate = self.products if operation.kind == CONVOLUTIONS else self.vector
        return max(
            operation.flops / rate, operation.bytes / self.bandwidth, self.launch
        )

    def predict(self, operations: Iterable[Operation]) -> dict[str, float]:
        """Return the time of operations one after the other, in seconds by kind."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for operation in operations:
            seconds[operation.kind] += self.seconds(operation)
        return seconds


def exchange_seconds(weights: int, devices: int, link: float) -> float:
    """Return the time of a ring all-reduce of float32 gradients on N devices.

    Each device sends 2 (N - 1) / N x 4 bytes per weight.
    """
    return 2 * (devices - 1) / devices * 4 * weights / link


def training_step(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a job: forward and backward pass, with gradients of x and of all weights."""
    leaf = x.clone().requires_grad_()
    wanted = [leaf, *module.parameters()]

    def step() -> object:
        y = module(leaf)
        return torch.autograd.grad(y, wanted, grad_outputs=torch.ones_like(y))

    return step


def count_operations(job: Callable[[], object]) -> list[Operation]:
    """Return the operations of the second run of a job, when constants are cached.

    A job on the meta device is counted without being computed. Traffic is the least that
    an operation can read and write: inputs and outputs once each, for an FFT once for each
    axis. Views and allocations have none. Pointwise operations count no FLOPs, because
    their traffic takes longer.
    """
    job()
    with _Counter() as counter:
        job()
    return counter.operations


def kept_bytes(job: Callable[[], object]) -> int:
    """Return the bytes kept for the backward passes of a job, weights included."""
    # Storages are kept alive, so that no address is used twice.
    kept: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        job()
    return sum(storage.nbytes() for storage in kept.values())


class _Counter(TorchDispatchMode):
    """A list of the operations in its body."""

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
    """Return the bytes of the stored numbers of a tensor, without broadcast copies."""
    if not isinstance(value, Tensor):
        return 0
    held = (n for n, step in zip(value.shape, value.stride(), strict=True) if step)
    return math.prod(held) * value.element_size()
