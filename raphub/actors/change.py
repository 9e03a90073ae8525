"""How is a change of the state written, so that it can be sent without being put together?

A change is a tuple of parts. The first is the head: it names the attributes and holds the small
pickles. The large ones follow, each with the buffers that belong to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from raphub.actors.pickling import Buffer, Pickled

Change = tuple[Buffer, ...]
"""What one write, or several, changed in the state. Any buffers will do as its parts."""

Names = tuple[str, ...]

MARK_BYTES = 16
"""A large pickle is known by a digest of this size."""

OWN_STATE: Names = ()
"""The names of the one group of what `get_state` gave."""

_FORMAT = 1

_MARK_BYTES_WHOLE_MAX = 4096
"""A pickle below this size is its own mark, and travels in the head."""


class Group(NamedTuple):
    """Attributes in one pickle, because they share something that can change.

    No names mean the state that `get_state` gave. `mark` tells one content from another: it is
    the pickle itself where that is small, and then there are no `parts`. `classes` are the names of
    the classes that it refers to and no module has.
    """

    names: Names
    mark: bytes
    parts: tuple[Buffer, ...] = ()
    classes: Names = ()

    @property
    def pickle(self) -> tuple[Buffer, ...]:
        """What `pickling.loads` takes."""
        return self.parts or (self.mark,)


class Content(NamedTuple):
    """A change, read. Groups are not unpickled yet.

    `is_whole` says that there are no other attributes, except `kept`, which are the sender's own:
    the receiver leaves its own as they are. `gone` are deleted. `classes` are definitions, each
    under its one name, of classes that the groups refer to.
    """

    groups: tuple[Group, ...]
    classes: tuple[Group, ...] = ()
    gone: Names = ()
    kept: Names = ()
    is_whole: bool = False


def group_of(names: Names, pickled: Pickled, mark: bytes | None = None) -> Group:
    """A copy of what was pickled, for these attributes; `mark` is its mark, if it is known."""
    mark = mark_of(pickled) if mark is None else mark
    parts = () if _is_small(pickled) else pickled.copied()
    return Group(names, mark, parts, tuple(pickled.classes))


def mark_of(pickled: Pickled) -> bytes:
    """Tells this content from any other."""
    if _is_small(pickled):
        return bytes(pickled.stream)
    digest = hashlib.blake2b(pickled.stream, digest_size=MARK_BYTES)
    for view in pickled.views:
        digest.update(view.nbytes.to_bytes(8, "big"))
        digest.update(view)
    return digest.digest()


def _is_small(pickled: Pickled) -> bool:
    return not pickled.views and len(pickled.stream) < _MARK_BYTES_WHOLE_MAX


def written(content: Content) -> Change:
    """The change as parts; those of the groups are among them as they are."""
    told = [(g.names, g.mark, len(g.parts), g.classes) for g in content.groups]
    defined = [(g.names, g.mark, len(g.parts), ()) for g in content.classes]
    whole = content.kept if content.is_whole else None
    head = (_FORMAT, whole, content.gone, told, defined)
    parts = [part for group in (*content.groups, *content.classes) for part in group.parts]
    return (msgpack.packb(head, unicode_errors="surrogatepass"), *parts)


def read(change: Sequence[Buffer]) -> Content:
    """Read a change. Raises `ValueError` for what is none."""
    try:
        head = msgpack.unpackb(change[0], use_list=False, unicode_errors="surrogatepass")
        form, whole, gone, told, defined = head
        is_right = form == _FORMAT and isinstance(told, tuple) and isinstance(defined, tuple)
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise ValueError(f"this is no change of a state: {error!r}") from error
    if not is_right:
        raise ValueError(f"this is no change of a state in the format {_FORMAT}, but {form!r}")
    groups, start = [], 1
    for group in told + defined:
        names, mark, count, classes = _checked_group(group)
        groups.append(Group(names, mark, tuple(change[start : start + count]), classes))
        start += count
    if start != len(change):
        raise ValueError(f"this change of a state has {len(change)} parts, and tells of {start}")
    if any(len(group.names) != 1 for group in groups[len(told) :]):
        raise ValueError("this change of a state defines a class that has not one name")
    return Content(
        tuple(groups[: len(told)]),
        tuple(groups[len(told) :]),
        _checked_names(gone),
        () if whole is None else _checked_names(whole),
        is_whole=whole is not None,
    )


def _checked_names(names: Any) -> Names:  # noqa: ANN401 - it is yet to be seen
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{names!r} are no names of a change of a state")
    return names


def _checked_group(group: Any) -> tuple[Names, bytes, int, Names]:  # noqa: ANN401 - as above
    match group:
        case (names, bytes(mark), int(count), classes) if count == 0 < len(mark) or (
            count > 0 and len(mark) == MARK_BYTES
        ):
            return _checked_names(names), mark, count, _checked_names(classes)
        case _:
            raise ValueError(f"{group!r} is no group of a change of a state")
