"""Losses of predicted depths over the valid pixels of a batch.

Shapes: prediction and truth in metres and the mask valid, (B, 1, H, W); a loss is a scalar,
the mean over all valid pixels of the batch.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from imex_experiments.tasks.depth_metrics import VALID, Range

HUBER_DELTA = 0.5
"""The error in metres at which the Huber loss turns from quadratic to linear."""

SILOG_VARIANCE_FOCUS = 0.85
"""The weight lambda of (mean e)^2 in the scale-invariant loss."""


def l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return mean (d - z)^2 / 2, the misfit of IMEXnet, sec. 5.2, per pixel."""
    return F.mse_loss(prediction, truth) / 2


def huber(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the Huber loss: quadratic for errors below HUBER_DELTA, linear above."""
    return F.huber_loss(prediction, truth, delta=HUBER_DELTA)


def scale_invariant_log(
    prediction: Tensor, truth: Tensor, limits: Range = VALID
) -> Tensor:
    """Return mean e^2 - 0.85 (mean e)^2, e = log d - log z (Eigen et al. 2014, eq. 4)."""
    e = prediction.clamp(*limits).log() - truth.log()
    return e.square().mean() - SILOG_VARIANCE_FOCUS * e.mean().square()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": l2,
    "l1": F.l1_loss,
    "huber": huber,
    "silog": scale_invariant_log,
}


def depth_loss(
    name: str, prediction: Tensor, truth: Tensor, valid: Tensor, limits: Range = VALID
) -> Tensor:
    """Return the named loss; 0 with a zero gradient if no pixel is valid.

    `limits` is the range to which logarithms are clamped, in metres.
    """
    if not valid.any():
        return (prediction * 0).sum()
    if name == "silog":
        return scale_invariant_log(prediction[valid], truth[valid], limits)
    return LOSSES[name](prediction[valid], truth[valid])


def require_loss(name: str) -> str:
    """Return the name of a loss; ValueError with the choices for an unknown one."""
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}")
    return name
