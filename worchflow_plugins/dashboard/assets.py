"""Style sheet, script and what plugins add: a fixed list of files under hashed addresses."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_LARGEST = 5 * 1024 * 1024
_FOREVER = {"cache-control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its address below `/static/`, its kind, its bytes."""

    address: str
    kind: str
    body: bytes


class Assets:
    """Read all files once; only these are served, whatever a request spells.

    Args:
        packages: names plugins chose, with the package whose folder `static` is meant.
    """

    def __init__(self, packages: Mapping[str, str]) -> None:
        self._by_name: dict[str, Asset] = {}
        self._take("", resources.files("worchflow_plugins.dashboard") / "static")
        for name, package in packages.items():
            self._take(f"{name}/", resources.files(package) / "static")
        self._by_address = {asset.address: asset for asset in self._by_name.values()}
        joined = "".join(sorted(self._by_address))
        self.version = hashlib.blake2b(joined.encode(), digest_size=4).hexdigest()

    def address(self, name: str) -> str:
        """Return the address of a file below `/static/`; raise `LookupError` if there is none."""
        asset = self._by_name.get(name)
        if asset is None:
            raise LookupError(f"no file {name!r}; there are: {', '.join(sorted(self._by_name))}")
        return asset.address

    async def serve(self, request: Request) -> Response:
        """Answer a request for a file."""
        asset = self._by_address.get(request.path_params["path"])
        if asset is None:
            return PlainTextResponse("no such file\n", 404)
        return Response(asset.body, media_type=asset.kind, headers=_FOREVER)

    def _take(self, prefix: str, folder: Traversable) -> None:
        if not folder.is_dir():
            raise LookupError(f"{folder} is no folder")
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
            is_link = isinstance(item, Path) and item.is_symlink()
            if item.name.startswith((".", "_")) or is_link:
                continue
            if item.is_dir():
                self._take(f"{prefix}{item.name}/", item)
                continue
            body = item.read_bytes()
            if len(body) > _LARGEST:
                raise ValueError(f"{item} is longer than {_LARGEST:,} bytes")
            digest = hashlib.blake2b(body, digest_size=6).hexdigest()
            stem, dot, suffix = item.name.rpartition(".")
            address = f"{prefix}{stem}.{digest}{dot}{suffix}"
            kind = mimetypes.guess_type(item.name)[0] or "application/octet-stream"
            if suffix in ("js", "mjs"):
                kind = "text/javascript"
            self._by_name[f"{prefix}{item.name}"] = Asset(address, kind, body)
