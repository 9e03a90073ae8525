"""How is a change of the state written, so that it can be sent without being put together?

A change is a tuple of parts. The first is the head: it names the attributes and holds the small
pickles. The large ones follow, each with the buffers that belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from raphub.actors.pickling import Buffer

Change = tuple[Buffer, ...]
"""What one write, or several, changed in the state. Any buffers will do as its parts."""

Names = tuple[str, ...]

MARK_BYTES = 16
"""A large pickle is known by a digest of this size."""

_FORMAT = 1


class Group(NamedTuple):
    """Attributes in one pickle, because they share something that can change.

    No names mean the state that `get_state` gave. `mark` tells one content from another: it is
    the pickle itself where that is small, and then there are no `parts`.
    """

    names: Names
    mark: bytes
    parts: tuple[Buffer, ...] = ()

    @property
    def pickle(self) -> tuple[Buffer, ...]:
        """What `pickling.loads` takes."""
        return self.parts or (self.mark,)


class Content(NamedTuple):
    """A change, read. Groups are not unpickled yet.

    `is_whole` says that there are no other attributes, except `kept`, which are the sender's own:
    the receiver leaves its own as they are. `gone` are deleted.
    """

    groups: tuple[Group, ...]
    gone: Names = ()
    kept: Names = ()
    is_whole: bool = False


def written(content: Content) -> Change:
    """The change as parts; those of the groups are among them as they are."""
    groups = [(group.names, group.mark, len(group.parts)) for group in content.groups]
    whole = content.kept if content.is_whole else None
    head = msgpack.packb((_FORMAT, whole, content.gone, groups), unicode_errors="surrogatepass")
    return (head, *(part for group in content.groups for part in group.parts))


def read(change: Sequence[Buffer]) -> Content:
    """Read a change. Raises `ValueError` for what is none."""
    try:
        head = msgpack.unpackb(change[0], use_list=False, unicode_errors="surrogatepass")
        form, whole, gone, told = head
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise ValueError(f"this is no change of a state: {error!r}") from error
    if form != _FORMAT or not isinstance(told, tuple):
        raise ValueError(f"this is no change of a state in the format {_FORMAT}, but {form!r}")
    groups, start = [], 1
    for group in told:
        names, mark, count = _checked_group(group)
        groups.append(Group(names, mark, tuple(change[start : start + count])))
        start += count
    if start != len(change):
        raise ValueError(f"this change of a state has {len(change)} parts, and tells of {start}")
    kept = () if whole is None else _checked_names(whole)
    return Content(tuple(groups), _checked_names(gone), kept, is_whole=whole is not None)


def _checked_names(names: Any) -> Names:  # noqa: ANN401 - it is yet to be seen
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{names!r} are no names of attributes")
    return names


def _checked_group(group: Any) -> tuple[Names, bytes, int]:  # noqa: ANN401 - it is yet to be seen
    match group:
        case (names, bytes(mark), int(count)) if count == 0 < len(mark) or (
            count > 0 and len(mark) == MARK_BYTES
        ):
            return _checked_names(names), mark, count
        case _:
            raise ValueError(f"{group!r} is no group of attributes")
