"""Where are the hub's records at rest?

In Ray's GCS key-value store, the one place of a Ray cluster with an atomic put-if-absent. This is
the ONLY module that touches it. It performs the steps of `core.journal`, one after the other; an
operation without an answer in time is one that may have taken effect.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from raphub.actors.encoding import pack, unpack
from raphub.core.journal import (
    NO_ANSWER,
    Delete,
    Get,
    Keys,
    Operation,
    PutIfAbsent,
)

Result = TypeVar("Result")
NAMESPACE = b"raphub"
ANSWER_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Charter:
    """What makes a hub this hub: written once at its first start, removed by `Hub.stop`.

    `incarnation` is drawn anew each time a hub is started under the same id and stands in every
    key, name and handshake. `settings` are the packed `HubSettings`.
    """

    incarnation: str
    secret: bytes
    config_json: str
    settings: bytes


class HubStore:
    """The keys of one hub. `beat` is called around every operation, for the guardian."""

    def __init__(self, hub_id: str, beat: Callable[[], None] = lambda: None) -> None:
        """Connects nothing: the process's own Ray connection is used."""
        import ray._private.worker  # noqa: PLC0415 - only replicas and hubs pay for Ray

        worker: Any = ray._private.worker.global_worker  # noqa: SLF001
        self._client = worker.gcs_client
        self._charter_key = f"hub/{hub_id}".encode()
        self._prefix = ""
        self._hub_id = hub_id
        self._beat = beat

    def charter(self, config_json: str, settings: bytes) -> Charter:
        """The hub's charter, written now if there is none. Raises what Ray raises, if it does."""
        drawn = Charter(secrets.token_hex(6), secrets.token_bytes(32), config_json, settings)
        packed = pack((drawn.incarnation, drawn.secret, drawn.config_json, drawn.settings))
        self._client.internal_kv_put(self._charter_key, packed, False, NAMESPACE, 5.0)  # noqa: FBT003
        found = self._client.internal_kv_get(self._charter_key, NAMESPACE, 5.0)
        charter = Charter(*unpack(found))
        self._prefix = f"log/{self._hub_id}/{charter.incarnation}/"
        return charter

    def perform(self, steps: Generator[Operation, Any, Result]) -> Result:
        """Perform a procedure of `core.journal` to its end; raises what it raises."""
        outcome: Any = None
        while True:
            try:
                operation = steps.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            outcome = self._do(operation)
            self._beat()

    def erase(self) -> None:
        """Remove every key of the hub, the charter last."""
        prefix = self._prefix.encode()
        self._client.internal_kv_del(prefix, True, NAMESPACE, 5.0)  # noqa: FBT003
        self._client.internal_kv_del(self._charter_key, False, NAMESPACE, 5.0)  # noqa: FBT003

    def _do(self, operation: Operation) -> Any:  # noqa: ANN401 - as the operation says
        try:
            return self._ask(operation)
        except Exception:  # noqa: BLE001 - whatever Ray raises, the outcome is not known
            return NO_ANSWER

    def _ask(self, operation: Operation) -> Any:  # noqa: ANN401 - as the operation says
        client, limit_s = self._client, ANSWER_TIMEOUT_S
        match operation:
            case Get(key):
                found = client.internal_kv_get(self._key(key), NAMESPACE, limit_s)
                return None if found is None else unpack(found)
            case PutIfAbsent(key, entry):
                added = client.internal_kv_put(
                    self._key(key),
                    pack(entry),
                    False,  # noqa: FBT003
                    NAMESPACE,
                    limit_s,
                )
                return added == 1
            case Delete(key):
                return client.internal_kv_del(self._key(key), False, NAMESPACE, limit_s)  # noqa: FBT003
            case Keys(prefix):
                found = client.internal_kv_keys(self._key(prefix), NAMESPACE, limit_s)
                start = len(self._prefix)
                return [key.decode()[start:] for key in found]

    def _key(self, key: str) -> bytes:
        return (self._prefix + key).encode()
