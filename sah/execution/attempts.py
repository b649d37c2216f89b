"""Computing composed experiments in this process: claim, run, retry."""

from collections.abc import Sequence
from contextlib import ExitStack

from omegaconf import DictConfig

from sah.execution.arm import Arm, Outcome
from sah.execution.run import run
from sah.execution.signals import signals_interrupt
from sah.models.loading.kept_model import KeptModel
from sah.results import Result


def compute(config: DictConfig, overrides: Sequence[str]) -> Result:
    """Compute one experiment and return its result; a complete one is not computed again.

    Raises:
        Exception: whatever ended the experiment, after `retries` further attempts if it was
            retryable. It is in error.json too, unless another process owns the directory.
    """
    (outcome,) = compute_arms([(config, overrides)])
    if outcome.error is not None:
        raise outcome.error
    assert outcome.result is not None, "an outcome has a result or an error"
    return outcome.result


def compute_arms(
    experiments: Sequence[tuple[DictConfig, Sequence[str]]], models: KeptModel | None = None
) -> list[Outcome]:
    """Compute experiments that differ only in sparse attention and metric logging.

    They share one model and one prefill per context. Each has its own directory, claim and
    outcome; a failure of one does not affect the others.

    Args:
        experiments: configurations with the overrides as typed, at least one.
        models: holds the model before and afterwards; by default it is loaded and freed here.

    Returns:
        The outcomes, in order.
    """
    models = KeptModel() if models is None else models
    with signals_interrupt(), ExitStack() as entered:
        arms = [entered.enter_context(Arm(*experiment)) for experiment in experiments]
        while pending := [arm for arm in arms if arm.outcome is None]:
            try:
                for arm in pending:
                    arm.begin_attempt()
                if at_work := [arm for arm in pending if arm.is_at_work]:
                    run(at_work, models)
            except BaseException as error:
                # Interrupted: every arm without an outcome says so in its error.json.
                for arm in pending:
                    if arm.outcome is None:
                        arm.store.record_error(error)
                raise
            if any(arm.outcome is None for arm in arms):
                # Tried again with a model that nothing has failed on.
                models.forget()
    return [arm.outcome for arm in arms if arm.outcome is not None]
