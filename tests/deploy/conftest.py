"""The real service, as tests of the API start it."""

from tests.api.conftest import models_dir, serve, service, settings

__all__ = ["models_dir", "serve", "service", "settings"]
