"""What the driver raises, as a `ConnectionError` that says what is wrong and what to do."""

from __future__ import annotations

from redis import exceptions

_SILENT = " does not answer"


def diagnosis(error: BaseException, place: str) -> str:
    """Return one sentence about an error of the server at `place`."""
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    for known, says in _SAYS.items():
        if known in text or known in type(error).__name__:
            return f"Redis at {place} {says} ({text})"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return f"Redis at {place}{_SILENT}: {text}"
    return f"Redis at {place} refused: {text}"


def is_silence(told: str) -> bool:
    """Return whether a diagnosis tells of a server that does not answer, and not of a refusal."""
    return _SILENT in told


_PASSWORD = "refuses user or password; check WORCHFLOW_QUEUE_URL and WORCHFLOW_STEP_CACHE_URL"
_CLUSTER = (
    "is part of a cluster: connect to it through a proxy, or use one node that holds all slots and "
    "put braces into WORCHFLOW_PREFIX, such as {worchflow}"
)
_SAYS = {
    "NOAUTH": _PASSWORD,
    "WRONGPASS": _PASSWORD,
    "invalid password": _PASSWORD,
    "invalid username-password": _PASSWORD,
    "Authentication required": _PASSWORD,
    "AuthenticationError": _PASSWORD,
    "NOPERM": "denies the user a command or key; its ACL must allow ~PREFIX:* and the list, hash "
    "and key commands",
    "NoPermissionError": "denies the user a command or key; its ACL must allow ~PREFIX:* and the "
    "list, hash and key commands",
    "ReadOnlyError": "is a read-only replica; point the URL at the primary, or use "
    "redis+sentinel://",
    "read only replica": "is a read-only replica; point the URL at the primary, or use "
    "redis+sentinel://",
    "BusyLoadingError": "is still loading its data",
    "loading the dataset": "is still loading its data",
    "OutOfMemoryError": "is full: raise maxmemory or remove keys; queued work is still consumed",
    "WRONGTYPE": "has a key of another type where one of ours belongs: another program uses this "
    "prefix; delete the key or choose another WORCHFLOW_PREFIX",
    "MISCONF": "cannot write its snapshot and takes no writes; look at its disk and its log",
    "MOVED": _CLUSTER,
    "MovedError": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "ClusterCrossSlotError": _CLUSTER,
}
