"""The names of keys: all begin with the prefix, and the original's are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix; a prefix that holds `{...}` puts all into one cluster slot."""

    prefix: str

    @property
    def queue(self) -> str:
        """The list of execution ids that any client may push to."""
        return f"{self.prefix}:queue"

    @property
    def epoch(self) -> str:
        """A random text that is gone when the server lost its memory."""
        return f"{self.prefix}:epoch"

    @property
    def foreign_leader(self) -> str:
        """The lock of the original's scheduler, gone a minute after it stopped."""
        return f"{self.prefix}:scheduler:leader"

    def lane(self, function: str) -> str:
        """The list of ids that reached a worker which lacks their function."""
        return f"{self.prefix}:queue:{function}"

    def execution(self, execution_id: str) -> str:
        """The hash in which outside readers find an execution."""
        return f"{self.prefix}:execution:{execution_id}"

    def steps(self, execution_id: str) -> str:
        """The hash of copies of an execution's steps."""
        return f"{self.prefix}:steps:{execution_id}"
