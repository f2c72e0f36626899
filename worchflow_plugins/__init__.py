"""The plugins that come with Worchflow; each arrives by entry point, like any stranger's."""
