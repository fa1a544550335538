"""Add implicit steps to residual networks that were not built by this package.

A residual block Y + f(Y) is a forward Euler step. `imexify` turns it into an IMEX step.
"""

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from imex_experiments.terms.diffusion import ImplicitConv2d

SUMS = (operator.add, operator.iadd, torch.add)
METHODS = ("add", "add_")


def imexify(
    module: nn.Module,
    h: float = 1.0,
    alpha: float = 1.0,
    where: str = "*",
    boundary: str = "periodic",
) -> nn.Module:
    """Return a copy whose residual sums Y + f(Y) are Y + h (I + h alpha B^T B)^-1 f(Y).

    Each sum gets a trainable B with 9 weights per channel. All other weights keep their
    names and values. With alpha = 0 and h = 1 the copy computes what `module` computes.

    `where` is a pattern that selects submodules by name: "layer[34].*" is the last two stages
    of a torchvision ResNet, "" is the module itself. Only sums in the forward method of a
    selected submodule are changed. That forward is traced once by torch.fx, so a decision
    that it makes by reading `self.training` is frozen.

    A sum is residual if both summands depend on a common input and more operations lead to
    one summand than to the other. The summand with more operations is f(Y). The other one,
    Y or a projection of Y, is not changed.

    Raises ValueError if no residual sum is found, if a selected submodule already has an
    implicit step, or if no convolution or norm before a sum gives its number of channels.
    Source: IMEXnet eq. 6.
    """
    changed = copy.deepcopy(module)
    make_step = partial(ImplicitConv2d, h=h, alpha=alpha, boundary=boundary)
    found, opaque = False, []
    for name, part in list(changed.named_modules()):
        if not fnmatchcase(name, where) or not list(part.children()):
            continue
        try:
            graph = _OneForward().trace(part)
        except Exception as error:  # foreign code may raise anything on a proxy
            opaque.append(f"{name or 'the module itself'} ({type(error).__name__})")
            continue
        residuals = list(_residuals(graph, part, name))
        if not residuals:
            continue
        _refuse_second_step(part, name)
        found, rewritten = True, _rewritten(part, graph, residuals, make_step, h)
        if name:
            changed.set_submodule(name, rewritten)
        else:
            changed = rewritten
    if not found:
        unread = f"; not traceable: {', '.join(opaque)}" if opaque else ""
        raise ValueError(
            f"no residual addition in {type(module).__name__}, where={where!r}{unread}"
        )
    return changed


class _OneForward(fx.Tracer):
    """A tracer of one module's forward, which records submodules as single calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _refuse_second_step(part: nn.Module, name: str) -> None:
    """Raise ValueError if a module that is to be changed has an implicit step already."""
    if any(isinstance(child, ImplicitConv2d) for child in part.children()):
        raise ValueError(
            f"{name or 'the module itself'} has an implicit step already; call imexify "
            "once, or choose other submodules by `where`"
        )


@dataclass(frozen=True)
class _Past:
    """The computation that leads to a value of the graph."""

    inputs: frozenset[fx.Node]
    """The arguments of the forward, and the weights, that the value depends on."""
    operations: int
    """The number of operations on the longest path from an input."""
    channels: int | None
    """The channels of the last convolution or norm on the way; None without one."""


def _residuals(
    graph: fx.Graph, part: nn.Module, name: str
) -> Iterator[tuple[fx.Node, fx.Node, int]]:
    """Yield each residual sum, its summand f(Y), and the number of channels of f(Y).

    Nodes come in the order of execution, so one pass sees every node after its sources.
    Raises ValueError with the name of the module if the channels are unknown.
    """
    past: dict[fx.Node, _Past] = {}
    for node in graph.nodes:
        past[node] = _past(
            node, [past[source] for source in node.all_input_nodes], part
        )
        summands = _summands(node)
        if summands is None:
            continue
        first, second = (past[summand] for summand in summands)
        longer = first.operations - second.operations
        if longer and first.inputs & second.inputs:
            branch = summands[0] if longer > 0 else summands[1]
            if (channels := past[branch].channels) is None:
                raise ValueError(
                    f"{name or type(part).__name__}: the channels of its residual are "
                    "unknown, no convolution or norm precedes the sum"
                )
            yield node, branch, channels


def _past(node: fx.Node, sources: list[_Past], part: nn.Module) -> _Past:
    """Return the past of a node, given the pasts of its arguments."""
    if not sources:
        return _Past(frozenset([node]), 0, None)
    inputs = frozenset().union(*(source.inputs for source in sources))
    before = max(source.operations for source in sources)
    channels = next((s.channels for s in sources if s.channels is not None), None)
    if node.op != "call_module":
        return _Past(inputs, before + 1, channels)
    modules = list(part.get_submodule(str(node.target)).modules())
    return _Past(inputs, before + _operations(modules), _channels(modules) or channels)


def _operations(modules: list[nn.Module]) -> int:
    """Return the number of modules without children that compute something."""
    idle = (nn.Identity, nn.Sequential)
    return sum(not list(m.children()) and not isinstance(m, idle) for m in modules)


def _channels(modules: list[nn.Module]) -> int | None:
    """Return the channels of the last convolution or norm; None without one."""
    for module in reversed(modules):
        for attribute in ("num_features", "out_channels"):
            if isinstance(number := getattr(module, attribute, None), int):
                return number
    return None


def _summands(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two values that a node adds; None for any other node."""
    called = node.op == "call_function" and node.target in SUMS
    method = node.op == "call_method" and node.target in METHODS
    first, second = (*node.args, None, None)[:2]
    if not (called or method):
        return None
    if not (isinstance(first, fx.Node) and isinstance(second, fx.Node)):
        return None
    return first, second


def _rewritten(
    part: nn.Module,
    graph: fx.Graph,
    residuals: list[tuple[fx.Node, fx.Node, int]],
    make_step: Callable[[int], ImplicitConv2d],
    h: float,
) -> fx.GraphModule:
    """Return a module with h (I + h L)^-1 f(Y) in its residual sums.

    Other uses of f(Y) are not changed.
    """
    for index, (node, branch, channels) in enumerate(residuals):
        part.add_module(f"implicit{index}", make_step(channels))
        with graph.inserting_before(node):
            solved: Any = graph.call_module(f"implicit{index}", (branch,))
            if h != 1:
                solved = graph.call_function(operator.mul, (h, solved))
        node.replace_input_with(branch, solved)
    return fx.GraphModule(part, graph, type(part).__name__)
