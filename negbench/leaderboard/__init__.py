"""The leaderboard: entries -> checks -> table -> page -> publish.

A folder of small files that anyone can check: an entry is one JSON file with a run's whole plan and
estimates, and a sidecar with the values of every case, so that each number can be computed again
and any two entries compared pair by pair. Everything else in the folder is generated from them.

    entries/<benchmark>@<version>/<generator>-<digest 12>/<method>-<plan 12>.json
    entries/.../<method>-<plan 12>.values.parquet
    entries.lock        append-only: what was added, what was withdrawn and why
    leaderboard.json    leaderboard.csv, leaderboard.parquet, comparisons.csv
    index.html          pages/..., one an entry
    schema/             JSON Schemas of the files above
"""
