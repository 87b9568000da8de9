"""A process that may open few files, as on small machines: idle connections must not fill it up."""

import subprocess
import sys
import textwrap

# In a process of its own: the limit is one of the process, which would be that of the tests.
SCRIPT = textwrap.dedent("""
    import asyncio, ipaddress, resource, sys
    from collections import Counter
    from dataclasses import replace
    from datetime import UTC, datetime

    import uvloop

    from app.domain.destinations import DestinationInput, make_destination
    from app.domain.envelopes import JSON, Payload
    from worker.sender import Sender
    from worker.targets import Targets

    AT_ONCE = 70
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    made = make_destination(1, DestinationInput(key="a", url="http://127.0.0.1/"),
                            now=datetime.now(UTC))

    async def main():
        async with Sender([ipaddress.ip_network("127.0.0.0/8")]) as sender:
            for url in sys.argv[1:] * 2:
                target = Targets().of(replace(made, url=url))
                outcomes = await asyncio.gather(
                    *(sender.send(target, "msg_1", Payload(b"{}", JSON)) for _ in range(AT_ONCE)))
                print(*Counter(one.error for one in outcomes))

    uvloop.run(main())
""")


def test_idle_connections_give_way_to_new_ones(make_receiver):
    urls = [make_receiver().url for _ in range(3)]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *urls],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.splitlines() == ["None"] * 6
