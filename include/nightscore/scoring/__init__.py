"""Scoring: `score` is pure, arrays in and arrays out; `shard` feeds it and stores what it gives."""
