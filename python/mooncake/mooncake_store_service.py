"""mooncake_store_service - a store client with a segment as a process, and the Store over HTTP.

    python -m mooncake.mooncake_store_service [--config FILE] [-D NAME=VALUE]... [--port 8080] [--max-wait-time 60]

    PUT /api/put {"key", "value"}     GET /api/get/KEY     GET /api/exist/KEY     DELETE /api/remove/KEY     DELETE /api/remove_all
    POST /api/mount {"size"}          POST /api/unmount {"segment_ids", "grace_period_seconds"}
    POST /api/mount_shm {"name", "size", "offset"}: a piece of /dev/shm/NAME          POST /api/unmount_shm, as unmount

It listens on 127.0.0.1; another address by MOONCAKE_SERVICE_HOST, where every interface also needs MOONCAKE_INSECURE=1: nothing is
authenticated. SIGTERM and SIGINT end it, and what its segment holds.
"""
import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mooncake.mooncake_config import MooncakeConfig
from mooncake.store import MooncakeDistributedStore

logger = logging.getLogger("mooncake_store_service")

BODY_MAX = 1 << 30
ENDS = {signal.SIGTERM, signal.SIGINT}
ABSENT = ("unmount_local_disk", "reconfigure")


class Failure(Exception):
    """An answer that is no success: status and words."""

    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    # ---- what is asked ----

    def asked(self):
        """The body as a dict; empty when it is JSON, but no object."""
        try:
            value = json.loads(self.body())
        except ValueError as error:
            raise Failure(500, str(error)) from None
        return value if isinstance(value, dict) else {}

    def put(self, _):
        asked = self.asked()
        key, value = asked.get("key"), asked.get("value")
        if not key or value is None:
            raise Failure(400, "Missing key or value")
        if not isinstance(key, str) or not isinstance(value, str):
            raise Failure(400, "Key and value must be text")
        if self.store.put(key, value.encode()) != 0:
            raise Failure(500, "PUT operation failed")
        self.answer(200, {"status": "success"})

    def get(self, key):
        value = self.store.get(key)
        if not value and self.store.is_exist(key) != 1:
            raise Failure(404, "Key not found")
        self.send(200, "application/octet-stream", value)

    def exist(self, key):
        self.answer(200, {"exists": self.store.is_exist(key) == 1})

    def remove(self, key):
        if self.store.remove(key) != 0:
            raise Failure(500, "Remove operation failed")
        self.answer(200, {"status": "success"})

    def remove_all(self, _):
        gone = self.store.remove_all()
        if gone < 0:
            raise Failure(500, "Remove operation failed")
        self.answer(200, {"status": f"success removed {gone} keys"})

    def mount(self, _):
        size = self.asked().get("size")
        if not isinstance(size, int) or size <= 0:
            raise Failure(400, "Missing or invalid size")
        result = self.store.allocate_and_mount_segment(size)
        if result["ret"] != 0:
            raise Failure(500, f"Allocate and mount failed, ret={result['ret']}")
        self.answer(200, {"status": "success", "segment_ids": result["segment_ids"]})

    def mount_shm(self, _):
        asked = self.asked()
        name, size, offset = asked.get("name"), asked.get("size"), asked.get("offset", 0)
        if not isinstance(name, str) or name.strip("/") in ("", ".", "..") or "/" in name.strip("/") or \
                not isinstance(size, int) or size <= 0 or not isinstance(offset, int) or offset < 0:
            raise Failure(400, "Missing or invalid name or size")
        result = self.store.mount_segment(f"/dev/shm/{name.strip('/')}", size, offset)
        if result["ret"] != 0:
            raise Failure(500, f"Mount failed, ret={result['ret']}")
        self.answer(200, {"status": "success", "segment_ids": result["segment_ids"]})

    def unmount(self, _):
        asked = self.asked()
        ids, grace = asked.get("segment_ids"), asked.get("grace_period_seconds", 0)
        ids = [ids] if isinstance(ids, str) else ids
        if not isinstance(ids, list) or not ids or not all(isinstance(name, str) for name in ids):
            raise Failure(400, "Missing segment_ids")
        if not isinstance(grace, int) or grace < 0:
            raise Failure(400, "Invalid grace_period_seconds")
        result = self.store.unmount_and_free_segment(ids, grace)
        if result != 0:
            raise Failure(500, f"Unmount and free failed, ret={result}")
        self.answer(200, {"status": "success"})

    # ---- HTTP ----

    ROUTES = {("PUT", "put"): put, ("GET", "get"): get, ("GET", "exist"): exist, ("DELETE", "remove"): remove,
              ("DELETE", "remove_all"): remove_all, ("POST", "mount"): mount, ("POST", "unmount"): unmount,
              ("POST", "mount_shm"): mount_shm, ("POST", "unmount_shm"): unmount}
    WITH_KEY = ("get", "exist", "remove")

    def handle_request(self):
        _, api, name, key = (self.path.split("?")[0].split("/", 3) + ["", "", ""])[:4]
        call = self.ROUTES.get((self.command, name)) if api == "api" else None
        try:
            if api == "api" and self.command == "POST" and name in ABSENT:
                self.body()
                raise Failure(501, f"/api/{name} is not there yet")
            if call is None or bool(key) != (name in self.WITH_KEY):
                raise Failure(404, "Not Found")
            call(self, urllib.parse.unquote(key))
        except Failure as failure:
            self.answer(failure.status, {"error": str(failure)})

    do_GET = do_PUT = do_DELETE = do_POST = handle_request

    def body(self):
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.close_connection = True  # what follows is not read
            raise Failure(413, "Body too large")
        return self.rfile.read(int(length))

    def answer(self, status, value):
        self.send(status, "application/json; charset=utf-8", json.dumps(value).encode())

    def send(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        logger.debug(format, *args)


def overridden(config, defines):
    """The config with NAME=VALUE of the command line; types as the fields have them."""
    fields = {field.name: field.type for field in dataclasses.fields(config)}
    for define in defines:
        name, equals, value = define.partition("=")
        if not equals or name not in fields:
            raise SystemExit(f"-D {define}: expected one of {', '.join(fields)} and =VALUE")
        old = getattr(config, name)
        setattr(config, name, value.lower() in ("1", "true") if isinstance(old, bool) else int(value) if isinstance(old, int) else value)
    return config


def connected(config, max_wait):
    """A store that is set up, or None: the master may come later than we."""
    until = time.monotonic() + max_wait
    store = MooncakeDistributedStore()
    while True:
        result = store.setup(config.local_hostname, config.metadata_server, config.global_segment_size, config.local_buffer_size,
                             config.protocol, config.device_name or "", config.master_server_address,
                             enable_ssd_offload=config.enable_ssd_offload, ssd_offload_path=config.ssd_offload_path,
                             tenant_id=config.tenant_id, enable_client_http_server=config.enable_client_http_server,
                             client_http_port=config.client_http_port)
        if result == 0:
            return store
        if result != -900 or time.monotonic() >= until:
            logger.error("setup failed: %d", result)
            return None
        logger.warning("the master at %s does not answer yet", config.master_server_address)


def main():
    parser = argparse.ArgumentParser(prog="mc_store_rest_server", description="Mooncake Store Service with REST API")
    parser.add_argument("--config", help="configuration file; default: from the environment")
    parser.add_argument("-D", "--define", action="append", default=[], metavar="NAME=VALUE", help="override a setting")
    parser.add_argument("--port", type=int, default=8080, help="HTTP port (8080)")
    parser.add_argument("--max-wait-time", type=float, default=60, help="seconds to wait for the master (60)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # for all threads to come: this one waits for them
    config = overridden(MooncakeConfig.from_file(options.config) if options.config else MooncakeConfig.load_from_env(), options.define)
    host = os.environ.get("MOONCAKE_SERVICE_HOST", "127.0.0.1")
    if host in ("0.0.0.0", "::", "") and os.environ.get("MOONCAKE_INSECURE") != "1":
        parser.error(f"MOONCAKE_SERVICE_HOST={host} is every interface, and nothing is authenticated: name one address, or set "
                     "MOONCAKE_INSECURE=1")
    Handler.store = connected(config, options.max_wait_time)
    if Handler.store is None:
        return 1
    server = ThreadingHTTPServer((host, options.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
    print(f"ready http={server.server_address[0]}:{server.server_address[1]} segment={Handler.store.get_hostname()}", flush=True)
    signal.sigwait(ENDS)
    Handler.store.close()  # requests under way get errors
    return 0


if __name__ == "__main__":
    sys.exit(main())
