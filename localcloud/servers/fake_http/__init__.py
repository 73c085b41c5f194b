"""What the fake servers for outside systems have in common: a server, a memory and fault switches.

A fake server is a small, stateful server that speaks a vendor's HTTP API well enough that the vendor's
own SDK can't tell the difference on the paths we use. Its vendor's part lives beside this package
(`controlplane.localcloud.stripe`, `controlplane.localcloud.cloudflare`); what is here knows no vendor.
"""
