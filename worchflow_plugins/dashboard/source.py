"""Where a dashboard reads and writes: an application, open or not yet, or just a client."""

from __future__ import annotations

from worchflow_core import Client, Plugins, Settings, StoreUnavailable, Worchflow, WorchflowError


class Source:
    """The application or client behind a dashboard.

    Args:
        given: a `Worchflow`, which may be opened later, or an open one's client.
        plugins: the plugins that add to the dashboard; those of the application by default.
    """

    def __init__(self, given: Worchflow | Client, plugins: Plugins | None = None) -> None:
        self._given = given
        self.plugins = plugins or (None if isinstance(given, Client) else given.plugins)

    @property
    def app(self) -> Worchflow | None:
        """The application, where one was given."""
        return None if isinstance(self._given, Client) else self._given

    @property
    def settings(self) -> Settings | None:
        """The application's settings, where they are known."""
        return self.app.settings if self.app else None

    @property
    def client(self) -> Client:
        """The client.

        Raises:
            StoreUnavailable: the application is not open (yet, or any more).
        """
        if isinstance(self._given, Client):
            return self._given
        try:
            return self._given.client
        except WorchflowError:
            raise StoreUnavailable(
                "the application is not open; enter it in the lifespan of your server"
            ) from None
