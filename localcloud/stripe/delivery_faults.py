"""What may go wrong between Stripe and a webhook endpoint, switched on by tests.

Delivery is at least once and in no order; these switches make that happen on demand instead of by
luck, and repeatably.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Any

from controlplane.localcloud.servers.fake_http.faults import BadControl, number


@dataclass(slots=True)
class DeliveryFaults:
    """`duplicates`: further copies of every delivery. `drop`: share lost for good, 0 to 1.
    `delay_seconds`: added before the first attempt. `hold`: nothing leaves until released.
    `reorder_window`: hold until so many wait (or 2 s passed), then send them shuffled. `seed` makes
    drops and shuffles repeatable."""

    duplicates: int = 0
    drop: float = 0.0
    delay_seconds: float = 0.0
    hold: bool = False
    reorder_window: int = 0
    seed: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(0), repr=False)
    held_since: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def set(self, described: Any) -> None:
        """Replace all switches. Raises BadControl naming the field."""
        if not isinstance(described, dict):
            raise BadControl("deliveries: expected an object")
        known = ("duplicates", "drop", "delay_seconds", "hold", "reorder_window", "seed")
        for key in described:
            if key not in known:
                raise BadControl(f"deliveries.{key}: unknown, expected one of {', '.join(known)}")
        if not isinstance(described.get("hold", False), bool):
            raise BadControl("deliveries.hold: expected true or false")

        def read(key: str, high: float) -> float:
            return number(f"deliveries.{key}", described.get(key, 0), low=0, high=high)

        with self.lock:
            self.duplicates = int(read("duplicates", 100))
            self.drop = read("drop", 1)
            self.delay_seconds = read("delay_seconds", 3600)
            self.reorder_window = int(read("reorder_window", 10_000))
            self.hold = described.get("hold", False)
            self.seed = int(read("seed", 2**31))
            self.dice = random.Random(self.seed)

    def describe(self) -> dict[str, Any]:
        return {
            "duplicates": self.duplicates,
            "drop": self.drop,
            "delay_seconds": self.delay_seconds,
            "hold": self.hold,
            "reorder_window": self.reorder_window,
            "seed": self.seed,
        }
