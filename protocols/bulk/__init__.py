"""Answers for more rows than one memory or one process holds: shard by shard, by any number of processes."""

from protocols.bulk.engines import answer_shards as answer_shards
from protocols.bulk.run import Options as Options
