"""What can go wrong, and what should the person who meets it do next?

One error a situation. Each carries a message (what happened, where) and a hint (the next step),
and each pickles with all that it carries, because it may be raised in a replica and read in a
driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar


class RaphubError(Exception):
    """Every error of raphub; catch it to catch them all. A user's own exceptions are never wrapped.

    `hint` is the next step, as a sentence; each class has one of its own that holds when none is
    given. `hub_id`, `child_id`, `replica_id` and `node_id` say where it happened, as far as that
    is known. `str(error)` is the message and, on a second line, the hint. Not promised: the
    wording of messages and hints.
    """

    default_hint: ClassVar[str] = "Run `raphub doctor` to see whether this cluster is fit."

    # These are declared and not given a value here on purpose: Ray shows an error of a remote
    # call as a subclass that forwards unknown attributes to the original, and a value on the
    # class would hide the original's.
    hint: str
    hub_id: str | None
    child_id: str | None
    replica_id: str | None
    node_id: str | None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        hub_id: str | None = None,
        child_id: str | None = None,
        replica_id: str | None = None,
        node_id: str | None = None,
    ) -> None:
        """Tell what happened; `hint` replaces the hint of the class."""
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        self.hub_id = hub_id
        self.child_id = child_id
        self.replica_id = replica_id
        self.node_id = node_id

    @property
    def message(self) -> str:
        """What happened, without the hint."""
        told = self.args[0] if self.args else ""
        # The subclass that Ray shows has the original as its argument.
        return told.message if isinstance(told, RaphubError) else str(told)

    def __str__(self) -> str:
        """The message and, on a second line, the hint."""
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., RaphubError], tuple[Any, ...]]:
        """Pickle as the class, the arguments and the fields: no constructor has to fit."""
        return _restored, (type(self), self.args, self._pickled_fields())

    def _pickled_fields(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _restored(
    kind: type[RaphubError], args: tuple[Any, ...], fields: dict[str, Any]
) -> RaphubError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


# --- Settings ---------------------------------------------------------------------------------


class InvalidSetting(RaphubError, ValueError):
    """A setting, an option or a specification cannot be used as given.

    Raised where the value is given, before anything starts. `field` names it, with dots into
    nested settings (`redundancy.factor`), and is empty where several together are at fault.
    """

    default_hint = "See the docstring of the class for what each setting may be."

    field: str

    def __init__(self, message: str = "", *, field: str = "", **where: str | None) -> None:
        """Tell what is wrong with `field`; `where` are the fields of `RaphubError`."""
        super().__init__(message, **where)
        self.field = field


class InvalidMapping(InvalidSetting):
    """A guided distribution names nodes for a child that do not fit it."""

    default_hint = "Name as many existing nodes for each child as it has copies."


class StateNotReplicable(RaphubError):
    """The class cannot do what its state mode needs, or the mode does not exist in this version."""

    default_hint = 'Use state="none": every copy keeps its own state, and raphub keeps the roles.'


# --- Hubs -------------------------------------------------------------------------------------


class HubNotFound(RaphubError):
    """No hub of this id runs in the cluster."""

    default_hint = "Start it with `raphub.Hub.start(raphub.HubConfig(hub_id=...))`."


class HubConfigConflict(RaphubError):
    """A hub of this id runs already, with another configuration.

    `differences` says in words which settings differ.
    """

    default_hint = (
        "Connect to it with `raphub.Hub.connect(hub_id)`, stop it first, or use another hub_id."
    )

    differences: tuple[str, ...]

    def __init__(
        self, message: str = "", *, differences: Iterable[str] = (), **where: str | None
    ) -> None:
        """Tell which hub; `where` are the fields of `RaphubError`."""
        super().__init__(message, **where)
        self.differences = tuple(differences)


class HubUnreachable(RaphubError):
    """The hub's actor does not answer. Its children go on, and calls to them, too."""

    default_hint = (
        "Wait: the hub's actor restarts by itself while its head node lives. "
        "If the head is lost, the cluster has to be started again."
    )


class HubBusy(RaphubError):
    """The hub has as many unanswered requests as it may have; this one was not taken."""

    default_hint = "Ask again later, or raise `requests_waiting_max` in the hub's `HubConfig`."


class NoQuorum(RaphubError):
    """Too few nodes are usable for the hub's partition tolerance, so its children stand still."""

    default_hint = (
        "Bring the missing nodes back; the children go on by themselves. If a MajorityQuorum waits "
        "for nodes that are gone for good, call `hub.reset_cluster_size(n)`."
    )


class NotEnoughNodes(RaphubError):
    """There are too few usable nodes for what was asked."""

    default_hint = (
        "Add nodes, lower `factor` or the resources that a copy asks for, "
        'or use spread="preferred".'
    )


class DrainTimeout(RaphubError, TimeoutError):
    """The deadline passed before the node was empty; what has moved stays moved."""

    default_hint = "Drain again with a longer deadline; `raphub explain` says what a child awaits."


# --- Children ---------------------------------------------------------------------------------


class ChildNotFound(RaphubError):
    """The hub has no child of this id: it was never started, or it was stopped."""

    default_hint = "`hub.children()` lists the children that there are."


class ChildAlreadyStarted(RaphubError):
    """A child of this id runs already; nothing was started."""

    default_hint = (
        "Use `hub.get(child_id)` for the running one, check_existing=False to start only the "
        "others, or another child_id."
    )


class ChildStartFailed(RaphubError):
    """The child did not come up. The message has the reason, with the remote traceback if any."""

    default_hint = "Mend what the reason names, stop the child if it is still there, and start it."


class NoActiveReplica(RaphubError):
    """No copy of the child serves now, and none came to serve in time. The call did not run."""

    default_hint = "`handle.status().reason` says what the child waits for."


class ReplicaNotActive(RaphubError):
    """A copy was called that does not serve, or not in this epoch. The call did not run.

    Handles send such a call again by themselves; only calls to the raw actor handle meet it.
    `epoch` is the one that the copy knows.
    """

    default_hint = "Call through the ChildHandle, which finds the active copy."

    epoch: int

    def __init__(self, message: str = "", *, epoch: int = 0, **where: str | None) -> None:
        """Tell which copy refused; `where` are the fields of `RaphubError`."""
        super().__init__(message, **where)
        self.epoch = epoch


class NotEnoughInSync(RaphubError):
    """Fewer copies than `min_in_sync` hold every acknowledged write. The write did not run."""

    default_hint = "Wait until the missing copies are rebuilt, or lower `min_in_sync`."


class DataLost(RaphubError):
    """Every copy that held the state is gone, so acknowledged writes are lost."""

    default_hint = (
        'Stop the child and start it again with fresh state, or use on_data_loss="restart_empty".'
    )


# --- Calls ------------------------------------------------------------------------------------


class CallOutcomeUnknown(RaphubError):
    """The call may have run, its answer is lost, and it cannot safely be sent again."""

    default_hint = (
        "Find out from the child whether it took effect. If the method may run twice, call it "
        "with `.options(retry=True)`."
    )


class CallKilledReplica(RaphubError):
    """Two copies died while this call was running on them, so it is not run a third time."""

    default_hint = "Look at the method: it probably ends its process (memory, a crash in C code)."


class CallToOwnChild(RaphubError):
    """A method of a child waits for a call to the same child, which could never run meanwhile."""

    default_hint = "Call the method on `self` instead."


class CallTimeout(RaphubError, TimeoutError):
    """The answer did not come in time. Nothing is cancelled: the call may still run.

    `call` is what was awaited (a `Call`, or the future of a request to the hub) and can be
    awaited again. It does not pickle along: in another process it is None.
    """

    default_hint = "Await `error.call` again; nothing was cancelled."

    call: Any

    def __init__(self, message: str = "", *, call: object = None, **where: str | None) -> None:
        """Tell how long was waited; `where` are the fields of `RaphubError`."""
        super().__init__(message, **where)
        self.call = call

    def _pickled_fields(self) -> dict[str, Any]:
        return {**super()._pickled_fields(), "call": None}
