"""Which copies of a child hold its state, and what follows from that?

The journal names the in-sync set of a child; all and only its members may be promoted once the
child is open for writes. Here the hub answers the active's wishes to change the set, tells the
active what is recorded, opens the child, and finds out that its state is lost.
"""

from __future__ import annotations

from raphub.core.hub_state import HubState, is_led, is_role_taken
from raphub.core.messages import Roster, SendToReplica, SetWanted, TellPosition
from raphub.core.model import OnDataLoss, State, replica_id, split_replica_id
from raphub.core.records import Child, ChildOpened, DataLost, InSyncChanged, Placed
from raphub.core.sightings import Sighting

ELECTION_S = 0.05
"""How long copies are given to say how far they are, before an heir is chosen."""

Copy = tuple[Placed, Sighting]


def is_replicated(child: Child) -> bool:
    """Is the state of the child's copies kept the same?"""
    return child.plan.state is not State.NONE and is_led(child)


def is_in_sync(child: Child, number: int) -> bool:
    """Does the copy hold all that counts? Where state is not replicated, each does."""
    return number in child.in_sync or not is_replicated(child)


def may_inherit(state: HubState, child: Child, now: float) -> list[Copy]:
    """The copies that could be promoted now."""
    there = [c for c in state.copies(child, now) if not state.is_silent(c[1], now)]
    ready = [(placed, seen) for placed, seen in there if seen.is_ready]
    if not is_replicated(child):
        return ready
    holders = [c for c in ready if c[0].number in child.in_sync]
    if holders or child.is_open:
        return holders
    return [(placed, seen) for placed, seen in there if seen.is_built and seen.is_wired]


def is_elected(state: HubState, child: Child, candidates: list[Copy], now: float) -> bool:
    """Is it known how far the candidates are? Asks them if not, and wakes the child in time.

    Each of them is safe; the most advanced one saves the others a snapshot.
    """
    child_id = child.plan.child_id
    if len(candidates) < 2 or not is_replicated(child):  # noqa: PLR2004 - no choice, no question
        return True
    asked_at = state.elections.get(child_id)
    if asked_at is None:
        state.elections[child_id] = now
        for placed, _ in candidates:
            state.do(SendToReplica(replica_id(child_id, placed.number), TellPosition()))
        state.wake_at(child_id, now + ELECTION_S)
        return False
    have_answered = all(seen.reported_at > asked_at for _, seen in candidates)
    if have_answered or now >= asked_at + ELECTION_S:
        del state.elections[child_id]
        return True
    return False


def set_after_promotion(child: Child, heir: int) -> tuple[int, ...]:
    """The in-sync set of the next epoch; the old active has been retired, or is the heir."""
    if not is_replicated(child):
        return ()
    return child.in_sync if heir in child.in_sync else (heir,)


def roster(child: Child) -> Roster:
    """What the child's active is told."""
    child_id = child.plan.child_id
    return Roster(
        child.epoch,
        child.set_version,
        tuple(replica_id(child_id, number) for number in child.in_sync),
        tuple(
            (replica_id(child_id, number), placed.address)
            for number, placed in sorted(child.replicas.items())
            if placed.address is not None
        ),
        child.is_open,
    )


def change_set(state: HubState, child: Child, number: int, wish: SetWanted, now: float) -> None:
    """The active wishes for another set. One wish of each version is granted, in whole or in part.

    Whoever is out or gone is left out of it; that the version grows tells the active so.
    """
    if not is_replicated(child) or number != child.active or wish.epoch != child.epoch:
        return
    if wish.version == child.set_version:
        wanted = [split_replica_id(replica) for replica in wish.members]
        granted = [
            n for child_id, n in wanted if child_id == child.plan.child_id and n in child.replicas
        ]
        kept = tuple(
            n
            for n in dict.fromkeys(granted)
            if n == number or not state.sighting(replica_id(child.plan.child_id, n), now).is_gone
        )
        if number not in kept:
            return
        _note_change(state, child, kept)
        state.record(InSyncChanged(child.plan.child_id, kept))
        state.touch(child.plan.child_id)
    tell_roster(state, child, now)


def tell_roster(state: HubState, child: Child, now: float) -> None:
    """Tell the active what is recorded."""
    if child.active is not None and is_replicated(child):
        replica = replica_id(child.plan.child_id, child.active)
        told = state.sighting(replica, now).told_roster = roster(child)
        state.do(SendToReplica(replica, told))


def settle_set(state: HubState, child: Child, now: float) -> None:
    """Open the child once enough copies are in sync, and tell the active what has changed.

    Not before the active has taken its role: until then there is no state that could count.
    """
    if not is_replicated(child) or child.active is None or child.is_lost:
        return
    child_id = child.plan.child_id
    seen = state.sighting(replica_id(child_id, child.active), now)
    if not child.is_open:
        grace_ends_at = state.grace_ends_at.setdefault(child_id, now + child.plan.start_grace_s)
        is_enough = len(child.in_sync) >= max(1, state.wanted(child))
        has_begun = is_role_taken(child, child.replicas[child.active], seen)
        if has_begun and (is_enough or now >= grace_ends_at):
            state.grace_ends_at.pop(child_id, None)
            state.record(ChildOpened(child_id))
            if not is_enough:
                text = f"{len(child.in_sync)} of {state.wanted(child)} copies are in sync"
                state.note("opened_degraded", f"writes begin though only {text}", child_id)
        elif now < grace_ends_at:
            state.wake_at(child_id, grace_ends_at)
    if seen.is_wired and seen.told_roster != roster(child):
        tell_roster(state, child, now)


def find_loss(state: HubState, child: Child, now: float) -> bool:
    """Is the last copy that held the state gone? Records that, once.

    One that is silent on a node which Ray calls dead counts as gone here: should the node be heard
    again, its raylet ends the copies on it.
    """
    if not is_replicated(child) or not child.is_open:
        return False
    for number in child.in_sync:
        seen = state.sighting(replica_id(child.plan.child_id, number), now)
        is_cut_off = child.replicas[number].node_id not in state.nodes
        is_silent = state.is_silent(seen, now) and state.may_believe_silence(now)
        if not (seen.is_gone or (is_cut_off and is_silent)):
            return False
    restarts = child.plan.on_data_loss is OnDataLoss.RESTART_EMPTY
    state.record(DataLost(child.plan.child_id, restarts))
    follows = "begins anew, empty" if restarts else "stays lost until it is stopped"
    text = f"no copy that held the state is left; the child {follows}"
    state.note("data_lost", text, child.plan.child_id)
    return True


def _note_change(state: HubState, child: Child, in_sync: tuple[int, ...]) -> None:
    child_id = child.plan.child_id
    for number in in_sync:
        if number not in child.in_sync:
            state.note("in_sync", "holds the whole state", child_id, number)
    for number in child.in_sync:
        if number not in in_sync:
            state.note("out_of_sync", "writes go on without it", child_id, number)
