"""The functions of the demonstration, and the titles of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from worchflow_core import Event, Function, Step, function


class Item(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int = Field(1, ge=1)


class Payment(BaseModel):
    """What is to be paid."""

    amount: float = Field(description="Minor units", gt=0, examples=[1999])
    currency: Literal["EUR", "USD", "GBP"] = "EUR"
    customer_id: str = Field(description="Who pays", min_length=1, examples=["cust_123"])
    note: str | None = None
    items: list[Item] = Field(default_factory=list, description="What was ordered")


class Video(BaseModel):
    """A film to encode."""

    url: str = Field(examples=["s3://films/42.mov"])
    minutes: int = Field(1, ge=1, le=600)


class Greeting(BaseModel):
    """Whom to greet."""

    name: str = Field("world", description="Whom to greet")


@function(id="process-payment", retries=3)
async def process_payment(event: Event[Payment], step: Step) -> None:
    """Charge a customer and send the receipt.

    Each step is saved, so that nobody is charged twice.
    """


@function(id="encode-video", retries=2)
async def encode_video(event: Event[Video], step: Step) -> None:
    """Encode a film, a chunk at a time."""


@function(id="hello-world", retries=0)
async def hello_world(event: Event[Greeting], step: Step) -> None:
    """Say hello."""


@function(id="daily-cleanup", cron="0 3 * * *")
async def daily_cleanup(event: Event[Any], step: Step) -> None:
    """Remove what nobody needs any more."""


@function(id="sync-inventory", cron="*/15 * * * *")
async def sync_inventory(event: Event[Any], step: Step) -> None:
    """Copy stock levels from the warehouse."""


FUNCTIONS: tuple[Function[Any, Any], ...] = (
    process_payment,
    encode_video,
    hello_world,
    daily_cleanup,
    sync_inventory,
)

STEPS: Mapping[str, tuple[str, ...]] = {
    "process-payment": (
        "Validate payment",
        "Reserve funds",
        "Charge payment provider",
        "Wait for webhook",
        "Write ledger",
        "Send receipt",
    ),
    "encode-video": ("Fetch source", "Probe", *["Encode chunk"] * 3, "Publish"),
    "hello-world": ("Compose", "Say it"),
    "daily-cleanup": ("List leftovers", "Remove"),
    "sync-inventory": ("Fetch stock", "Compare", "Write"),
}
