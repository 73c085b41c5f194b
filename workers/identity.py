"""Who this worker is, in the words that Terraform writes into its locks."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """`user@host`, as Terraform's own lock names the holder."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def holder() -> str:
    """The name under which this process holds leases."""
    return f"{socket.gethostname()}/{os.getpid()}"
