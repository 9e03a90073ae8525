"""A ledger is the fold of its facts, and its snapshot folds to the same ledger."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raphub.actors.encoding import pack, unpack
from raphub.core.model import ChildId, ChildPlan, NodeId, ReplicaId
from raphub.core.records import (
    AddressLearned,
    ChildAdded,
    ChildGivenUp,
    ChildRemoved,
    ClusterSized,
    Fact,
    LeaseReleased,
    Ledger,
    ReplicaForgotten,
    ReplicaPlaced,
    ReplicaPromoted,
    ReplicaRetired,
    RequestAnswered,
    RequestId,
    RequestOpened,
    StartAnswer,
)

IDS = st.sampled_from([ChildId("a"), ChildId("b")])
NUMBERS = st.integers(1, 3)


def _next_of_request(ledger: Ledger, request: RequestId, child_id: ChildId) -> Fact:
    """A request is opened, then answered, and then it is over."""
    if request.key in ledger.requests or request.key in ledger.answers:
        return RequestAnswered(request, StartAnswer({child_id: (ReplicaId("r"),)}))
    return RequestOpened(request, (child_id,))


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Facts in an order in which a hub could have written them."""
    ledger, history = Ledger(tombs_max=1), []
    for _ in range(draw(st.integers(0, 25))):
        child_id = draw(IDS)
        fact: Fact
        if child_id not in ledger.children:
            fact = ChildAdded(ChildPlan(child_id), *ledger.beginning(child_id))
        else:
            child, number = ledger.children[child_id], draw(NUMBERS)
            fact = draw(
                st.sampled_from(
                    [
                        ReplicaPlaced(child_id, child.number + 1, NodeId("n")),
                        AddressLearned(child_id, number, ("host", number)),
                        ReplicaPromoted(child_id, number, child.epoch + 1),
                        ReplicaRetired(child_id, number),
                        LeaseReleased(child_id),
                        ReplicaForgotten(ReplicaId(f"{child_id}#{number}")),
                        ChildGivenUp(child_id, "it crashed"),
                        ClusterSized(number),
                        ChildRemoved(child_id),
                        _next_of_request(ledger, RequestId("me", number), child_id),
                    ]
                )
            )
        ledger.apply(fact)
        history.append(fact)
    return history


def folded(facts: list[Fact]) -> Ledger:
    ledger = Ledger(tombs_max=1)
    for fact in facts:
        ledger.apply(fact)
    return ledger


@settings(max_examples=300)
@given(histories())
def test_a_snapshot_folds_to_the_same_ledger(history: list[Fact]) -> None:
    ledger = folded(history)
    again = folded(list(ledger.facts()))
    assert again.children == ledger.children
    assert again.retired == ledger.retired
    assert again.tombs == ledger.tombs
    assert again.answers == ledger.answers
    assert again.cluster_size == ledger.cluster_size
    assert again.requests.keys() == ledger.requests.keys()
    assert (again.epoch_floor, again.number_floor) == (ledger.epoch_floor, ledger.number_floor)


@settings(max_examples=100)
@given(histories())
def test_facts_survive_their_bytes(history: list[Fact]) -> None:
    assert list(unpack(pack(tuple(history)))) == history


def test_a_child_begins_above_all_that_was_used_before_even_when_its_tomb_is_merged() -> None:
    ledger = Ledger(tombs_max=1)
    for name in ("a", "b", "c"):
        child_id = ChildId(name)
        ledger.apply(ChildAdded(ChildPlan(child_id), *ledger.beginning(child_id)))
        ledger.apply(ReplicaPlaced(child_id, 7, NodeId("n")))
        ledger.apply(ReplicaPromoted(child_id, 7, 9))
        ledger.apply(LeaseReleased(child_id))
        ledger.apply(ChildRemoved(child_id))
    assert len(ledger.tombs) == 1
    assert ledger.beginning(ChildId("a")) == (9, 7)
    assert ledger.beginning(ChildId("never seen")) == (9, 7)
