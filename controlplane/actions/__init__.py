"""What a person may do to a tenant or a cluster, each declared once, one file an action.

The API's routes, the commands of `controlplane tenants` and `clusters`, the dry run and the audit trail are
made from the declarations: an action that is added here is there everywhere, with the same parameters, bounds
and words. A file registers its action when it is imported, and this package imports them all.
"""

from __future__ import annotations

import importlib
import pkgutil

from controlplane.actions.action import REGISTERED

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

ACTIONS = dict(sorted(REGISTERED.items()))
"""By subject and name."""
