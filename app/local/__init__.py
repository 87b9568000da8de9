"""Everything on one machine: private servers from wheels, and the launcher of ``make up``.

An entry layer: only the commands and the tests import it. The launcher's modules need nothing but
the standard library, so that ``up`` starts quickly and its guard stays small; ``receiver`` alone
brings aiohttp.
"""
