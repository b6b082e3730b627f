"""What `verbose` says: records of the logger "ssn_estimators", or lines on stdout."""

from __future__ import annotations

import logging

__all__ = ["is_due", "tell"]

logger = logging.getLogger("ssn_estimators")


def tell(line):
    """Say a line of `verbose`.

    It is a record of level INFO where logging hands these to somebody. Elsewhere it is printed:
    the default level of logging would drop it, though it was asked for.
    """
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(line, stacklevel=2)
    else:
        print(line, flush=True)


def is_due(verbose, step):
    """Whether a `verbose` above 1, which is a number of steps, asks for a line after this one."""
    return verbose > 1 and step % verbose == 0
