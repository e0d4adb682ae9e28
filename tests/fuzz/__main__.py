"""Fuzz a live API: `python -m tests.fuzz --cases 100000 --seed 1 [--seconds 600] [--only hostile|generated]`.

Half of the cases are schemathesis's, half our own. Ends with 1 where an answer was a fault of the server's, came late,
or was not as OpenAPI says.
"""

from __future__ import annotations

import argparse
import sys

import httpx2

from tests.fuzz import generated
from tests.fuzz.hostile import Hostile
from tests.fuzz.hunting import hunt
from tests.fuzz.judging import Judge
from tests.fuzz.service import live

LINES = 4
PHASES = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=3600, help="at most, for what schemathesis makes")
    parser.add_argument("--only", choices=("hostile", "generated"))
    wanted = parser.parse_args()
    cases, failed = 0, False
    with live() as target:
        document = httpx2.get(f"{target.url}/openapi.json").json()
        half = wanted.cases if wanted.only else wanted.cases // 2
        if wanted.only != "generated":
            seeds = [f"{wanted.seed}.{line}" for line in range(LINES)]
            sources = [Hostile(document, target.pools, target.key, seed).next for seed in seeds]
            found = hunt(target.url, Judge(document), sources, half)
            print(f"hostile: {found}", flush=True)
            cases, failed = cases + found.cases, bool(found.faults)
        if wanted.only != "hostile":
            operations = sum(len(every) for every in document["paths"].values())
            result = generated.run(target, max(1, half // operations // PHASES), wanted.seed, wanted.seconds)
            print(result.text if result.failed else f"generated: {result.cases:,} cases, 0 faults", flush=True)
            cases, failed = cases + result.cases, failed or result.failed
    print(f"{cases:,} cases in all: {'there are faults' if failed else 'no fault'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
