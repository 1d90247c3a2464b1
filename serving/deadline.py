"""``timeout``: a limit in seconds on a block of code, on every supported Python.

``asyncio.wait_for`` is not used where requests pass: in Python 3.11 its frame stays in a cycle with the exception that
it raises, and with it whatever the frames of that exception hold, such as a picture, until the garbage collector's next
full run.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
