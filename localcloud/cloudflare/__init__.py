"""A stateful fake server for Cloudflare for SaaS, for the demo, development and tests:
`python -m controlplane.localcloud.cloudflare`.

One zone with its custom hostnames, fallback origin and quota, in the shapes, status codes and error
codes of Cloudflare's API reference and its page "Status codes: Custom hostnames". What makes this
API hard is time: a hostname and its certificate become active independently of each other, the
records that the customer must place appear late, and callers are limited. So time passes here too.

What it does not do: DNS, certificates, traffic. It takes it that a customer places the records it is
asked to, unless a test says that this one does not (`/_localcloud/hostnames/<host>`).
"""
