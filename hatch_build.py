"""Put ``data/`` (weights, zoo, denoiser) into wheels as ``fpkit/_data``."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# left behind by a training, see .gitignore
LOCAL = ("*.npy", "checkpoint.safetensors", "log.jsonl", "*.pyc", ".*")


class DataHook(BuildHookInterface):
    """Hatchling's own ``force-include`` would also copy the data on every editable install."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version != "standard":
            return
        for path in sorted((Path(self.root) / "data").rglob("*")):
            if path.is_file() and not any(path.match(pattern) for pattern in LOCAL):
                inside = path.relative_to(Path(self.root) / "data").as_posix()
                build_data["force_include"][str(path)] = f"fpkit/_data/{inside}"
