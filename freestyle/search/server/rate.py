"""How often an address may ask: token buckets in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable


class TokenBuckets:
    """One bucket of ``burst`` tokens per address, refilled at ``rate`` tokens a second.

    The addresses heard of least recently are forgotten when there are too many; forgetting one
    gives it a full bucket, so memory is bounded and nobody is refused wrongly.

    >>> clock = iter([0.0, 0.0, 0.0, 0.5]).__next__
    >>> buckets = TokenBuckets(rate=2, burst=2, clock=clock)
    >>> [buckets.wait("10.0.0.1") for _ in range(4)]
    [0.0, 0.0, 0.5, 0.0]
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self.burst = max(burst, 1.0)
        self.addresses = addresses
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, address: str, cost: float = 1.0) -> float:
        """Take ``cost`` tokens; 0 where they were there, else the seconds until they will be."""
        if self.rate <= 0:
            return 0.0
        key, now = bucket_of(address), self._clock()
        tokens, when = self._buckets.pop(key, (self.burst, now))
        tokens = min(self.burst, tokens + (now - when) * self.rate)
        enough = tokens >= cost
        self._buckets[key] = (tokens - cost if enough else tokens, now)
        if len(self._buckets) > self.addresses:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (cost - tokens) / self.rate


def bucket_of(address: str) -> str:
    """The address, or the /64 network of an IPv6 one, which a single client has to itself.

    >>> bucket_of("2001:db8:1:2:3:4:5:6"), bucket_of("10.0.0.1"), bucket_of("odd")
    ('2001:db8:1:2::', '10.0.0.1', 'odd')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return address
