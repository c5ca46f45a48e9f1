"""One training step: a batch of the step's own, its loss terms, their gradient, one update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spf_lite.method.control_map import ControlMap
from spf_lite.method.losses import objective
from spf_lite.training.loss_meter import LossMeter
from spf_lite.training.optimisation import Optimisation
from spf_lite.training.passes import Passes
from spf_lite.training.stage2 import Stage2


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        history: one dictionary per step, the lines of the log.
        cpu_seconds: process CPU time, over all sessions of a resumed run. Wall-clock time would mostly say what else
            the machine was doing.
    """

    history: list[dict[str, Any]]
    cpu_seconds: float


OnStep = Callable[[int, ControlMap | None], None]


def training_step(
    step: int, passes: Passes, stage2: Stage2, optimisation: Optimisation, num_train_timesteps: int
) -> tuple[dict[str, Any], dict[str, float], ControlMap | None]:
    """One step of the optimiser.

    Args:
        step: its number; tells the stage.
        passes: the forward passes of this process.
        stage2: the items, and in stage 2 scales and extractor.
        optimisation: moves the parameters.
        num_train_timesteps: of the scheduler.

    Returns:
        its line of the log; the mean of each loss term; the control map of the last part, if one was made.

    Raises:
        TrainingDivergedError: if a loss or the gradient is not finite.
    """
    config, trained = passes.config, optimisation.trained
    whole = passes.draw(step, stage2.custom, stage2.references, num_train_timesteps)
    in_stage2 = step >= config.stage1_steps
    counts = passes.counts(whole, num_train_timesteps, in_stage2)
    # In stage 2 each term has its weight and its scale; in stage 1 nothing is scaled.
    weights = passes.config_of(in_stage2)
    factors = {name: weights.weight(name) * (stage2.scales[name] if in_stage2 else 1.0) for name in counts}
    meter = LossMeter(list(counts), num_train_timesteps)
    control = None
    optimisation.optimizer.zero_grad(set_to_none=True)
    for part in passes.share(whole):
        with passes.run(part, in_stage2, stage2.extractor) as found:
            meter.add(step, found.terms, part.timesteps)
            loss = objective(found.terms, factors, counts)
            penalty = trained.penalty()
            passes.accelerator.backward(loss if penalty is None else loss + penalty / passes.parts)
        control = found.control
    meter.reduce(passes.accelerator)
    means = meter.means()
    line = {
        "step": step,
        "stage": 2 if in_stage2 else 1,
        "timesteps": whole.timesteps.tolist(),
        "learning_rate": optimisation.learning_rate,
        **means,
        "loss": sum(factors[name] * value for name, value in means.items()),
        "by_timestep": meter.by_timestep(),
    }
    optimisation.update(step, whole.timesteps.tolist())
    return line, means, control
