"""Does the hub go on or stand still, and what follows when that changes?

A partitioned hub takes in what it observes and decides nothing about its children: it grants no
lease, so that whoever serves stops within one, and it promotes, places, retires and rebuilds nothing.
Every copy keeps its state. Once the rule lets the hub go on, all is decided as usual: an active that
is still there gets its next lease, in the same epoch.

This is not the hub's distrust of itself (law 14), which concerns silence and withholds no lease. A
node whose loss the hub doubts still counts here.
"""

from __future__ import annotations

from dataclasses import replace

from raphub.core import placement, quorum
from raphub.core.copies import start_left
from raphub.core.hub_state import HubState
from raphub.core.messages import PublishCluster
from raphub.core.model import ChildId, ChildPlan, Node
from raphub.core.records import ClusterSized


def judge(state: HubState, now: float) -> None:
    """Count the nodes, remember what has to be, and stand still or go on as the rule says."""
    rule = state.settings.partition_tolerance
    if rule is None:
        return
    remembered = state.ledger.cluster_size
    doubted = sum(1 for node_id in state.vanished_at if _is_used(state, state.nodes[node_id]))
    usable = sum(1 for node in state.nodes.values() if _is_used(state, node))
    view = state.cluster or quorum.first_view(rule, remembered, now)
    view = quorum.look(rule, replace(view, largest=remembered), usable, now, doubted)
    state.cluster = view
    if view.largest != remembered:
        state.record(ClusterSized(view.largest))
    size = quorum.size(rule, view)
    is_held = not quorum.may_go_on(rule, view)
    _change(state, f"partitioned: {usable} of {size} nodes" if is_held else "", now)


def is_usable(state: HubState, node: Node) -> bool:
    """May the node hold a copy that asks for nothing special?"""
    return placement.is_usable(ChildPlan(ChildId("")), node, state.settings.label_selector)


def _is_used(state: HubState, node: Node) -> bool:
    """Is the node usable, or so far only known as one that holds copies? See `HubMachine`."""
    is_held = node.node_id in state.vanished_at and node.node_id in state.on_node
    return is_held or is_usable(state, node)


def _change(state: HubState, standstill: str, now: float) -> None:
    before, state.standstill = state.standstill, standstill
    if standstill == before:
        return
    if standstill and not before:
        state.note("partitioned", f"{standstill[len('partitioned: ') :]}; the children stand still")
        # What was asked before says nothing about the time after.
        state.elections.clear()
        state.grace_ends_at.clear()
    elif before and not standstill:
        state.note("quorum_regained", "enough nodes are usable again; the hub goes on")
        start_left(state, now)
    for child_id in state.ledger.children:
        state.touch(child_id)
    state.do(PublishCluster())
