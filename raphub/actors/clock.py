"""What time is it, for leases?

Seconds on a clock that only this machine shares, that never goes back, and that also counts while
the machine is suspended: a lease must not outlive a laptop's lid.
"""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_s() -> float:
    """Seconds since an arbitrary moment; comparable within one machine's boot only."""
    return time.clock_gettime(_BOOTTIME)
