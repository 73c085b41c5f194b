"""Requests of one service take effect one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from threading import RLock
from typing import Any

from moto.core.responses import BaseResponse

from controlplane.localcloud.aws.fidelity.patch import around


def repair() -> None:
    locks: defaultdict[str | None, Any] = defaultdict(RLock)

    @around(BaseResponse, "call_action")
    def one_request_at_a_time(call: Callable[[BaseResponse], Any], self: BaseResponse) -> Any:
        """AWS: two creations of one name have one winner, and a resource that is being modified
        can be described. moto: serves each request in a thread and takes no lock; of two creations
        at once both succeed, and ModifyDBCluster takes the cluster out of the account while it
        works, so a DescribeDBClusters meanwhile says that it does not exist."""
        with locks[self.service_name]:
            return call(self)
