"""Takes each request to its own tenant's database: host → tenant → connection.

`resolver` finds the tenant, `pools` and `async_pools` lend connections, `wsgi` and `asgi` bind both to
requests, `context` is what applications call, `settings` builds it all from the environment. `contract`
is the format of routing entries and depends on nothing. docs/dataplane.md shows how they are used.
"""
