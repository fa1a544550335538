"""Implicit steps in networks that were not made here.

A residual block y + f(y) is a forward Euler step; `imexify` makes an IMEX step of it.
"""

import copy
import operator
from fnmatch import fnmatchcase
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
    """A copy in which residual additions Y + f(Y) are Y + h (I + h alpha B^T B)^-1 f(Y).

    `where` is a pattern for the names of the submodules whose own forward is looked at:
    "layer[34].*" for the last two stages of a torchvision ResNet, "" for the module itself.
    All weights and their names are kept; each addition gets a `B` of 9 weights a channel.
    alpha = 0 and h = 1 change nothing. Of two summands with a common origin f(Y) is the one
    that more was done to; the other, Y or a projection of it, stays. What a forward decides
    by `self.training` itself, not in a submodule, is decided here once.
    ValueError if no residual addition is found, or if its channels are not known because
    no convolution or norm stands before it. Source: IMEXnet eq. 6.
    """
    changed = copy.deepcopy(module)
    additions, opaque = 0, []
    for name, part in list(changed.named_modules()):
        if not fnmatchcase(name, where) or not list(part.children()):
            continue
        try:
            graph = _OneForward().trace(part)
        except Exception as error:  # whatever a foreign forward raises for a proxy
            opaque.append(f"{name or 'the module itself'} ({type(error).__name__})")
            continue
        residuals = [r for r in map(_residual, graph.nodes) if r is not None]
        for index, (node, branch) in enumerate(residuals):
            channels = _channels(part, branch, name)
            step = ImplicitConv2d(channels, h, alpha, boundary=boundary)
            _insert(graph, part, node, branch, f"implicit{index}", step, h)
        if residuals:
            rewritten = fx.GraphModule(part, graph, type(part).__name__)
            if name:
                changed.set_submodule(name, rewritten)
            else:
                changed = rewritten
        additions += len(residuals)
    if additions == 0:
        unread = f"; not traceable: {', '.join(opaque)}" if opaque else ""
        raise ValueError(
            f"no residual addition in {type(module).__name__}, where={where!r}{unread}"
        )
    return changed


class _OneForward(fx.Tracer):
    """Sees what a module's own forward does; its submodules are called as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _residual(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The addition and its f(Y), None for nodes that are none."""
    called = node.op == "call_function" and node.target in SUMS
    method = node.op == "call_method" and node.target in METHODS
    first, second = (*node.args, None, None)[:2]
    if not (called or method):
        return None
    if not (isinstance(first, fx.Node) and isinstance(second, fx.Node)):
        return None
    origins = _origins(first), _origins(second)
    if not origins[0] & origins[1]:
        return None
    more = len(origins[0]) - len(origins[1])
    return None if more == 0 else (node, first if more > 0 else second)


def _origins(node: fx.Node) -> set[fx.Node]:
    """The node and all that it was made of."""
    found = {node}
    for source in node.all_input_nodes:
        found |= _origins(source)
    return found


def _channels(part: nn.Module, branch: fx.Node, name: str) -> int:
    """Those of the last convolution or norm on the way to f(Y)."""
    node: fx.Node | None = branch
    while node is not None:
        if node.op == "call_module":
            for module in reversed(
                list(part.get_submodule(str(node.target)).modules())
            ):
                for attribute in ("num_features", "out_channels"):
                    if isinstance(getattr(module, attribute, None), int):
                        return getattr(module, attribute)
        node = next(iter(node.all_input_nodes), None)
    raise ValueError(
        f"{name or type(part).__name__}: no convolution or norm tells the channels of "
        "its residual"
    )


def _insert(
    graph: fx.Graph,
    part: nn.Module,
    node: fx.Node,
    branch: fx.Node,
    name: str,
    step: ImplicitConv2d,
    h: float,
) -> None:
    """Put h S f(Y) in the place of f(Y), in this addition alone."""
    part.add_module(name, step)
    with graph.inserting_before(node):
        solved: Any = graph.call_module(name, (branch,))
        if h != 1:
            solved = graph.call_function(operator.mul, (h, solved))
    node.replace_input_with(branch, solved)
