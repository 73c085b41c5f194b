"""`ports.ConfigCache` over Redis or Valkey: signed TenantConfig v2 entries, newest epoch wins.

Which of two entries is newer is in their signed payloads, and only this side has the keys; a script
on the server could do no better than believe whatever lies there, and a forged entry with a high
epoch would then keep the true one out for ever. So a write is judged here and made there: read the
entry, verify it, compare epochs, and let a script put the new one in place if what lies there is
still, byte for byte, what was judged; else look again. Nothing beside the entry has to be kept in
step with it, so the cache may evict any key at any time: a host without an entry simply takes the
next one. What that can let in (an older entry, right after an eviction) the periodic full pass over
the registry puts right.

An entry is believed for thirty days from its issue. The full pass, which comes every few minutes, issues anew
what has ten left, so that entries run out only after ten days without any worker.

The change invalidation is sent by the same script, so an entry is never changed in silence. Writing what
is there already sends none from `publish_many`: a full pass must not make every data plane ask anew.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from controlplane.domain.errors import Invalid, Retryable
from controlplane.workers.providers.ports import PublishedConfig
from dataplane.tenant_config import (
    FORMAT,
    INVALIDATION_CHANNEL,
    KEY_PREFIX,
    LIFETIME_SECONDS,
    MIN_KEY_BYTES,
    REISSUE_SECONDS,
    Invalidation,
    Status,
    TenantConfig,
    TenantConfigError,
    cache_key,
    issued,
    sign,
    undated,
    verify,
)

log = logging.getLogger(__name__)

# Long enough that no delayed writer of an older epoch is still about; after it the key is freed.
TOMBSTONE_SECONDS = 7 * 24 * 3600
SOCKET_TIMEOUT_SECONDS = 2.0
HEALTH_CHECK_SECONDS = 15
RETRIES = 2
ROUNDS = 8
BATCH = 200
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")

# ARGV: what was judged ("" for nothing), the new entry, its lifetime in seconds ("0" for none), the
# channel, the invalidation.
_SWAP = """
local found = redis.call('GET', KEYS[1])
if (found or '') ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    epoch: int
    payload: dict[str, Any]
    text: bytes
    lifetime: int  # seconds; 0 for no end

    @property
    def key(self) -> str:
        return cache_key(self.host)


class RedisConfigCache:
    """`keys`: (key id, at least 32 bytes); the first signs, all of them verify."""

    def __init__(
        self, url: str, keys: Sequence[tuple[str, bytes]], *, now: Callable[[], float] = time.time
    ) -> None:
        if not keys:
            raise Invalid("signing keys", "at least one")
        for key_id, key in keys:
            if not KEY_ID.fullmatch(key_id):
                raise Invalid("signing keys", "key ids of 1 to 32 letters, digits, _ and -", got=key_id)
            if len(key) < MIN_KEY_BYTES:
                raise Invalid(f"signing key {key_id}", f"at least {MIN_KEY_BYTES} bytes", got=len(key))
        self._signing_key = keys[0]
        self._keys = dict(keys)
        self._now = now
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            health_check_interval=HEALTH_CHECK_SECONDS,
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), RETRIES),
        )
        self._swap = self._redis.register_script(_SWAP)

    def read(self, host: str) -> PublishedConfig | None:
        """A tombstone is an entry too: its payload's status is "gone"."""
        with _translated():
            return self._verified(host, self._redis.get(cache_key(host)))

    def publish(self, payload: dict[str, Any], *, instead_of: int | None = None) -> bool:
        """Sends the invalidation even where the same entry was there: whoever missed the last one asks.

        Raises Invalid for what is no TenantConfig v2 or too long, Retryable when Redis can't be
        reached or other writers kept coming in between.
        """
        return self._write(self._sign(payload), instead_of)

    def remove(self, host: str, *, epoch: int, instead_of: int | None = None) -> bool:
        """The tombstone stays for seven days."""
        return self._write(self._sign(tombstone(host, epoch)), instead_of)

    def publish_many(self, payloads: Iterable[dict[str, Any]], *, newer: list[str] | None = None) -> int:
        """Publish entries, pipelined, for the periodic full pass; returns how many were written,
        which are those that were missing, older, signed with another key or due to be issued anew. Raises
        as `publish`, but what is wrong with one host is raised once all others are written."""
        rest = iter(payloads)
        written = 0
        failed: list[Invalid | Retryable] = []
        while batch := list(islice(rest, BATCH)):
            written += self._write_batch(self._signed(batch, failed), newer, failed)
        if failed:
            raise failed[0]
        return written

    def hosts(self) -> Iterator[str]:
        """Every host that has an entry, tombstones included, in no order; one that changes meanwhile
        may be missing or come twice (SCAN's guarantee)."""
        with _translated():
            for key in self._redis.scan_iter(match=KEY_PREFIX + "*", count=500):
                yield key.decode().removeprefix(KEY_PREFIX)

    def entries(self) -> Iterator[tuple[str, PublishedConfig | None]]:
        """Read in batches; see `hosts`."""
        hosts = self.hosts()
        while batch := list(islice(hosts, BATCH)):
            with _translated():
                found = self._redis.mget([cache_key(host) for host in batch])
            for host, entry in zip(batch, found, strict=True):
                if entry is not None:
                    yield host, self._verified(host, entry)

    def notify_credential(self, tenant_id: str) -> None:
        with _translated():
            self._redis.publish(INVALIDATION_CHANNEL, Invalidation("credential", "", 0, tenant_id).encode())

    def ping(self) -> None:
        """Raises Retryable where the cache doesn't answer."""
        with _translated():
            self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    def _write(self, new: _Entry, instead_of: int | None) -> bool:
        with _translated():
            for _ in range(ROUNDS):
                found = self._redis.get(new.key)
                if self._newer(found, new) not in (None, instead_of):
                    return False
                if self._swap(keys=[new.key], args=_arguments(found, new)):
                    return True
        raise _contended(new)

    def _signed(self, payloads: list[dict[str, Any]], failed: list[Invalid | Retryable]) -> list[_Entry]:
        signed: list[_Entry] = []
        for payload in payloads:
            try:
                signed.append(self._sign(payload))
            except Invalid as error:
                log.error("the route of %s can't be published: %s", payload.get("host"), error)  # noqa: TRY400
                failed.append(error)
        return signed

    def _write_batch(
        self, batch: list[_Entry], newer: list[str] | None, failed: list[Invalid | Retryable]
    ) -> int:
        waiting = batch
        written = 0
        with _translated(), self._redis.pipeline(transaction=False) as pipe:
            for _ in range(ROUNDS):
                if not waiting:
                    return written
                for new in waiting:
                    pipe.get(new.key)
                judged: list[tuple[bytes | None, _Entry]] = []
                for found, new in zip(pipe.execute(), waiting, strict=True):
                    if self._stands(found, new):
                        continue
                    if self._newer(found, new) is None:
                        judged.append((found, new))
                    elif newer is not None:
                        newer.append(new.host)
                for found, new in judged:
                    self._swap(keys=[new.key], args=_arguments(found, new), client=pipe)
                swapped = pipe.execute() if judged else []
                written += sum(swapped)
                waiting = [new for (_, new), done in zip(judged, swapped, strict=True) if not done]
        failed += [_contended(new) for new in waiting]
        return written

    def _stands(self, found: bytes | str | None, new: _Entry) -> bool:
        """It says the same, is signed with the key that signs now, and is believed for long enough."""
        if found is None:
            return False
        text = found.decode("ascii", "replace") if isinstance(found, bytes) else found
        observed = self._verified(new.host, text)
        return (
            observed is not None
            and text.startswith(f"{FORMAT}.{self._signing_key[0]}.")
            and observed.payload == new.payload
            and REISSUE_SECONDS < observed.not_after - self._now() <= LIFETIME_SECONDS
        )

    def _newer(self, found: bytes | str | None, new: _Entry) -> int | None:
        """The epoch of what lies there, where it is higher than the new one's.

        The registry draws an epoch for each payload, so two of one epoch are no honest ones; but a
        tombstone is written in two ways.
        """
        observed = self._verified(new.host, found)
        if observed is None:
            return None
        if observed.epoch > new.epoch:
            return observed.epoch
        gone = observed.payload["status"] == new.payload["status"] == Status.GONE
        if observed.epoch == new.epoch and observed.payload != new.payload and not gone:
            log.error(
                "%s: the cache held another entry of epoch %d than the registry decided: it is forged with a"
                " key of ours, and is overwritten",
                new.host,
                new.epoch,
            )
        return None

    def _verified(self, host: str, entry: bytes | str | None) -> PublishedConfig | None:
        if entry is None:
            return None
        try:
            payload = verify(entry, host=host, keys=self._keys)
            config = TenantConfig.from_payload(payload)
        except TenantConfigError:
            return None  # nobody believes it, so it is no entry
        return PublishedConfig(host, config.epoch, undated(payload), config.not_after)

    def _sign(self, payload: dict[str, Any]) -> _Entry:
        key_id, key = self._signing_key
        try:
            dated = issued(payload, at=self._now())
            config = TenantConfig.from_payload(dated)
            json.dumps(dated, allow_nan=False)  # Python would write NaN, which JSON does not know
            text = sign(dated, key_id=key_id, key=key).encode("ascii")
        except (TenantConfigError, TypeError, ValueError, RecursionError) as error:
            raise Invalid("tenant config", f"a TenantConfig v2 ({error})") from error
        if not config.host:
            raise Invalid("tenant config: host", "a host name")
        lifetime = TOMBSTONE_SECONDS if config.status is Status.GONE else 0
        return _Entry(config.host, config.epoch, undated(payload), text, lifetime)


def _contended(new: _Entry) -> Retryable:
    return Retryable(f"{new.host}: other writers changed the entry {ROUNDS} times in between")


def _arguments(found: bytes | str | None, new: _Entry) -> list[bytes | str | int]:
    invalidation = Invalidation("config", new.host, new.epoch, new.payload["tenant_id"]).encode()
    return [found or b"", new.text, new.lifetime, INVALIDATION_CHANNEL, invalidation]


def tombstone(host: str, epoch: int) -> dict[str, Any]:
    """The payload that `remove` leaves: the host is nobody's."""
    return TenantConfig(
        host=host,
        tenant_id="",
        slug="",
        status=Status.GONE,
        epoch=epoch,
        plan="",
        pool_size=1,
        dedicated=False,
        release=None,
        placement=None,
        database=None,
        profile={},
    ).to_payload()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Retryable(f"config cache: {type(error).__name__}: {error}") from error
