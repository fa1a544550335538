"""Terms of the network's ODE: the right-hand side f, the operator L, and their weights."""

from imex_experiments.terms.constraints import Bounded, SpectralNorm
from imex_experiments.terms.diffusion import (
    Diffusion,
    GramDiffusion,
    IdentityDiffusion,
    ImplicitConv2d,
    LaplacianDiffusion,
    NormedGramDiffusion,
)
from imex_experiments.terms.layers import (
    Bottleneck,
    ContextLayer,
    Convolution,
    DepthwiseLayer,
    DoubleLayer,
    ReleasedLayer,
    SkewSymmetricLayer,
    SymmetricLayer,
)

__all__ = [
    "Bottleneck",
    "Bounded",
    "ContextLayer",
    "Convolution",
    "DepthwiseLayer",
    "Diffusion",
    "DoubleLayer",
    "GramDiffusion",
    "IdentityDiffusion",
    "ImplicitConv2d",
    "LaplacianDiffusion",
    "NormedGramDiffusion",
    "ReleasedLayer",
    "SkewSymmetricLayer",
    "SpectralNorm",
    "SymmetricLayer",
]
