"""Which passive belongs elsewhere, drawn as cases and as many joins."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raphub.core import placement
from raphub.core.misplacement import Relocation, Standing, misplaced
from raphub.core.model import ChildId, ChildPlan, DistributionKind, Node, NodeId, Spread

HASHED, GUIDED = DistributionKind.CONSISTENT_HASHING, DistributionKind.GUIDED
LOADED, CUSTOM = DistributionKind.LEAST_LOADED, DistributionKind.CUSTOM


def standing(
    order: str, on: str, active: int = 1, zones: Mapping[str, str] | None = None, **plan: object
) -> Standing:
    """Nodes in the strategy's order, one letter each; copy 1 is on the first letter of `on`."""
    given_plan: dict[str, object] = {"factor": len(on), "zone_label": "z" if zones else None}

    def zone(node_id: NodeId) -> str | None:
        return (zones or {}).get(node_id)

    return Standing(
        ChildPlan(ChildId("hits"), **(given_plan | plan)),  # type: ignore[arg-type]
        {number: NodeId(name) for number, name in enumerate(on, 1)},
        active,
        [Node(NodeId(name), name) for name in order],
        zone,
    )


def moved(found: Relocation | None) -> tuple[int, str] | None:
    return None if found is None else (found.number, found.node_id)


# --- consistent hashing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "on", "goal"),
    [
        # `A` is where the active stands, `P` a passive; `j` has joined, `x` was there and is free.
        ("APx", "AP", None),
        ("AjPx", "AP", (2, "j")),
        ("jAPx", "AP", None),  # It would take over from the active, which stays.
        ("PjAx", "AP", None),
        ("jPAx", "AP", (2, "j")),
        ("APjx", "AP", None),
        ("jxAP", "AP", None),  # `x` was passed over when it joined, and is not gone back to.
        ("xjAP", "AP", None),
        ("AjPQx", "APQ", (3, "j")),
        ("APQjx", "APQ", None),
        ("PAjQx", "APQ", (3, "j")),
        ("PjAQx", "APQ", None),
        ("jPQAx", "APQ", (3, "j")),
    ],
)
def test_only_what_a_joined_node_wins_moves_and_only_to_it(
    order: str, on: str, goal: tuple[int, str] | None
) -> None:
    assert moved(misplaced(standing(order, on), HASHED)) == goal


def placed(child_id: str, cluster: list[Node], factor: int) -> list[NodeId]:
    taken: dict[NodeId, int] = {}
    for _ in range(min(factor, len(cluster))):
        order = placement.by_hash(child_id, cluster)
        best = placement.rank(
            ChildPlan(ChildId(child_id)), order, taken, lambda _: False, lambda _: None
        )
        taken[best[0].node_id] = 1
    return list(taken)


class Hub:
    """Children placed by consistent hashing, whose copies move as they should."""

    def __init__(self, children: int, nodes: int, factor: int, seed: int) -> None:
        chance = random.Random(seed)
        self.factor = factor
        self.joined = nodes
        self.cluster = [Node(NodeId(f"{seed}-{n}")) for n in range(nodes)]
        self.prefix = f"{seed}-"
        self.copies: dict[str, dict[int, NodeId]] = {}
        self.active: dict[str, int] = {}
        for child in range(children):
            child_id = f"child{child}"
            self.copies[child_id] = dict(enumerate(placed(child_id, self.cluster, factor), 1))
            self.active[child_id] = chance.choice(sorted(self.copies[child_id]))

    def join(self) -> NodeId:
        node = Node(NodeId(f"{self.prefix}{self.joined}"))
        self.joined += 1
        self.cluster.append(node)
        return node.node_id

    def leave(self, node_id: NodeId) -> set[str]:
        """Heal: a passive takes over, and what is missing is placed. Returns who lost a copy."""
        bereft = {child_id for child_id, on in self.copies.items() if node_id in on.values()}
        self.cluster = [node for node in self.cluster if node.node_id != node_id]
        for child_id, copies in self.copies.items():
            lost = [number for number, on in copies.items() if on == node_id]
            for number in lost:
                del copies[number]
                if self.active[child_id] == number:
                    self.active[child_id] = min(copies)
                taken = dict.fromkeys(copies.values(), 1)
                best = placement.rank(
                    ChildPlan(ChildId(child_id)),
                    placement.by_hash(child_id, self.cluster),
                    taken,
                    lambda _: False,
                    lambda _: None,
                )[0]
                copies[number + 100] = best.node_id
        return bereft

    def moves(self) -> list[tuple[str, NodeId, NodeId]]:
        """Relocation until all are where they belong: (child, from, to)."""
        done: list[tuple[str, NodeId, NodeId]] = []
        for child_id, copies in self.copies.items():
            for _ in range(10):
                move = misplaced(
                    Standing(
                        ChildPlan(ChildId(child_id), factor=self.factor),
                        copies,
                        self.active[child_id],
                        placement.by_hash(child_id, self.cluster),
                        lambda _: None,
                    ),
                    HASHED,
                )
                if move is None:
                    break
                assert move.number != self.active[child_id]
                done.append((child_id, copies[move.number], move.node_id))
                copies[move.number] = move.node_id
            else:
                pytest.fail(f"{child_id} moves for ever")
        return done


@pytest.mark.parametrize(("nodes", "factor"), [(3, 2), (5, 2), (9, 2), (5, 3), (9, 4)])
def test_scenario_40_a_join_moves_one_nth_of_the_passives_to_it_and_nothing_else(
    nodes: int, factor: int
) -> None:
    hub = Hub(children=1500, nodes=nodes, factor=factor, seed=nodes * factor)
    assert hub.moves() == []
    for _ in range(3):
        joined = hub.join()
        moves = hub.moves()
        assert {to for _, _, to in moves} == {joined}
        assert len({child_id for child_id, _, _ in moves}) == len(moves)
        share = len(moves) / (1500 * (factor - 1))
        assert share == pytest.approx(1 / len(hub.cluster), rel=0.3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.lists(st.booleans(), min_size=1, max_size=12))
def test_moves_go_to_what_joined_only_and_a_death_moves_only_who_lost_a_copy(
    seed: int, factor: int, story: list[bool]
) -> None:
    hub = Hub(children=12, nodes=5, factor=factor, seed=seed)
    chance = random.Random(seed)
    for is_join in story:
        if is_join:
            joined = hub.join()
            assert {to for _, _, to in hub.moves()} <= {joined}
        elif len(hub.cluster) > factor + 1:
            bereft = hub.leave(chance.choice(hub.cluster).node_id)
            assert {child_id for child_id, _, _ in hub.moves()} <= bereft


# --- zones ------------------------------------------------------------------------------------

ZONES = {"a": "1", "b": "1", "c": "1", "d": "2", "e": "3"}


@pytest.mark.parametrize("kind", [HASHED, LOADED, CUSTOM])
def test_a_passive_leaves_a_zone_that_it_shares_for_an_empty_one(kind: DistributionKind) -> None:
    assert moved(misplaced(standing("abcd", "ab", zones=ZONES), kind)) == (2, "d")
    assert moved(misplaced(standing("abcd", "ab", active=2, zones=ZONES), kind)) == (1, "d")


def test_hashing_never_moves_a_passive_back_into_the_zone_of_another_copy() -> None:
    assert misplaced(standing("abcd", "ad", zones=ZONES), HASHED) is None
    assert moved(misplaced(standing("abed", "ad", zones=ZONES), HASHED)) == (2, "e")


def test_with_strict_zones_nothing_moves_into_a_zone_that_is_held() -> None:
    loads = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 9.0}
    strict = standing("abcd", "ad", zones=ZONES, spread=Spread.STRICT)
    assert misplaced(strict, LOADED, lambda node_id, _: loads[node_id]) is None
    strict = standing("abcde", "ad", zones=ZONES, spread=Spread.STRICT)
    loads["e"] = 1.0
    assert moved(misplaced(strict, LOADED, lambda node_id, _: loads[node_id])) == (2, "e")


# --- guided, least loaded, custom -------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "on", "active", "goal"),
    [
        ("abc", "ab", 1, None),
        ("abc", "ac", 1, (2, "b")),
        ("abc", "bc", 1, (2, "a")),
        ("abc", "cb", 1, None),  # The active stands on the spare, and stays.
        ("abc", "cb", 2, (1, "a")),
    ],
)
def test_a_guided_passive_goes_from_a_spare_to_a_node_that_is_named_before(
    mapping: str, on: str, active: int, goal: tuple[int, str] | None
) -> None:
    assert moved(misplaced(standing(mapping, on, active), GUIDED)) == goal


def loads_of(**loads: float) -> Callable[[NodeId, int], float]:
    return lambda node_id, more: loads[node_id] + more * 0.025


def test_a_passive_leaves_the_most_loaded_node_for_one_that_is_clearly_less_loaded() -> None:
    found = misplaced(standing("abcd", "abc"), LOADED, loads_of(a=0.9, b=0.4, c=0.6, d=0.1))
    assert moved(found) == (3, "d")


def test_a_small_difference_is_not_worth_a_move_and_no_active_moves() -> None:
    assert misplaced(standing("abc", "ab"), LOADED, loads_of(a=0.9, b=0.2, c=0.1)) is None


@given(st.lists(st.integers(0, 30), min_size=3, max_size=6), st.integers(0, 10**6))
def test_moves_by_load_come_to_an_end(counts: list[int], seed: int) -> None:
    chance = random.Random(seed)
    names = "abcdef"[: len(counts)]
    on = chance.sample(names, 2)
    loads = {name: 0.025 * count for name, count in zip(names, counts, strict=True)}
    for _ in range(10):
        now = standing(names, "".join(on))
        move = misplaced(now, LOADED, lambda node_id, more: loads[node_id] + 0.025 * more)
        if move is None:
            return
        loads[on[1]] -= 0.025
        loads[move.node_id] += 0.025
        on[1] = str(move.node_id)
    pytest.fail("it moves for ever")


def test_copies_that_share_a_node_part_by_healing_and_a_custom_strategy_moves_none() -> None:
    assert misplaced(standing("abc", "aa"), HASHED) is None
    assert misplaced(standing("cab", "ab"), CUSTOM) is None
