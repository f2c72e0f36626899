"""The contract of `find`: every answer equals that of `Query.page` over the same data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from worchflow_core.models import Execution, Failure, Status
from worchflow_core.protocols import Store
from worchflow_core.query import Condition, Operator, Query
from worchflow_core.testing.contracts.opening import StoreOpener, opened
from worchflow_core.testing.contracts.samples import HOSTILE, NOW, at, execution

_ORDERS = ("created_at", "updated_at", "finished_at", "due_at", "hint_at")
_ERRORS = (None, "ValueError", "flows.errors.ValueError", "flows.Timeout", "xValueError")
_FUNCTIONS = ("pay", "pay-out", "Pay", "ship", "50%_off")


def _sample() -> list[Execution]:
    """Return 96 executions with many ties, gaps and near misses."""
    statuses = list(Status)
    made = []
    for number in range(96):
        kind = _ERRORS[number % len(_ERRORS)]
        some = number % 3
        made.append(
            execution(
                f"{'ab%_'[number % 4]}{number:02}",
                function=_FUNCTIONS[number % len(_FUNCTIONS)],
                status=statuses[number % len(statuses)],
                created_at=at(number // 6),
                updated_at=at(number // 5),
                finished_at=at(number // 4) if number % 2 else None,
                due_at=at(number // 7) if some else None,
                hint_at=at(number % 5) if some == 1 else None,
                hinted_at=at(number % 6) if some == 2 else None,
                deadline_at=at(number % 9) if number % 4 == 3 else None,
                cancel_requested_at=at(number % 3) if number % 5 == 0 else None,
                owner=(None, "w1", "w2")[number // 2 % 3],
                handlers_due=number % 7 == 0,
                waits=(f"k{number % 4}", "all")[: number % 3],
                tags=tuple(f"t{n}" for n in range(number % 4)),
                parent=None if some else f"b{number % 8:02}",
                forked_from="a00" if number % 11 == 0 else None,
                error=Failure(type=kind, message="m") if kind else None,
                priority=number % 2,
            )
        )
    return made


def _conditions() -> Iterator[Condition]:
    """Yield a condition for every field in use and every operator that makes sense for it."""
    texts: dict[str, tuple[str, ...]] = {
        "id": ("a00", "b01", "%02", "nobody", "a"),
        "function": ("pay", "ship", "50%_off", "nobody"),
        "owner": ("w1", "w2", "nobody"),
        "parent": ("b00", "b03", "nobody"),
        "forked_from": ("a00", "nobody"),
    }
    for name, values in texts.items():
        for value in values:
            yield Condition(name, Operator.EQUAL, value)
            yield Condition(name, Operator.IN, (value,))
        yield Condition(name, Operator.IN, values)
        yield Condition(name, Operator.IN, ())
        yield Condition(name, Operator.NOT_IN, values[:2])
        yield Condition(name, Operator.NOT_IN, ())
    for name in ("id", "function"):
        for prefix in ("a", "pay", "P", "%", "_", "50%_", "a0", "\U0010ffff"):
            yield Condition(name, Operator.PREFIX, prefix)
    for status in Status:
        yield Condition("status", Operator.EQUAL, status)
    some = (Status.FAILED, Status.QUEUED, Status.WAITING)
    yield Condition("status", Operator.IN, some)
    yield Condition("status", Operator.NOT_IN, some)
    for name in (*_ORDERS, "hinted_at", "deadline_at", "cancel_requested_at"):
        for moment in (at(-1), NOW, at(2), at(2.001), at(99)):
            yield Condition(name, Operator.BEFORE, moment)
            yield Condition(name, Operator.SINCE, moment)
        yield Condition(name, Operator.EQUAL, at(2))
    for name in ("owner", "parent", "forked_from", "finished_at", "due_at", "hint_at"):
        yield Condition(name, Operator.EQUAL, None)
    for name in ("hinted_at", "deadline_at", "cancel_requested_at"):
        yield Condition(name, Operator.EQUAL, None)
    for flag in (True, False):
        yield Condition("handlers_due", Operator.EQUAL, flag)
    for name, values in (("waits", ("k1", "all", "x")), ("tags", ("t0", "t2", "x"))):
        yield Condition(name, Operator.HAS, ())
        yield Condition(name, Operator.HAS, values)
        for value in values:
            yield Condition(name, Operator.HAS, (value,))


async def _compare(store: Store, sample: list[Execution], query: Query) -> None:
    expected, found = query.page(sample), await store.find(query)
    ids = ([item.id for item in found.items], [item.id for item in expected.items])
    assert ids[0] == ids[1], query
    assert found.items == expected.items, query
    assert found.total == expected.total, query


class FindingContract(StoreOpener):
    """Queries are answered as the reference answers them."""

    @opened
    async def test_every_condition(self, store: Store) -> None:
        """Each operator on each field in use, alone and with a status beside it."""
        sample = _sample()
        await store.create(sample)
        beside = Condition("status", Operator.NOT_IN, (Status.COMPLETED, Status.QUEUED))
        for condition in _conditions():
            query = Query(where=(condition,), limit=1000, counted=True)
            await _compare(store, sample, query)
            await _compare(store, sample, replace(query, where=(condition, beside)))

    @opened
    async def test_every_order(self, store: Store) -> None:
        """Both directions of each order; executions without the field are left out."""
        sample = _sample()
        await store.create(sample)
        where = (Condition("function", Operator.IN, ("pay", "ship")),)
        for order in _ORDERS:
            for descending in (True, False):
                query = Query(order=order, descending=descending, limit=1000, counted=True)
                await _compare(store, sample, query)
                await _compare(store, sample, replace(query, where=where))

    @opened
    async def test_cursors_walk_through_ties(self, store: Store) -> None:
        """Reading on behind the last execution seen gives each exactly once."""
        sample = _sample()
        await store.create(sample)
        for order in _ORDERS:
            for descending in (True, False):
                query = Query(order=order, descending=descending, limit=7)
                everything = [item.id for item in replace(query, limit=1000).page(sample).items]
                walked: list[str] = []
                while page := (await store.find(query)).items:
                    assert len(page) <= 7
                    walked += [item.id for item in page]
                    query = replace(query, after=query.order_key(page[-1]))
                assert walked == everything, (order, descending)

    @opened
    async def test_cursor_skip_and_count_together(self, store: Store) -> None:
        """A cursor and a skip add up; the count is that of all matches."""
        sample = _sample()
        await store.create(sample)
        where = (Condition("tags", Operator.HAS, ("t0", "t1")),)
        for descending in (True, False):
            query = Query(where=where, descending=descending, limit=5, counted=True)
            edge = query.order_key(query.page(sample).items[3])
            await _compare(store, sample, replace(query, skip=4))
            await _compare(store, sample, replace(query, after=edge))
            await _compare(store, sample, replace(query, after=edge, skip=3))
            await _compare(store, sample, replace(query, after=(at(3), "nobody")))
            await _compare(store, sample, replace(query, skip=1000))

    @opened
    async def test_search(self, store: Store) -> None:
        """The start of an id or a function, or the error's type with or without its module."""
        sample = _sample()
        await store.create(sample)
        texts = ["a", "a0", "pay", "Pay", "p", "50%", "%", "_", "ValueError", "flows.Timeout"]
        texts += ["errors.ValueError", "flows.errors.ValueError", "Value", "Timeout", ".", "x"]
        where = (Condition("status", Operator.IN, (Status.FAILED, Status.COMPLETED)),)
        for text in [*texts, *HOSTILE]:
            query = Query(search=text, limit=1000, counted=True)
            await _compare(store, sample, query)
            await _compare(store, sample, replace(query, where=where, order="finished_at"))

    @opened
    async def test_several_conditions_must_all_hold(self, store: Store) -> None:
        """Conditions narrow each other, also two on one field."""
        sample = _sample()
        await store.create(sample)
        span = (
            Condition("created_at", Operator.SINCE, at(3)),
            Condition("created_at", Operator.BEFORE, at(11)),
        )
        keys = (
            Condition("waits", Operator.HAS, ("all",)),
            Condition("waits", Operator.HAS, ("k1", "k2")),
            Condition("tags", Operator.HAS, ("t0",)),
        )
        free = (Condition("owner", Operator.EQUAL, None), Condition("id", Operator.PREFIX, "b"))
        for where in (span, keys, free, (*span, *free), (*keys, *span)):
            await _compare(store, sample, Query(where=where, limit=1000, counted=True))
            await _compare(store, sample, Query(where=where, limit=3, order="updated_at"))

    @opened
    async def test_hostile_values(self, store: Store) -> None:
        """A value of a condition is a value, whatever it looks like."""
        sample = [
            execution(f"{number}", function=text, parent=text, waits=(text,), tags=("x", text))
            for number, text in enumerate(HOSTILE)
        ]
        await store.create(sample)
        for text in HOSTILE:
            for condition in (
                Condition("function", Operator.EQUAL, text),
                Condition("function", Operator.PREFIX, text[:3]),
                Condition("parent", Operator.IN, (text, "x")),
                Condition("waits", Operator.HAS, (text,)),
                Condition("tags", Operator.HAS, (text, "y")),
                Condition("function", Operator.NOT_IN, (text,)),
            ):
                await _compare(store, sample, Query(where=(condition,), counted=True))

    @opened
    async def test_answers_are_current(self, store: Store) -> None:
        """What a write that returned changed, the next query sees."""
        query = Query(where=(Condition("owner", Operator.EQUAL, "w"),), counted=True)
        for number in range(20):
            await store.create(
                [execution(f"e{number}", created_at=NOW + timedelta(seconds=number))]
            )
            await store.claim("w", ["f"], limit=1, now=at(100))
            page = await store.find(query)
            assert [item.id for item in page.items] == [f"e{n}" for n in range(number, -1, -1)]
            assert page.total == number + 1
