"""Scores of predicted depths, for each image over its valid pixels.

Shapes: prediction and truth (B, 1, H, W), metres; every score (B,).
"""

import torch
from torch import Tensor

Range = tuple[float, float]

VALID: Range = (1e-3, 10.0)
"""The valid range in metres unless the data state another: nearest < truth < farthest."""

EIGEN_CROP = (0.09375, 0.98125, 0.0640625, 0.9390625)
"""Top, bottom, left and right as shares of the image: rows 45 to 471 of 480, columns 41
to 601 of 640 (Eigen et al. 2014)."""

SILOG_LAMBDA, SILOG_SCALE = 1.0, 100.0

SCORES = (
    *("misfit", "rmse", "abs_rel", "sq_rel", "rmse_log", "log10"),
    *("delta1", "delta2", "delta3", "silog"),
)


def valid_pixels(
    truth: Tensor, eigen_crop: bool = False, limits: Range = VALID
) -> Tensor:
    """Return a mask (B, 1, H, W): the truth is in the valid range (and in Eigen's crop)."""
    valid = (truth > limits[0]) & (truth < limits[1])
    if eigen_crop:
        height, width = truth.shape[-2:]
        top, bottom, left, right = EIGEN_CROP
        inside = torch.zeros_like(valid)
        rows = slice(round(top * height), round(bottom * height))
        inside[..., rows, slice(round(left * width), round(right * width))] = True
        valid &= inside
    return valid


def depth_scores(
    prediction: Tensor, truth: Tensor, valid: Tensor, limits: Range = VALID
) -> dict[str, Tensor]:
    """Return the scores of each image, name -> (B,); NaN if no pixel is valid.

    d is the prediction, c is d clamped to the valid range, z the truth, e = ln c - ln z.
    Means are over the valid pixels of an image.

    - misfit = mean (d - z)^2 / 2, the L2 misfit of IMEXnet per pixel
    - rmse = sqrt(mean (d - z)^2), abs_rel = mean |d - z| / z, sq_rel = mean (d - z)^2 / z
    - rmse_log = sqrt(mean e^2), log10 = mean |log10 c - log10 z|
    - delta<k> = share of pixels with max(c/z, z/c) < 1.25^k
    - silog = 100 sqrt(mean e^2 - lambda (mean e)^2), lambda = 1 (Eigen et al. 2014; the
      factor 100 is KITTI's)
    """
    d = prediction.double()
    z = torch.where(valid, truth, torch.ones_like(truth)).double()
    c = d.clamp(*limits)
    count = valid.flatten(1).sum(1)

    def mean(values: Tensor) -> Tensor:
        total = torch.where(valid, values, torch.zeros_like(values)).flatten(1).sum(1)
        return total / count  # 0 / 0 is NaN

    squared, e = (d - z).square(), c.log() - z.log()
    ratio = torch.maximum(c / z, z / c)
    spread = mean(e.square()) - SILOG_LAMBDA * mean(e).square()
    values = (
        mean(squared) / 2,
        mean(squared).sqrt(),
        mean((d - z).abs() / z),
        mean(squared / z),
        mean(e.square()).sqrt(),
        mean((c.log10() - z.log10()).abs()),
        *(mean((ratio < 1.25**k).double()) for k in (1, 2, 3)),
        SILOG_SCALE * spread.clamp_min(0).sqrt(),
    )
    return dict(zip(SCORES, values, strict=True))
