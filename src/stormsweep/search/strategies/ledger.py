"""Trials as Optuna's samplers see them, in memory, and changed by nobody else."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


class Ledger(BaseStorage):
    """A storage of one study that can forget: what was asked and not taken leaves no trace.

    Attributes
    ----------
    trials : list of FrozenTrial
        The trials, each at the place of its number.
    """

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self._directions: list[StudyDirection] = []
        self._attributes: dict[str, Any] = {}

    def forget(self, length: int) -> None:
        """Drop the trials from a number on, and what samplers noted about the study."""
        del self.trials[length:]
        self._attributes.clear()

    def add(
        self,
        state: TrialState,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        values: Sequence[float] | None = None,
    ) -> FrozenTrial:
        """Append a trial and return it."""
        number = len(self.trials)
        trial = FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=values,
            datetime_start=None,
            datetime_complete=None,
            params=params,
            distributions=distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=number,
        )
        self.trials.append(trial)
        return trial

    # From here on: what Optuna asks of a storage, as it documents it.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Take the directions of the one study."""
        self._directions = list(directions)
        return 0

    def delete_study(self, study_id: int) -> None:
        """Forget everything."""
        self.forget(0)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Not asked of this storage."""
        raise NotImplementedError

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something about the study, until `forget`."""
        self._attributes[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the one study's id."""
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the one study's name."""
        return "stormsweep"

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return which way each objective is better."""
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what samplers noted about the study."""
        return self._attributes

    def get_all_studies(self) -> list[FrozenStudy]:
        """Not asked of this storage."""
        raise NotImplementedError

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Append a trial that runs."""
        return self.add(TrialState.RUNNING, {}, {}).number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Note a sampled parameter."""
        trial = self.trials[trial_id]
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Not asked of this storage."""
        raise NotImplementedError

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Not asked of this storage."""
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Not asked of this storage."""
        raise NotImplementedError

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something about a trial."""
        self.trials[trial_id].system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial itself, no copy."""
        return self.trials[trial_id]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return trials themselves, no copies."""
        return [one for one in self.trials if states is None or one.state in states]
