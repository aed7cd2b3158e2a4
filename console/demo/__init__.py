"""The demo: an endpoint, its history and its log, which ship with the package (see DATA.md)."""
