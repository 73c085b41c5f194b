import logging
import threading
import time

import pytest

from controlplane.web.wake_up import WakeUp


class Broker:
    def __init__(self) -> None:
        self.down = False
        self.tries = 0
        self.now = 100.0

    def notify(self, task: str, args: list[str]) -> None:
        self.tries += 1
        if self.down:
            raise OSError("refused")

    def clock(self) -> float:
        return self.now


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_a_failed_wake_up_is_logged_and_never_raised(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.down = True
    with caplog.at_level(logging.WARNING):
        WakeUp(broker.notify, clock=broker.clock)("task", ["a-secret-argument"])
    assert "task" in caplog.text
    assert "OSError" in caplog.text
    assert "a-secret-argument" not in caplog.text


def test_after_a_failure_nobody_tries_for_a_while(broker: Broker) -> None:
    wake_up = WakeUp(broker.notify, pause=2, clock=broker.clock)
    broker.down = True
    for _ in range(5):
        wake_up("task", [])
    assert broker.tries == 1
    broker.now += 2.1
    wake_up("task", [])
    assert broker.tries == 2


def test_a_broker_that_is_back_is_used_again(broker: Broker) -> None:
    wake_up = WakeUp(broker.notify, pause=2, clock=broker.clock)
    broker.down = True
    wake_up("task", [])
    broker.down = False
    broker.now += 2.1
    for _ in range(3):
        wake_up("task", [])
    assert broker.tries == 4


def test_one_caller_tries_while_the_others_go_on_without() -> None:
    let_go, failing = threading.Event(), threading.Event()
    tries = []

    def notify(task: str, args: list[str]) -> None:
        tries.append(task)
        if failing.is_set():
            assert let_go.wait(60)
        raise OSError("refused")

    now = [100.0]
    wake_up = WakeUp(notify, pause=2, clock=lambda: now[0])
    wake_up("first", [])
    failing.set()
    now[0] += 2.1
    stuck = threading.Thread(target=wake_up, args=("second", []))
    stuck.start()
    while len(tries) < 2:
        time.sleep(0.001)
    wake_up("third", [])  # comes back while the second one still tries
    assert stuck.is_alive()
    assert tries == ["first", "second"]
    let_go.set()
    stuck.join()
