"""A slot: it does what is due in its lane, and looks once a second for what nobody has told it of.

Every worker is made of these. One of Celery's pool processes is a slot that wake-ups make quick; here is the
worker that has no broker at all and only looks, which is what keeps a fleet going while Redis is down:
`python -m controlplane.workers.runtime.polling`.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.job import Lane
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.run import drain, where
from controlplane.workers.jobs.handlers import HANDLERS
from controlplane.workers.schedule import duties

log = logging.getLogger(__name__)

IDLE = 1.0
SLOTS: Mapping[Lane, int] = {Lane.QUICK: 2, Lane.LONG: 2}


class Slot:
    """One job at a time, of these lanes. `stop`: set once it is to begin no other."""

    def __init__(self, ctx: Callable[[], Context], lanes: Sequence[Lane], stop: threading.Event) -> None:
        self._ctx, self._lanes, self._stop = ctx, lanes, stop
        self._busy = threading.Lock()
        self._ensured = False

    def work(self) -> None:
        """Do all that is due, unless it is at work already. What goes wrong is logged."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            ctx = self._ctx()
            if not self._ensured:
                ctx.heartbeat.start()
                duties.ensure(ctx)
                self._ensured = True
            for lane in self._lanes:
                drain(ctx, HANDLERS, lane, stopping=self._stop.is_set)
        except ControlPlaneError as error:
            log.warning("%s", error)
        except Exception as error:  # noqa: BLE001 — the worker must outlive whatever it is
            log.error("unexpected %s\n%s", type(error).__name__, where(error))  # noqa: TRY400
        finally:
            self._busy.release()

    def poll(self) -> None:
        """Until `stop`."""
        while not self._stop.is_set():
            self.work()
            self._stop.wait(IDLE)

    def end(self) -> None:
        """Begin nothing more; wait for what is at work."""
        self._stop.set()
        with self._busy:
            return


def run(ctx: Context, stop: threading.Event, slots: Mapping[Lane, int] = SLOTS) -> None:
    """So many slots of each lane, each in a thread of its own, until `stop`."""
    threads = [
        threading.Thread(target=Slot(lambda: ctx, [lane], stop).poll, name=f"{lane}-{number}")
        for lane, count in slots.items()
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(slots: Mapping[Lane, int] = SLOTS) -> None:
    from controlplane.workers.runtime.wiring import context_from_environment

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ctx = context_from_environment()
    try:
        run(ctx, stop, slots)
    finally:
        ctx.heartbeat.close()
        ctx.registry.close()


if __name__ == "__main__":
    from controlplane.workers.runtime.wiring import prepare_from_environment

    prepare_from_environment()
    main()
