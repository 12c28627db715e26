"""Limits and defaults of a server, for `edgezo serve` and for a run that is served."""

from __future__ import annotations

PORT = 8000
"""Port to listen at."""

WAITING = 8
"""Requests that wait while one is answered."""

MOST_WAITING = 1024
"""Largest number of requests that may wait."""

TEMPERATURE = 1.0
"""Of requests that give none."""

MOST_LOGPROBS = 20
"""Likeliest tokens whose log-probabilities a request may ask for, at each place of its answer."""

BODY_BYTES = 10**6
"""Largest body of a request."""

MOST_BODY_BYTES = 16 * 10**6
"""Largest value for the largest body."""

HEAD_S = 30.0
"""Seconds in which a connection must have sent the head of a request."""

BODY_S = 30.0
"""Seconds in which a client must have sent its request."""

READ_S = 30.0
"""Seconds in which a client must have read what was sent to it."""

MOST_CONNECTIONS = 128
"""Connections at a time."""

MOST_OF_ONE_PEER = 64
"""Connections of one address at a time."""
