"""django-tenants migrating as many schemas of one database: a peer of `benchmarks.migrations`."""
