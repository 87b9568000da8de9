"""Runs the launcher with stand-ins: ``python -m tests.local.launch FOLDER PORT WEB WORKER``."""
# ruff: noqa: T201 - what it prints is what the tests read

import os
import sys
from pathlib import Path

from app.local.errors import LocalError
from app.local.folder import DataFolder
from app.local.launcher import Launcher, StopAsked
from app.local.plan import Part, Plan
from app.local.processes import StopRule


def part(name, mode, rank):
    command = (sys.executable, "-S", str(Path(__file__).with_name("standin_part.py")), name, mode)
    grace = 0.5 if mode == "worker-stubborn" else 10
    return Part(name=name, command=command, rule=StopRule(stop_rank=rank, grace_seconds=grace))


def main(folder, port, web="web", worker="worker"):
    plan = Plan(
        folder=DataFolder(Path(folder)),
        host="127.0.0.1",
        port=int(port),
        database_url=os.environ.get("DATABASE_URL"),
        redis_url=os.environ.get("REDIS_URL"),
        migrate=lambda: lambda url: print(f"migrating {url}", flush=True),
        parts=(part("web", web, 0), part("worker", worker, 1)),
    )
    try:
        with Launcher(plan, lambda line: print(line, flush=True)) as launcher:
            print(f"up at {launcher.address}", flush=True)
            launcher.watch()
    except StopAsked:
        print("stopped early", flush=True)
    except LocalError as error:
        print(error, flush=True)
        sys.exit(1)
    print("down", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
