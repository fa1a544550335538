"""An operator L: its eigenvalues, from which `L(y)` and `L.solve(y, h)` follow."""

from torch import Tensor

from imex_experiments.operators.stencils import even_symbol, laplacian
from imex_experiments.terms import Diffusion


class FractionalDiffusion(Diffusion):
    """The operator L = alpha (-Laplacian)^power, without weights."""

    def __init__(
        self,
        channels: int,
        alpha: float,
        boundary: str = "periodic",
        power: float = 0.5,
    ) -> None:
        super().__init__(channels, alpha, boundary)
        if power <= 0:
            raise ValueError(f"power must be > 0, got {power}")
        self.power = power

    def symbol(self, size: tuple[int, int]) -> Tensor:
        waves = even_symbol(laplacian()[None], size, self.boundary)
        return waves.clamp_min(0) ** self.power
