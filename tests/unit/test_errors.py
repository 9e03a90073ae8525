"""Do errors carry the next step, and do they still when they have crossed to another process?"""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from concurrent.futures import Future
from typing import Any

import pytest
import ray.cloudpickle
import ray.exceptions
from hypothesis import given
from hypothesis import strategies as st

from raphub import errors
from raphub.errors import (
    CallTimeout,
    DrainTimeout,
    HubConfigConflict,
    InvalidMapping,
    InvalidSetting,
    RaphubError,
    ReplicaNotActive,
)

PROMISED = [
    "HubNotFound",
    "HubConfigConflict",
    "HubUnreachable",
    "ChildNotFound",
    "ChildAlreadyStarted",
    "ChildStartFailed",
    "ReplicaNotActive",
    "NoActiveReplica",
    "NotEnoughInSync",
    "CallOutcomeUnknown",
    "CallKilledReplica",
    "CallTimeout",
    "StateNotReplicable",
    "DataLost",
    "NoQuorum",
    "NotEnoughNodes",
    "InvalidMapping",
    "DrainTimeout",
]

ALL = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, RaphubError)
]


def test_every_promised_error_exists() -> None:
    assert {kind.__name__ for kind in ALL} >= set(PROMISED)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_hint_of_its_own(kind: type[RaphubError]) -> None:
    error = kind("the child 'a' does not run")
    assert error.hint.endswith((".", "`"))
    assert str(error) == f"the child 'a' does not run\nHint: {error.hint}"
    others = [other for other in ALL if other is not kind]
    assert error.hint not in {other.default_hint for other in others}


def test_a_given_hint_replaces_that_of_the_class() -> None:
    error = errors.ChildNotFound("there is no child 'hit'", hint="Did you mean 'hits'?")
    assert str(error) == "there is no child 'hit'\nHint: Did you mean 'hits'?"


def test_an_empty_hint_leaves_no_second_line() -> None:
    assert str(RaphubError("no more to say", hint="")) == "no more to say"


@pytest.mark.parametrize("kind", ALL)
@given(
    message=st.text(),
    hint=st.none() | st.text(),
    child_id=st.none() | st.text(),
    node_id=st.none() | st.text(),
)
def test_every_error_pickles_with_all_that_it_carries(
    kind: type[RaphubError],
    message: str,
    hint: str | None,
    child_id: str | None,
    node_id: str | None,
) -> None:
    error = kind(message, hint=hint, child_id=child_id, node_id=node_id)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert vars(copy) == vars(error)
    assert (copy.args, copy.message, str(copy)) == (error.args, message, str(error))


def test_fields_of_single_errors_pickle_too() -> None:
    conflict = HubConfigConflict("differs", differences=["factor is 2 in one and 3 in the other"])
    refused = ReplicaNotActive("not me", epoch=7, replica_id="a#2")
    wrong = InvalidSetting("factor is 0", field="redundancy.factor")
    for error in (conflict, refused, wrong):
        assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_an_error_whose_constructor_has_another_shape_pickles() -> None:
    copy = pickle.loads(pickle.dumps(Shaped(1, 2)))
    assert (type(copy), copy.message, copy.total) == (Shaped, "3 in all", 3)


class Shaped(RaphubError):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one + two} in all")
        self.total = one + two


def test_notes_travel_along() -> None:
    error = RaphubError("boom")
    error.add_note("while draining")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while draining"]


def test_a_timed_out_call_can_be_awaited_here_and_does_not_travel() -> None:
    call: Future[int] = Future()
    error = CallTimeout("no answer in 3 s", call=call, child_id="a")
    assert error.call is call
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.call, copy.child_id) == (None, "a")
    assert error.call is call


def test_errors_are_caught_as_what_python_calls_them() -> None:
    for kind, python in [
        (CallTimeout, TimeoutError),
        (DrainTimeout, TimeoutError),
        (InvalidSetting, ValueError),
        (InvalidMapping, InvalidSetting),
    ]:
        assert issubclass(kind, python)
        assert issubclass(kind, RaphubError)
    for name in set(PROMISED) - {"CallTimeout", "DrainTimeout", "InvalidMapping"}:
        assert getattr(errors, name).__bases__ == (RaphubError,)


def test_an_error_shown_by_ray_keeps_what_it_carries() -> None:
    """Ray raises a subclass made at run time, which forwards unknown attributes to the original."""
    error = ReplicaNotActive("not me", hint="Call the handle.", child_id="a", epoch=7)
    # Ray's own code here is untyped.
    untyped: Any = ray
    shown = untyped.exceptions.RayTaskError("f", "remote", error).as_instanceof_cause()
    copy = untyped.cloudpickle.loads(untyped.cloudpickle.dumps(shown))
    for kept in (shown, copy):
        assert isinstance(kept, ReplicaNotActive)
        assert (kept.message, kept.hint) == ("not me", "Call the handle.")
        assert (kept.child_id, kept.epoch) == ("a", 7)


def test_the_lowest_layer_imports_nothing_heavy() -> None:
    code = "import sys, raphub.errors; print([m for m in ('ray', 'pydantic') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
