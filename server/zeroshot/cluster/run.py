"""`zeroshot deploy`: put the application on a Ray cluster that runs, or update the one that is there."""

from typing import Any

import ray
from ray import serve

from zeroshot.cluster.application import app
from zeroshot.errors import SettingsError


def deploy(arguments: dict[str, Any], *, address: str, name: str, host: str, port: int) -> None:
    """Returns when every replica is ready; what was there under that name serves until then.

    `arguments`: see `application.Scale`. `host` and `port` are those of Serve's proxies, and without effect where Serve
    runs already. Raises SettingsError for arguments that can't be, and where there is no cluster.
    """
    application = app({"host": host} | arguments)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError) as error:
        raise SettingsError(f"There is no Ray cluster at {address!r} ({error}). Start one: ray start --head") from None
    try:
        serve.start(http_options={"host": host, "port": port})
        try:
            serve.run(application, name=name, route_prefix="/")
        except RuntimeError as error:
            raise SettingsError(f"{error} See the replicas' logs: `serve status`, `ray logs`.") from None
    finally:
        ray.shutdown()


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """`name=value`, as `--set` has them. Raises SettingsError."""
    settings = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise SettingsError(f"{pair!r} is not name=value.")
        settings[name] = value
    return settings
