#!/usr/bin/env python3
"""master.py - goal: mooncake_master takes the flags of the existing one, refuses what it cannot do, and serves its pages. Method: the
program itself; pages with clients that own segments."""
import json
import os
import subprocess
import sys
import tempfile

import cluster
from cluster import MIB, Master, equal, run, store_of, wait_for


def master(*flags):
    done = subprocess.run([cluster.MASTER, *flags], check=False, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    return done.returncode, done.stderr


def refused(*flags):
    code, words = master(*flags)
    equal(code, 2)
    return words


def test_flags_that_are_refused():
    assert "did you mean 'enable_offload'" in refused("--enable_offlaod")
    assert "no flag is called 'zzzzzz'" in refused("--zzzzzz=1")
    for flag, word in (("--enable_offload", "SSD"), ("--enable_ha=true", "masters"), ("--enable_snapshot", "rebuilt"),
                       ("--enable_kv_events", "KV events"), ("--enable_multi_tenants", "tenants"), ("--root_fs_dir=/tmp", "file system"),
                       ("--allocation_strategy=cxl", "segment"), ("--dynamic_replication_mode=enforce", "hot keys")):
        words = refused(flag)
        assert "not there yet" in words and word in words, words
    assert "every interface" in refused("--rpc_address=0.0.0.0")
    assert "port" in refused("--port", "seventy") and "value is missing" in refused("--port")
    assert "true or false" in refused("--enable_http_metadata_server=perhaps")
    assert "is no flag" in refused("serve")
    assert "milliseconds" in refused("--default_kv_lease_ttl=soon")


# The flags of the existing one, by group.
FLAGS = """rpc_port port rpc_address rpc_interface rpc_thread_num max_threads rpc_conn_timeout_seconds rpc_enable_tcp_no_delay metrics_port
    metrics_host enable_metric_reporting config_path
    default_kv_lease_ttl default_kv_soft_pin_ttl max_kv_soft_pin_ttl allow_evict_soft_pinned_objects eviction_ratio
    eviction_high_watermark_ratio nof_eviction_ratio nof_eviction_high_watermark_ratio put_start_discard_timeout_sec
    put_start_release_timeout_sec client_ttl
    memory_allocator allocation_strategy enable_cxl cxl_path cxl_size
    enable_offload offload_on_evict offload_force_evict offloading_queue_limit offload_cap_ratio promotion_on_hit
    promotion_admission_threshold promotion_queue_limit promotion_max_per_heartbeat root_fs_dir global_file_segment_size
    enable_disk_eviction quota_bytes
    dynamic_replication_mode dynamic_replication_heat_window_seconds dynamic_replication_admission_qps_threshold
    dynamic_replication_max_memory_replicas
    enable_ha ha_backend_type ha_backend_connstring etcd_endpoints cluster_id enable_oplog oplog_poll_interval_ms oplog_batch_max_entries
    batch_oplog_retry_timeout_sec pod_name pod_namespace
    enable_snapshot enable_snapshot_restore snapshot_interval_seconds snapshot_child_timeout_seconds snapshot_retention_count
    snapshot_object_store_type snapshot_catalog_store_type snapshot_backup_dir
    enable_http_metadata_server http_metadata_server_port http_metadata_server_host enable_metadata_cleanup_on_timeout
    enable_multi_tenants tenant_quota_connector_type tenant_quota_connector_uri
    max_total_finished_tasks max_total_pending_tasks max_total_processing_tasks pending_task_timeout_sec processing_task_timeout_sec
    max_retry_attempts
    enable_kv_events kv_events_bind_endpoint kv_events_backend_id kv_events_emit_legacy_compat kv_events_emit_object_key
    kv_events_queue_capacity
    nof_heartbeat_interval_sec nof_heartbeat_probe_timeout_ms nof_heartbeat_failures_threshold""".split()


def test_every_flag_is_known():
    """Each has a line of --help, which is made of the rows the flags are read by."""
    done = subprocess.run([cluster.MASTER, "--help"], check=True, capture_output=True, text=True, timeout=20)
    known = {line.split()[0][2:] for line in done.stdout.splitlines() if line.startswith("  --")}
    equal(sorted(set(FLAGS) - known), [])
    assert "no_such_flag" not in known


def test_flags_that_are_taken():
    for spelling in (["--default_kv_lease_ttl", "5s"], ["--default_kv_lease_ttl=5000"], ["-default_kv_lease_ttl=5s"],
                     ["--default-kv-lease-ttl=5s"], ["--enable_http_metadata_server", "true"], ["--enable_http_metadata_server"],
                     ["--noenable_offload"], ["--enable_ha=false"], ["--eviction_high_watermark_ratio=0.95", "--rpc_thread_num=8"],
                     ["--allocation_strategy=free_ratio_first"], ["--enable_metric_reporting=false"]):
        with Master(*spelling):
            pass
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("master.yaml", "# comment\nenable_http_metadata_server: true\ndefault_kv_lease_ttl: 3000 # ms\ncluster_id: \"x\"\n"),
                           ("master.json", json.dumps({"enable_http_metadata_server": True, "default_kv_lease_ttl": "3s", "client_ttl": 60}))):
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            with Master(f"--config_path={path}") as from_file:
                assert from_file.metadata != "none"
            with Master("--config_path", path, "--enable_http_metadata_server=false") as from_both:
                equal(from_both.metadata, "none")  # the command line wins
        with open(path, "w", encoding="utf-8") as file:
            file.write("enable_offload: true\n")
        assert "not there yet" in refused(f"--config_path={path}")
    code, words = master("--rpc_thread_num=4", "--version")
    equal(code, 0)


def test_idle_flags_are_named():
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([cluster.MASTER, "--port=0", "--metrics_port=0", "--rpc_thread_num=4", "--client_ttl=10"], stderr=log,
                                 stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline().startswith("ready")
        child.terminate()
        equal(child.wait(20), 0)
        child.stdout.close()
        log.seek(0)
        assert "without effect here: rpc_thread_num, client_ttl" in log.read()


def test_pages():
    with Master() as m:
        equal(m.http("/get_all_segments"), (200, ""))
        one, two = store_of(m, "localhost:23301"), store_of(m, "localhost:23302")
        one.put("a/1", b"12345")
        two.put("b/2", b"1")
        wait_for("both", lambda: sorted(m.http("/get_all_segments")[1].split()) == ["localhost:23301", "localhost:23302"])
        equal(sorted(m.http("/get_all_keys")[1].split()), ["a/1", "b/2"])
        code, text = m.http("/query_key?key=a/1")
        found = json.loads(text)
        equal((code, found["success"], found["replicas"][0]["size"]), (200, True, 5))
        assert found["replicas"][0]["transport_endpoint"].startswith("localhost:2330")
        code, text = m.http("/query_key?key=none")
        equal((code, json.loads(text)["success"], json.loads(text)["error_code"]), (404, False, -704))
        data = json.loads(m.http("/batch_query_keys?keys=a/1,none")[1])["data"]
        assert data["a/1"]["replicas"] and data["none"]["error_code"] == -704
        segments = json.loads(m.http("/get_segments_detail")[1])["segments"]
        equal(sorted((row["name"], row["capacity"]) for row in segments), [("localhost:23301", 64 * MIB), ("localhost:23302", 64 * MIB)])
        assert "Capacity" in m.http("/query_segment?segment=localhost:23301")[1]
        equal(m.http("/query_segment?segment=no:1")[0], 404)
        equal(json.loads(m.http("/api/v1/segments/status?segment=localhost:23301")[1])["status_name"], "OK")
        for page in ("/health", "/role", "/ha_status", "/leader", "/metrics/summary", "/kv_events/status", "/healthz", "/v1/nodes"):
            equal(m.http(page)[0], 200)
        metrics = m.http("/metrics")[1]
        for name in ("master_key_count 2", f"master_total_capacity_bytes {128 * MIB}", "master_allocated_bytes",
                     "master_active_clients 2", 'segment_total_capacity_bytes{segment="localhost:23301"}', "mooncake_master_objects"):
            assert name in metrics, name
        for page, method in (("/api/v1/drain_jobs", "POST"), ("/api/v1/tenant_quotas", "GET"), ("/api/v1/drain_jobs/query?job_id=1", "GET")):
            code, text = m.http(page, method)
            equal((code, json.loads(text)["error_code"]), (503, -1012))
        equal(one.is_exist("a/1"), 1)  # promised
        equal(json.loads(m.http("/api/v1/remove_all", "POST")[1]), {"success": True, "removed_count": 1})
        equal(json.loads(m.http("/api/v1/remove_all?force=true", "POST")[1]), {"success": True, "removed_count": 1})
        equal((one.is_exist("a/1"), two.is_exist("b/2")), (0, 0))
        one.close()
        wait_for("one", lambda: m.http("/get_all_segments")[1] == "localhost:23302\n")
        two.close()


def test_metadata_server():
    with Master("--enable_http_metadata_server") as m:
        at = m.metadata
        equal(m.http("/metadata", at=at)[0], 200)
        equal(m.http("/health", at=at)[0], 200)
        equal((m.http("/metadata?key=", at=at)[0], m.http("/metadata?key=a%2Fb", at=at)[0]), (400, 404))
        equal(m.http("/metadata?key=a%2Fb", "PUT", b'{"x": 1}', at)[0], 200)
        equal(m.http("/metadata?key=a%2Fb", at=at), (200, '{"x": 1}'))
        equal(m.http("/metadata?key=a%2Fb", "PUT", b'{"x": 2}', at)[0], 200)
        equal(m.http("/metadata?key=a%2Fb", at=at), (200, '{"x": 2}'))
        equal(m.http("/metadata?key=mooncake/rpc_meta/h", "PUT", b"1", at)[0], 200)
        equal(m.http("/metadata?key=mooncake/rpc_meta/h", "PUT", b"1", at)[0], 200)
        code, text = m.http("/metadata?key=mooncake/rpc_meta/h", "PUT", b"2", at)
        equal((code, "Duplicate rpc_meta key not allowed" in text), (400, True))
        equal((m.http("/metadata?key=a%2Fb", "DELETE", at=at)[0], m.http("/metadata?key=a%2Fb", at=at)[0]), (200, 404))
        equal(m.http("/metadata?key=a%2Fb", "DELETE", at=at)[0], 404)


def test_c_program():
    """The C interface, used by a program that knows its header and its library only."""
    with Master() as m:
        done = subprocess.run([os.environ["STORE_C_TEST"], m.address], check=False, timeout=60, capture_output=True, text=True,
                              env={**os.environ, "MC_RPC_CONNECT_TIMEOUT_MS": "300"})
        print(done.stdout, end="")
        equal(done.returncode, 0)


if __name__ == "__main__":
    run(globals())
