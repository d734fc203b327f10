"""The model registry: immutable versions in the bucket, aliases that move, loading that audits before it constructs."""
