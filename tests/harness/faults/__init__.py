"""Fault proxies: what stands between a client and a server and may misbehave on demand.

    tcp     any server: PostgreSQL, Valkey, an emulator. Late, cut, reset, refused, or a black hole.
    http    an API: answers made up, or lost after the server did the work.

The fake servers of Stripe and Cloudflare have switches of their own as well
(`controlplane.localcloud.servers.fake_http.faults`).
"""
