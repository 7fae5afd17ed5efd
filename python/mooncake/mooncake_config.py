"""mooncake_config - the settings of a store client from a JSON file or the environment.

    MooncakeConfig.from_file(PATH)     names as the fields below; local_hostname, metadata_server, master_server_address must be there
    MooncakeConfig.load_from_env()     the file at MOONCAKE_CONFIG_PATH, else MOONCAKE_MASTER and its companions
"""
import json
import os
import re
from dataclasses import dataclass
from typing import Optional

DEFAULT_GLOBAL_SEGMENT_SIZE = 3355443200  # 3.125 GiB
DEFAULT_LOCAL_BUFFER_SIZE = 1 << 30
REQUIRED = ("local_hostname", "metadata_server", "master_server_address")
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def _size(value, name):
    """A number of bytes, or text as "4 GB", "512mb", "1024"."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(value).lower())
    if not match:
        raise ValueError(f"Invalid size for {name}: {value!r}")
    return int(float(match.group(1)) * (1 << UNITS[match.group(2)]))


def _true(value):
    return value if isinstance(value, bool) else str(value).strip().lower() in ("1", "true", "yes", "on")


@dataclass
class MooncakeConfig:
    local_hostname: str
    metadata_server: str
    global_segment_size: int
    local_buffer_size: int
    protocol: str
    device_name: Optional[str]
    master_server_address: str
    enable_ssd_offload: bool = False
    ssd_offload_path: str = ""
    tenant_id: str = "default"
    enable_client_http_server: bool = False
    client_http_port: int = 9300

    @staticmethod
    def from_file(file_path):
        with open(file_path, encoding="utf-8") as file:
            settings = json.load(file)
        for name in REQUIRED:
            if not settings.get(name):
                raise ValueError(f"Missing required config field: {name}")
        return MooncakeConfig(
            local_hostname=settings["local_hostname"],
            metadata_server=settings["metadata_server"],
            global_segment_size=_size(settings.get("global_segment_size", DEFAULT_GLOBAL_SEGMENT_SIZE), "global_segment_size"),
            local_buffer_size=_size(settings.get("local_buffer_size", DEFAULT_LOCAL_BUFFER_SIZE), "local_buffer_size"),
            protocol=settings.get("protocol", "tcp"),
            device_name=settings.get("device_name", ""),
            master_server_address=settings["master_server_address"],
            enable_ssd_offload=_true(settings.get("enable_ssd_offload", False)),
            ssd_offload_path=settings.get("ssd_offload_path", ""),
            tenant_id=settings.get("tenant_id", "default"),
            enable_client_http_server=_true(settings.get("enable_client_http_server", False)),
            client_http_port=int(settings.get("client_http_port", 9300)))

    @staticmethod
    def load_from_env():
        env = os.environ
        if env.get("MOONCAKE_CONFIG_PATH"):
            return MooncakeConfig.from_file(env["MOONCAKE_CONFIG_PATH"])
        if not env.get("MOONCAKE_MASTER"):
            raise ValueError("Neither the environment variable 'MOONCAKE_CONFIG_PATH' nor 'MOONCAKE_MASTER' is set.")
        return MooncakeConfig(
            local_hostname=env.get("MOONCAKE_LOCAL_HOSTNAME", "localhost"),
            metadata_server=env.get("MOONCAKE_TE_META_DATA_SERVER", "P2PHANDSHAKE"),
            global_segment_size=_size(env.get("MOONCAKE_GLOBAL_SEGMENT_SIZE", DEFAULT_GLOBAL_SEGMENT_SIZE), "MOONCAKE_GLOBAL_SEGMENT_SIZE"),
            local_buffer_size=_size(env.get("MOONCAKE_LOCAL_BUFFER_SIZE", DEFAULT_LOCAL_BUFFER_SIZE), "MOONCAKE_LOCAL_BUFFER_SIZE"),
            protocol=env.get("MOONCAKE_PROTOCOL", "tcp"),
            device_name=env.get("MOONCAKE_DEVICE", ""),
            master_server_address=env["MOONCAKE_MASTER"],
            enable_ssd_offload=_true(env.get("MOONCAKE_OFFLOAD_ENABLED", False)),
            ssd_offload_path=env.get("MOONCAKE_OFFLOAD_FILE_STORAGE_PATH", ""),
            tenant_id=env.get("MOONCAKE_TENANT_ID", "default"),
            enable_client_http_server=_true(env.get("MOONCAKE_ENABLE_CLIENT_HTTP_SERVER", False)),
            client_http_port=int(env.get("MOONCAKE_CLIENT_HTTP_PORT", "9300")))
