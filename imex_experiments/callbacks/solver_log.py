"""Log the convergence of the solvers of an implicit network, or stop if it fails."""

import logging
from typing import Any

import pytorch_lightning as pl
import torch

from imex_experiments.errors import NumericsError

log = logging.getLogger(__name__)

REMEDY = (
    "try a smaller model.h, another model.integrator.solver, "
    "or a larger model.integrator.tol or max_iterations"
)


class SolverLog(pl.Callback):
    """Log `solver/residual`, `solver/iterations` and `solver/converged` per step.

    They are the largest residual, the mean number of iterations and the share of samples
    that converged, over the solves of the forward pass; `solver/adjoint_*` are the same
    for the backward pass. Solves that do not converge are counted in the log at the end of
    an epoch. With `stop` the first one raises NumericsError (exit code 5), before the
    update. A network whose integrators have no `on_solve` is not logged.
    """

    def __init__(self, stop: bool = False) -> None:
        self.stop = stop
        self._solves: list[tuple[str, Any]] = []
        self._failed, self._total, self._worst = 0, 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"counts": [self._failed, self._total, self._worst]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._failed, self._total, self._worst = state_dict["counts"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._listen(pl_module, lambda which, info: self._solves.append((which, info)))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._listen(pl_module, None)

    @staticmethod
    def _listen(pl_module: Any, listener: Any) -> None:
        for module in pl_module.network.modules():
            integrator = getattr(module, "integrator", None)
            if integrator is not None and hasattr(integrator, "on_solve"):
                integrator.on_solve = listener

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._solves.clear()  # solves of a validation

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: Any
    ) -> None:
        for which, prefix in (("forward", ""), ("adjoint", "adjoint_")):
            infos = [info for name, info in self._solves if name == which]
            if infos:
                self._log(trainer, pl_module, prefix, infos)

    def _log(
        self, trainer: pl.Trainer, pl_module: Any, prefix: str, infos: list[Any]
    ) -> None:
        """Log the solves of one direction, and count those that did not converge."""
        residual = torch.cat([info.residual for info in infos])
        iterations = torch.cat([info.iterations for info in infos])
        converged = torch.cat([info.converged for info in infos])
        scalars = {
            "residual": residual.max(),
            "iterations": iterations.double().mean(),
            "converged": converged.double().mean(),
        }
        for name, value in scalars.items():
            pl_module.log(f"solver/{prefix}{name}", value.float())
        failed = int((~converged).sum())
        self._total += len(converged)
        self._failed += failed
        if failed:
            self._worst = max(self._worst, float(residual[~converged].max()))
        if failed and self.stop:
            raise NumericsError(
                f"{failed} of {len(converged)} solves did not converge at step "
                f"{trainer.global_step}, residual {self._worst:.2e}; {REMEDY}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._failed:
            log.warning(
                "%d of %d solves did not converge in epoch %d, largest residual %.2e; %s",
                self._failed,
                self._total,
                trainer.current_epoch + 1,
                self._worst,
                REMEDY,
            )
        self._failed, self._total, self._worst = 0, 0, 0.0
