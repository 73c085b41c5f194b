"""The external systems in one file: every provider of the workers, without a server behind it.

The simulator, the fault suite and the engine's own tests run on these. Each passes the provider tests
that its real provider passes (`tests/provider`), and what it hears it keeps in a `World`, so that a
worker which is killed leaves behind just what AWS, Stripe and Cloudflare would have kept.
"""
