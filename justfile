# Recipes for people who work on negbench; `just` alone lists them.

default:
    @just --list

# everything CI runs
check:
    .ci/run

# the tests; `just test -k store` picks some
test *args:
    uv run pytest {{args}}

# tests that take long
test-slow *args:
    uv run pytest -n 0 -m slow {{args}}

# tests that need a CUDA device
test-gpu *args:
    uv run pytest -n 0 -m gpu {{args}}

# format and lint in place
fmt:
    uv run ruff format
    uv run ruff check --fix

# the README's table of methods on the miniature
table *args:
    uv run negbench evaluate -m none -m placebo -m popular -m human -m negopt -m reward=negopt -p reward.checkpoint=miniature-rl {{args}}

# every method and rule on the miniature into leaderboard/; goes on where it stopped
leaderboard *args:
    uv run negbench leaderboard fill {{args}}
    uv run negbench leaderboard check

# speed comparisons with peers, on a CPU
bench:
    uv run python benchmarks/generation_cpu.py
    uv run python benchmarks/protocol_costs.py --rules 16
    uv run python benchmarks/grid_sharing.py --every 3
    uv run python benchmarks/scoring.py
    uv run python benchmarks/growth.py
