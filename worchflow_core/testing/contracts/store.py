"""The contract of `Store`, all of it."""

from __future__ import annotations

from worchflow_core.testing.contracts.claiming import ClaimingContract
from worchflow_core.testing.contracts.creating import CreatingContract
from worchflow_core.testing.contracts.finding import FindingContract
from worchflow_core.testing.contracts.records import RecordsContract
from worchflow_core.testing.contracts.steps import StepsContract
from worchflow_core.testing.contracts.summing import SummingContract
from worchflow_core.testing.contracts.updating import UpdatingContract
from worchflow_core.testing.contracts.workers import WorkersContract


class StoreContract(
    CreatingContract,
    ClaimingContract,
    StepsContract,
    UpdatingContract,
    WorkersContract,
    FindingContract,
    SummingContract,
    RecordsContract,
):
    """Subclass it, define `open`, and every promise of `Store` and `Records` is tested."""
