"""A wake-up goes out at once, in bursts ten times a second, and never holds anybody up."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from celery import Celery

from controlplane.domain.job import Lane
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.wake_up import FULL, TASK, WakeUp, publisher

QUICK, LONG = Lane


class Broker:
    """And the time: it passes when it is told to, and what was put off until then is done."""

    def __init__(self) -> None:
        self.down = False
        self.tried: list[Lane] = []
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def publish(self, lane: Lane) -> None:
        self.tried.append(lane)
        if self.down:
            raise OSError("a-secret-of-the-broker")

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.later.append((self.now + seconds, act))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        due = [act for at, act in self.later if at <= self.now]
        self.later = [(at, act) for at, act in self.later if at > self.now]
        for act in due:
            act()

    def wake_up(self, *, gap: float = 0.1, pause: float = 2.0) -> WakeUp:
        return WakeUp(self.publish, gap=gap, pause=pause, clock=lambda: self.now, after=self.after)


@pytest.fixture
def fake() -> Broker:
    return Broker()


# --------------------------------------------------------------------------------------- bursts


def test_the_first_goes_out_at_once(fake: Broker) -> None:
    fake.wake_up()(QUICK)
    assert (fake.tried, fake.later) == ([QUICK], [])


def test_those_within_the_gap_are_one_at_its_end(fake: Broker) -> None:
    wake_up = fake.wake_up(gap=0.125)
    for _ in range(50):
        wake_up(QUICK)
    assert fake.tried == [QUICK]
    fake.passes(0.0625)
    wake_up(QUICK)
    assert fake.tried == [QUICK]
    fake.passes(0.0625)
    assert fake.tried == [QUICK] * 2, "the last of the burst was not overlooked"
    fake.passes(1)
    assert fake.tried == [QUICK] * 2, "and it was one"
    wake_up(QUICK)
    assert fake.tried == [QUICK] * 3, "after a quiet time it is the first again"


def test_a_burst_that_lasts_costs_one_in_each_gap(fake: Broker) -> None:
    wake_up = fake.wake_up(gap=0.125)
    for _ in range(160):
        wake_up(QUICK)
        fake.passes(0.0625)
    assert len(fake.tried) in (80, 81)


def test_each_lane_has_its_own_gap(fake: Broker) -> None:
    wake_up = fake.wake_up()
    for lane in (QUICK, LONG, QUICK, LONG):
        wake_up(lane)
    assert fake.tried == [QUICK, LONG]
    fake.passes(0.2)
    assert fake.tried == [QUICK, LONG] * 2


def test_the_end_of_the_gap_comes_by_itself() -> None:
    heard, twice = list[Lane](), threading.Event()

    def publish(lane: Lane) -> None:
        heard.append(lane)
        if len(heard) == 2:
            twice.set()

    wake_up = WakeUp(publish, gap=0.01)
    wake_up(QUICK)
    wake_up(QUICK)
    assert twice.wait(60)


# ----------------------------------------------------------------------------- a broker that is down


def test_a_failed_wake_up_is_logged_and_never_raised(fake: Broker, caplog: pytest.LogCaptureFixture) -> None:
    fake.down = True
    with caplog.at_level(logging.WARNING):
        fake.wake_up()(LONG)
    assert "lane long" in caplog.text
    assert "OSError" in caplog.text
    assert "a-secret-of-the-broker" not in caplog.text


def test_one_that_fails_at_the_end_of_the_gap_is_logged_too(
    fake: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    wake_up = fake.wake_up()
    wake_up(QUICK)
    wake_up(QUICK)
    fake.down = True
    with caplog.at_level(logging.WARNING):
        fake.passes(0.2)
    assert len(fake.tried) == 2
    assert "OSError" in caplog.text


def test_after_a_failure_nobody_tries_for_a_while(fake: Broker) -> None:
    wake_up = fake.wake_up(gap=0)
    fake.down = True
    for _ in range(5):
        wake_up(QUICK)
        wake_up(LONG)
    assert len(fake.tried) == 1
    fake.passes(2.1)
    wake_up(LONG)
    assert len(fake.tried) == 2


def test_a_burst_over_a_dead_broker_costs_one_try_in_each_pause(fake: Broker) -> None:
    wake_up = fake.wake_up(gap=0.125, pause=2)
    fake.down = True
    for _ in range(160):
        wake_up(QUICK)
        fake.passes(0.0625)
    assert len(fake.tried) in (5, 6)


def test_a_broker_that_is_back_is_used_again(fake: Broker) -> None:
    wake_up = fake.wake_up(gap=0)
    fake.down = True
    wake_up(QUICK)
    fake.down = False
    fake.passes(2.1)
    for _ in range(3):
        wake_up(QUICK)
    assert len(fake.tried) == 4


def test_one_caller_tries_while_the_others_go_on_without() -> None:
    let_go, failing = threading.Event(), threading.Event()
    tries = []

    def publish(lane: Lane) -> None:
        tries.append(lane)
        if failing.is_set():
            assert let_go.wait(60)
        raise OSError("refused")

    now = [100.0]
    wake_up = WakeUp(publish, gap=0, pause=2, clock=lambda: now[0])
    wake_up(QUICK)
    failing.set()
    now[0] += 2.1
    stuck = threading.Thread(target=wake_up, args=(LONG,))
    stuck.start()
    while len(tries) < 2:
        time.sleep(0.001)
    wake_up(QUICK)  # comes back while the second one still tries
    assert stuck.is_alive()
    assert tries == [QUICK, LONG]
    let_go.set()
    stuck.join()


# -------------------------------------------------------------------------------------- the message


@pytest.fixture
def client(broker: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=broker.port) as opened:
        yield opened


@pytest.fixture
def celery(broker: ValkeyServer) -> Iterator[Celery]:
    with Celery("test", broker=broker.url, set_as_current=False) as app:
        yield app


def test_it_says_which_lane_in_the_queue_of_that_lane(celery: Celery, client: redis.Redis) -> None:
    publish = publisher(celery)
    for lane in (QUICK, LONG):
        publish(lane)
    for lane in Lane:
        (message,) = client.lrange(lane.value, 0, -1)
        headers = json.loads(message)["headers"]
        assert (headers["task"], headers["argsrepr"]) == (TASK, f"['{lane}']")
    assert client.llen("celery") == 0


def test_a_full_queue_gets_no_more_until_somebody_has_taken_one(celery: Celery, client: redis.Redis) -> None:
    publish = publisher(celery)
    for _ in range(FULL + 5):
        publish(QUICK)
    publish(LONG)
    assert (client.llen("quick"), client.llen("long")) == (FULL, 1)
    client.rpop("quick")
    for _ in range(3):
        publish(QUICK)
    assert client.llen("quick") == FULL
