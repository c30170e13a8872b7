"""Put ``data/`` (weights, zoo, denoiser) into wheels as ``fpkit/_data``."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DataHook(BuildHookInterface):
    """Hatchling's own ``force-include`` would also copy the data on every editable install."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version == "standard":
            build_data["force_include"]["data"] = "fpkit/_data"
