"""`python -m local demo|up|down`: what `make` calls."""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("command", choices=["demo", "up", "down", "keep"], help="`keep` is what `up` leaves running")
    command = parser.parse_args().command
    if command == "demo":
        from local import demo  # noqa: PLC0415  each command imports only what it needs

        return demo.main()
    from local import service  # noqa: PLC0415

    return {"up": service.up, "down": service.down, "keep": service.keep}[command]()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the first handler was in place
        sys.exit(130)
