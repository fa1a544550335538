"""List the published experiments as sweeps of train.py, with the published numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """Published numbers of a network: trainable weights, and its score if given."""

    parameters: int
    score: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep of train.py with some `overrides`, repeated over the seeds."""

    name: str
    title: str
    overrides: tuple[str, ...]
    published: Mapping[str, Published] = field(default_factory=dict)


TABLE1 = "experiment=qtips_table1"
UNET = ("model=unet", "model.widths=[56,112,168,224]")
"""A U-Net with 2,664,312 weights, near the number of the published networks."""

PUBLISHED_RECIPE = (
    *("optimizer=sgd", "scheduler=constant"),
    *("data.batch_size=8", "trainer.max_epochs=200"),
)
OUR_RECIPE = (
    *("optimizer=adamw", "optimizer.lr=0.001", "scheduler=onecycle"),
    *("data.batch_size=16", "trainer.max_epochs=30"),
)
"""The recipe of the main job. Networks of this size get a tenth of its learning rate."""

FROM_LAPLACIAN = "model.diffusion.init=laplacian"
WIDTHS = "model.widths=[1,2,4],[2,3,6],[2,4,8],[3,5,10],[3,6,12],[4,8,16],[6,12,24]"

PARTS: Mapping[str, tuple[Sweep, ...]] = {
    "table1": (
        Sweep(
            "published",
            "Table 1, symmetric layers, published recipe",
            (TABLE1, "model=resnet,imexnet,diffusion_reaction"),
            {
                "resnet": Published(2_691_648, 0.741),
                "imexnet": Published(2_701_440, 0.926),
            },
        ),
        Sweep(
            "double",
            "Table 1, layers of two kernels (eq. 2), published recipe",
            (TABLE1, "model=resnet,imexnet", "model/layer=double"),
        ),
        Sweep(
            "released",
            "Table 1, the step of the released code, published recipe",
            ("experiment=qtips_released",),
        ),
        Sweep(
            "unet",
            "Table 1, a U-Net of that size, published recipe",
            (*UNET, *PUBLISHED_RECIPE),
        ),
        Sweep(
            "recipe",
            "Table 1, symmetric layers, our recipe",
            (
                TABLE1,
                "model=resnet,imexnet",
                "model.alpha=100",
                FROM_LAPLACIAN,
                *OUR_RECIPE,
            ),
        ),
        Sweep(
            "recipe_reaction",
            "Table 1, diffusion-reaction, our recipe",
            (
                TABLE1,
                "model=diffusion_reaction",
                "model.alpha=10",
                FROM_LAPLACIAN,
                *OUR_RECIPE,
            ),
        ),
        Sweep(
            "recipe_unet",
            "Table 1, a U-Net of that size, our recipe",
            (*UNET, *OUR_RECIPE),
        ),
    ),
    "nyu": (
        Sweep(
            "kitchen",
            "Kitchens of NYU-Depth V2",
            ("experiment=nyu_kitchen", "model=resnet_depth,imexnet_depth"),
            {"resnet_depth": Published(506_928)},
        ),
    ),
    "smallest": (
        Sweep(
            "widths",
            "The smallest IMEXnet for 0.95 and 0.99",
            ("model=imexnet", WIDTHS),
        ),
    ),
}
"""Part of the reproduction -> its sweeps."""

TARGETS = (0.95, 0.99)
"""Values of mean IoU for which the smallest network is searched."""
