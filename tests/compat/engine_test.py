"""engine_test - mooncake.engine between two processes, as its callers use it.

    engine_test.py LANE [TEST...]      LANE: auto, tcp (MC_FORCE_TCP=1), ip6 (over ::1)

Goal: the rows of the contract that callers test, with ctypes buffers: exact return values, shapes of arguments, sub-ranges at
odd addresses, registrations that change meanwhile, peers that stop, die and come back, many threads, and the GIL. Nothing here
measures speed; bounds on time are those that a call promises, with room for a slow machine.
"""
import array
import ctypes
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
import unittest

LANE = sys.argv.pop(1) if len(sys.argv) > 1 else "auto"
if LANE == "tcp":
    os.environ["MC_FORCE_TCP"] = "1"
if LANE == "ip6":
    os.environ["MC_USE_IPV6"] = "1"
os.environ["MC_TRANSFER_TIMEOUT"] = "5"
HOST = "::1" if LANE == "ip6" else "127.0.0.1"

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode  # noqa: E402
from processes import Etcd, Far, Memory, Metadata, Relay, noise  # noqa: E402

TIMEOUT = 5  # MC_TRANSFER_TIMEOUT
SLACK = 10  # of a busy machine


def engine(host=HOST, protocol="tcp", metadata="P2PHANDSHAKE"):
    made = TransferEngine()
    result = made.initialize(host, metadata, protocol, "")
    assert result == 0, result
    return made


class Arguments(unittest.TestCase):
    """Shapes, signatures and values, without a peer."""

    def test_never_initialised(self):
        e = TransferEngine()
        self.assertEqual(e.get_rpc_port(), 0)
        self.assertEqual(e.transfer_sync_write("127.0.0.1:1", 1, 1, 1), -1)
        self.assertEqual(e.batch_transfer_sync_read("127.0.0.1:1", [], [], []), -1)
        self.assertEqual(e.batch_transfer_async_write("127.0.0.1:1", [1], [1], [1]), 0)
        self.assertEqual(e.transfer_submit_write("127.0.0.1:1", 1, 1, 1), 0)
        self.assertEqual(e.get_batch_transfer_status([1]), -1)
        self.assertEqual(e.transfer_check_status(1), -1)
        self.assertLess(e.register_memory(1, 1), 0)
        self.assertLess(e.unregister_memory(1), 0)
        self.assertLess(e.batch_register_memory([1], [1]), 0)
        self.assertNotEqual(e.send_probe("127.0.0.1:1"), 0)
        self.assertEqual(e.allocate_managed_buffer(10), 0)
        self.assertEqual(e.get_first_buffer_address("127.0.0.1:1"), 0)
        self.assertEqual(e.get_notifies(), [])
        self.assertEqual(e.get_engine_ptr(), 0)

    def test_initialise(self):
        e = TransferEngine()
        self.assertEqual(e.initialize("nobody.invalid", "P2PHANDSHAKE", "tcp", ""), -1)
        for service in ["etcd://127.0.0.1:9", "etcd://", "http://127.0.0.1:9/metadata", "http://", "redis://127.0.0.1:6379",
                        "127.0.0.1:2379", ""]:
            self.assertEqual(e.initialize(HOST, service, "tcp", ""), -1)
        if LANE != "tcp":
            self.assertEqual(e.initialize(HOST, "P2PHANDSHAKE", "rdma", ""), -1)
            self.assertEqual(e.initialize(HOST, "P2PHANDSHAKE", "nvlink", ""), -1)
        else:
            self.assertEqual(TransferEngine().initialize(HOST, "P2PHANDSHAKE", "rdma", "mlx5_0"), 0)
        self.assertEqual(e.initialize(HOST, "P2PHANDSHAKE", "tcp", ""), 0)  # after having failed
        self.assertEqual(e.initialize(HOST, "P2PHANDSHAKE", "tcp", ""), -1)  # twice
        self.assertTrue(15000 <= e.get_rpc_port() <= 17000)
        self.assertEqual(TransferEngine().initialize_ext(HOST, "P2PHANDSHAKE", "tcp", "", "p2p"), 0)
        self.assertEqual(TransferEngine().initialize_ext(HOST, "127.0.0.1:1", "tcp", "", "redis"), -1)

    def test_environment(self):
        text = ("import sys; from mooncake.engine import TransferEngine as T; e = T(); "
                "print(e.initialize(sys.argv[1], 'P2PHANDSHAKE', sys.argv[2], ''), e.get_rpc_port())")

        def run(host, protocol="tcp", **env):
            clean = {k: v for k, v in os.environ.items() if not k.startswith("MC_")}
            out = subprocess.run([sys.executable, "-c", text, host, protocol], env={**clean, **env}, text=True,
                                 capture_output=True, check=True)
            return [int(word) for word in out.stdout.split()], out.stderr
        (result, port), _ = run("127.0.0.1", MC_MIN_RPC_PORT="23456", MC_MAX_RPC_PORT="23460")
        self.assertEqual(result, 0)
        self.assertTrue(23456 <= port <= 23460)
        self.assertEqual(run("127.0.0.1", MC_MIN_RPC_PORT="5", MC_MAX_RPC_PORT="4")[0][0], -1)
        self.assertEqual(run("127.0.0.1", "rdma", MC_FORCE_TCP="1")[0][0], 0)
        self.assertEqual(run("127.0.0.1", "rdma", MC_FORCE_TCP="0")[0][0], -1)
        result, said = run("203.0.113.7")  # nobody's
        self.assertEqual(result[0], -1)
        self.assertIn("MC_TCP_BIND_ADDRESS", said)
        self.assertEqual(run("203.0.113.7", MC_TCP_BIND_ADDRESS="127.0.0.1")[0][0], 0)
        result, said = run("0.0.0.0")
        self.assertEqual(result[0], -1)
        self.assertIn("MOONCAKE_INSECURE", said)
        self.assertEqual(run("0.0.0.0", MOONCAKE_INSECURE="1")[0][0], 0)
        self.assertEqual(run("localhost", MC_USE_IPV6="1")[0][0], 0)
        result, said = run("127.0.0.1", MC_TRANSFER_TIMEOUT="1")
        self.assertIn("MC_TRANSFER_TIMEOUT", said)
        result, said = run("127.0.0.1", MC_MTU="4096", MC_TCP_SLICE_SIZE="65536", MC_REDIS_PASSWORD="x", MC_FORCE_TPC="1",
                           MC_STORE_MEMCPY="1")
        self.assertRegex(said, "info .*without meaning here:(?=.* MC_MTU)(?=.* MC_TCP_SLICE_SIZE)(?=.* MC_REDIS_PASSWORD)")
        self.assertRegex(said, "warn .*nobody knows: MC_FORCE_TPC\n")
        self.assertNotIn("MC_STORE_MEMCPY", said)
        result, said = run("127.0.0.1", MC_MTU="4096", MC_LOG_LEVEL="ERROR")
        self.assertEqual(said, "")

    def test_every_variable_is_known(self):
        """What the existing engine documents is taken, or named as without meaning; none of it is called unknown."""
        names = """MC_FORCE_HCA MC_FORCE_MNNVL MC_INTRANODE_NVLINK MC_INTRA_NVLINK MC_USE_NVLINK_IPC MC_MS_AUTO_DISC MC_USE_TENT MC_USE_TEV1
            MC_TENT_CONF MC_RDMA_BIND_ADDRESS MC_LEGACY_RPC_PORT_BINDING MC_HANDSHAKE_PORT MC_HANDSHAKE_LISTEN_BACKLOG MC_DISABLE_METACACHE
            MC_TE_METADATA_REFRESH_INTERVAL_SECONDS MC_REDIS_USERNAME MC_GID_INDEX MC_AUTO_GID_MAX_RETRIES MC_IB_PORT MC_IB_TC MC_IB_SL MC_MTU
            MC_PKEY_INDEX MC_MAX_WR MC_MAX_SGE MC_MAX_INLINE MC_MAX_CQE_PER_CTX MC_NUM_CQ_PER_CTX MC_NUM_QP_PER_EP MC_MAX_EP_PER_CTX
            MC_WORKERS_PER_CTX MC_SLICE_SIZE MC_SLICE_TIMEOUT MC_RETRY_CNT MC_FRAGMENT_RATIO MC_PATH_ROUNDROBIN MC_MAX_MR_SIZE MC_MIN_REG_SIZE
            MC_TRACK_RDMA_POSTED_SLICES MC_TCP_SLICE_SIZE MC_TCP_PROTO MC_TCP_STATUS_TIMEOUT_SEC MC_TCP_ENABLE_CONNECTION_POOL
            MC_TCP_LANES_PER_PEER MC_TCP_MAX_CONNECTIONS_PER_PEER MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER
            MC_TCP_ADMISSION_TIMEOUT_MS MC_LOG_DIR MC_TE_METRIC MC_TE_METRIC_INTERVAL_SECONDS MC_HANDSHAKE_MAX_LENGTH
            MC_HANDSHAKE_CONNECT_TIMEOUT MC_CUSTOM_TOPO_JSON MC_TE_FILTERS MC_MS_FILTERS MC_TE_FILTERS_EXCLUDE MC_NIC_PEER_AFFINITY
            MC_ENABLE_HCA_PEER_AFFINITY MC_ENABLE_DEST_DEVICE_AFFINITY""".split()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MC_", "MOONCAKE_LOG"))}
        out = subprocess.run([sys.executable, "-c", "from mooncake.engine import TransferEngine as T; "
                              "print(T().initialize('127.0.0.1', 'P2PHANDSHAKE', 'tcp', ''))"],
                             env={**clean, **{name: "1" for name in names}}, text=True, capture_output=True, check=True)
        self.assertEqual(out.stdout, "0\n")
        told = next(line for line in out.stderr.splitlines() if "without meaning here:" in line).split(":")[-1].split()
        self.assertEqual(sorted(set(names) - {name.rstrip(",") for name in told}), [])
        self.assertNotIn("nobody knows", out.stderr)

    def test_type_errors_name_the_argument(self):
        e = engine()
        for call, name in [
                (lambda: e.register_memory("x", 1), "buffer_addr"),
                (lambda: e.register_memory(1, 1.0), "capacity"),
                (lambda: e.register_memory(1, -1), "capacity"),
                (lambda: e.register_memory(1, 2 ** 64), "capacity"),
                (lambda: e.register_memory(1), "capacity"),
                (lambda: e.register_memory(1, 1, lokation="*"), "lokation"),
                (lambda: e.register_memory(1, 1, "*", location="*"), "location"),
                (lambda: e.initialize(HOST, "P2PHANDSHAKE", "tcp"), "device_name"),
                (lambda: e.initialize(1, "P2PHANDSHAKE", "tcp", ""), "local_hostname"),
                (lambda: e.batch_transfer_sync_write("a:1", [1], [1], ["x"]), "lengths"),
                (lambda: e.batch_transfer_sync_write("a:1", [1.5], [1], [1]), "buffers"),
                (lambda: e.batch_transfer_sync_write("a:1", "12", [1], [1]), "buffers"),
                (lambda: e.batch_transfer_sync_write("a:1", [1], b"12", [1]), "peer_buffer_addresses"),
                (lambda: e.batch_transfer_sync_write("a:1", [1], [1], 1), "lengths"),
                (lambda: e.transfer_sync("a:1", 1, 1, 1, 2), "opcode"),
                (lambda: e.transfer_sync("a:1", 1, 1, 1, TransferOpcode.Read, "hello"), "notify"),
                (lambda: e.get_batch_transfer_status(5), "batch_ids"),
                (lambda: e.write_bytes_to_buffer(1, "text", 1), "src_ptr"),
                (lambda: e.send_probe(5), "peer_server_name"),
                (lambda: TransferNotify(5, ""), "name")]:
            with self.assertRaises(TypeError) as caught:
                call()
            self.assertIn(name, str(caught.exception))

    def test_signatures(self):
        for name in dir(TransferEngine):
            member = getattr(TransferEngine, name)
            if not name.startswith("_") and callable(member) and name != "TransferOpcode":
                self.assertTrue(member.__doc__.startswith(name + "("), name)
                self.assertIn("self", inspect.signature(member).parameters, name)
        names = list(inspect.signature(TransferEngine.batch_transfer_sync).parameters)
        self.assertEqual(names, ["self", "target_hostname", "buffers", "peer_buffer_addresses", "lengths", "opcode", "notify",
                                 "transport_hint"])
        self.assertEqual(inspect.signature(TransferEngine.register_memory).parameters["location"].default, "*")
        self.assertIs(TransferEngine.TransferOpcode, TransferOpcode)
        self.assertEqual((TransferOpcode.Read, TransferOpcode.Write), (0, 1))
        self.assertEqual((str(TransferOpcode.Write), TransferOpcode(0).name), ("TransferOpcode.Write", "Read"))
        notify = TransferNotify("n", msg="m")
        notify.name = "other"
        self.assertEqual((notify.name, notify.msg), ("other", "m"))
        self.assertEqual((TransferNotify().name, TransferNotify().msg), ("", ""))

    def test_what_is_missing_says_so(self):
        e = TransferEngine()
        for name, word in [("transfer_write_on_cuda", "CUDA"), ("transfer_read_on_cuda", "CUDA"), ("warmup_efa_segment", "EFA"),
                           ("batch_transfer_write_on_cuda", "CUDA"), ("batch_transfer_read_on_cuda", "CUDA")]:
            with self.assertRaisesRegex(NotImplementedError, word):
                getattr(e, name)("127.0.0.1:1")

    def test_own_memory(self):
        e = engine()
        addr = e.allocate_managed_buffer(10000)
        self.assertNotEqual(addr, 0)
        self.assertEqual(e.write_bytes_to_buffer(addr, b"hello" + bytes(5), 7), 0)
        self.assertEqual(e.read_bytes_from_buffer(addr, 7), b"hello\0\0")
        self.assertEqual(e.write_bytes_to_buffer(addr, b"short", 6), -1)
        self.assertEqual(e.read_bytes_from_buffer(addr, 0), b"")
        self.assertEqual(e.free_managed_buffer(addr, 10000), 0)
        self.assertEqual(e.free_managed_buffer(addr, 10000), -1)
        self.assertIn('"cpu:0"', e.get_local_topology())
        memory = Memory(100)
        self.assertEqual(e.register_memory(memory.addr, 100, "cpu:0"), 0)
        self.assertEqual(e.register_memory(memory.addr, 100), 0)
        self.assertEqual([e.unregister_memory(memory.addr) for _ in range(3)], [0, 0, -3])
        self.assertLess(e.register_memory(memory.addr, 0), 0)
        self.assertLess(e.batch_register_memory([memory.addr], [1, 2]), 0)
        self.assertEqual(e.batch_register_memory([], []), 0)

    def test_engine_outlives_its_object(self):
        e = engine()
        inner, port = e.get_engine(), e.get_rpc_port()
        other = engine()
        del e
        self.assertEqual(other.send_probe(f"{'[::1]' if LANE == 'ip6' else HOST}:{port}"), 0)
        del inner
        self.assertNotEqual(other.send_probe(f"{'[::1]' if LANE == 'ip6' else HOST}:{port}"), 0)

    def test_nobody_there(self):
        e, memory = engine(), Memory(10)
        start = time.monotonic()
        for name in ["unreachable_peer:9", f"{HOST}:9", "", "no port", "[::1]:9", "a" * 1000]:
            self.assertEqual(e.batch_transfer_async_write(name, [memory.addr], [0], [10]), 0)
            self.assertEqual(e.transfer_submit_write(name, memory.addr, 0, 10), 0)
            self.assertEqual(e.transfer_sync_write(name, memory.addr, 0, 10), -1)
            self.assertNotEqual(e.send_probe(name), 0)
            self.assertEqual(e.get_first_buffer_address(name), 0)
        self.assertLess(time.monotonic() - start, 60)
        self.assertEqual(e.get_batch_transfer_status([0]), -1)
        self.assertEqual(e.get_batch_transfer_status([]), 0)
        self.assertEqual(e.transfer_check_status(77), -1)


class TwoProcesses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.far = Far(HOST).begin()
        cls.e = engine()
        cls.size = 1 << 20
        cls.there, result = cls.far.buffer(cls.size)
        assert result == 0

    @classmethod
    def tearDownClass(cls):
        cls.far.end()
        cls.e = None

    def look(self, at, size):
        return bytes.fromhex(self.far.look(self.there + at, size))

    def test_sub_ranges_at_odd_addresses(self):
        for n, (at, size) in enumerate([(0, 1), (1, 2), (3, 4095), (4097, 65537), (77, 900001), (self.size - 5, 5)]):
            here, back = Memory(size + 7, noise(n, size + 7)), Memory(size)
            self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr + 3, self.there + at, size), 0)
            self.assertEqual(self.look(at, size), here.get(3, size))
            self.assertEqual(self.e.transfer_sync_read(self.far.session, back.addr, self.there + at, size), 0)
            self.assertEqual(back.get(), here.get(3, size))
        self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr, self.there + self.size - 4, 5), -1)
        self.assertEqual(self.e.transfer_sync_read(self.far.session, here.addr, self.there + self.size + (1 << 40), 1), -1)
        self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr, self.there, 0), 0)

    def test_lists(self):
        class Index:
            def __init__(self, value):
                self.value = value

            def __index__(self):
                return self.value

        here, n, step = Memory(100000, noise(5, 100000)), 700, 131
        for make in (list, tuple, lambda v: array.array("Q", v), lambda v: [Index(x) for x in v]):
            data = noise(make([1])[0] if make in (list, tuple) else 9, 100000)
            here.set(data)
            local = [here.addr + i * step for i in range(n)]
            remote = [self.there + 7 + (n - i) * (step + 3) for i in range(n)]
            lengths = [1 + i % step for i in range(n)]
            self.assertEqual(self.e.batch_transfer_sync_write(self.far.session, make(local), make(remote), make(lengths)), 0)
            for i in range(0, n, 37):
                self.assertEqual(self.look(remote[i] - self.there, lengths[i]), data[i * step:i * step + lengths[i]])
            back = Memory(100000)
            local = [back.addr + i * step for i in range(n)]
            self.assertEqual(self.e.batch_transfer_sync_read(self.far.session, make(local), make(remote), make(lengths)), 0)
            for i in range(n):
                self.assertEqual(back.get(i * step, lengths[i]), data[i * step:i * step + lengths[i]])

    def test_unequal_lists(self):
        here = Memory(100)
        for local, remote, lengths in [([here.addr], [self.there] * 2, [1]), ([here.addr] * 2, [self.there] * 2, [1]),
                                       ([], [self.there], [1]), ([here.addr], [], [])]:
            self.assertEqual(self.e.batch_transfer_sync_write(self.far.session, local, remote, lengths), -1)
            self.assertEqual(self.e.batch_transfer_sync_read(self.far.session, local, remote, lengths), -1)
            self.assertEqual(self.e.batch_transfer_async_write(self.far.session, local, remote, lengths), 0)
        self.assertEqual(self.e.batch_transfer_sync_write(self.far.session, [], [], []), 0)

    def test_opcodes_and_notifies(self):
        here = Memory(50, noise(1, 50))
        note = TransferNotify("request 7", "schön \udcff \0 end")
        self.assertEqual(self.e.transfer_sync(self.far.session, here.addr, self.there, 50, TransferOpcode.Write, note), 0)
        self.assertEqual(self.e.batch_transfer_sync(self.far.session, [here.addr], [self.there + 99], [50], TransferOpcode.Write,
                                                    notify=TransferNotify("second", "")), 0)
        self.assertEqual(self.look(0, 50), here.get())
        self.assertEqual([tuple(n) for n in self.far.notifies()], [("request 7", "schön \udcff \0 end"), ("second", "")])
        self.assertEqual(self.far.notifies(), [])
        self.assertEqual(self.e.transfer_sync(self.far.session, here.addr, self.there + 99, 50, TransferOpcode.Read), 0)
        # A transfer that fails notifies nobody.
        self.assertEqual(self.e.transfer_sync(self.far.session, here.addr, 16, 50, TransferOpcode.Write, note), -1)
        self.assertEqual(self.far.notifies(), [])

    def test_asynchronous(self):
        here = Memory(200000, noise(3, 200000))
        ids = [self.e.batch_transfer_async_write(self.far.session, [here.addr + i * 1000], [self.there + i * 1001], [1000])
               for i in range(100)]
        self.assertNotIn(0, ids)
        self.assertEqual(len(set(ids)), 100)
        self.assertEqual(self.e.get_batch_transfer_status(ids), 0)
        self.assertEqual(self.e.get_batch_transfer_status(ids), 0)  # asked again
        self.assertEqual(self.look(50 * 1001, 1000), here.get(50000, 1000))
        back = Memory(1000)
        one = self.e.batch_transfer_async_read(self.far.session, [back.addr], [self.there + 7 * 1001], [1000])
        self.assertEqual(self.e.get_batch_transfer_status([one]), 0)
        self.assertEqual(back.get(), here.get(7000, 1000))
        one = self.e.transfer_submit_write(self.far.session, here.addr, self.there + 3, 200000)
        while (status := self.e.transfer_check_status(one)) == 0:
            time.sleep(0.001)
        self.assertEqual(status, 1)
        self.assertEqual(self.look(3, 200000), here.get())
        bad = self.e.batch_transfer_async(self.far.session, [here.addr], [16], [1000], TransferOpcode.Write)
        self.assertNotEqual(bad, 0)
        self.assertEqual(self.e.get_batch_transfer_status([one, bad]), -1)
        self.assertEqual(self.e.transfer_check_status(bad), -1)

    def test_first_buffer_and_managed(self):
        addr = self.far.call("allocate_managed_buffer", 5000)
        self.assertNotEqual(addr, 0)
        self.assertNotEqual(self.e.get_first_buffer_address(self.far.session), 0)
        here = Memory(5000, noise(8, 5000))
        self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr, addr, 5000), 0)
        self.assertEqual(bytes.fromhex(self.far.look(addr, 5000)), here.get())
        self.assertEqual(self.far.call("free_managed_buffer", addr, 5000), 0)
        self.assertEqual(self.e.send_probe(self.far.session), 0)

    def test_ten_threads_on_one_engine(self):
        failures = []

        def run(number):
            here, back = Memory(30000), Memory(30000)
            at = self.there + number * 100000
            for turn in range(40):
                here.set(noise(number * 100 + turn, 30000))
                cut = 1 + (turn * 7919) % 29000
                lists = [here.addr, here.addr + cut], [at + 1, at + 40000], [cut, 30000 - cut]
                lists_back = [back.addr, back.addr + cut], lists[1], lists[2]
                if self.e.batch_transfer_sync_write(self.far.session, *lists) != 0:
                    failures.append(("write", number, turn))
                if self.e.batch_transfer_sync_read(self.far.session, *lists_back) != 0:
                    failures.append(("read", number, turn))
                if back.get() != here.get():
                    failures.append(("bytes", number, turn))
        threads = [threading.Thread(target=run, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_churn_while_transferring(self):
        """As verl: registrations that overlap ours come and go at the peer, and buffers of our own for a batch each."""
        here = Memory(60000)
        self.far.churn(self.there, self.size)
        try:
            for turn in range(60):
                data = noise(turn, 60000)
                here.set(data)
                own, result = self.far.buffer(60000)
                self.assertEqual(result, 0)
                self.assertEqual(self.e.register_memory(here.addr, 60000), 0)
                self.assertEqual(self.e.batch_transfer_sync_write(
                    self.far.session, [here.addr, here.addr + 1], [self.there + 100 + turn, own], [50000, 59999]), 0)
                self.assertEqual(self.look(100 + turn, 50000), data[:50000])
                self.assertEqual(bytes.fromhex(self.far.look(own, 59999)), data[1:])
                self.assertEqual(self.far.call("unregister_memory", own), 0)
                self.assertEqual(self.e.unregister_memory(here.addr), 0)
                self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr, own, 10), -1)
        finally:
            self.assertGreater(self.far.calm(), 0)

    def test_target_that_spins(self):
        far = Far(HOST).begin()
        there, _ = far.buffer(1 << 16)
        far.spin()
        here = Memory(1 << 16, noise(4, 1 << 16))
        for _ in range(50):
            self.assertEqual(self.e.transfer_sync_write(far.session, here.addr, there, 1 << 16), 0)
        back = Memory(1 << 16)
        self.assertEqual(self.e.transfer_sync_read(far.session, back.addr, there, 1 << 16), 0)
        self.assertEqual(back.get(), here.get())
        far.kill()

    def test_with_itself(self):
        here, there = Memory(1000, noise(2, 1000)), Memory(1000)
        session = f"{'[::1]' if LANE == 'ip6' else HOST}:{self.e.get_rpc_port()}"
        self.assertEqual(self.e.register_memory(there.addr, 1000), 0)
        self.assertEqual(self.e.transfer_sync_write(session, here.addr, there.addr, 1000), 0)
        self.assertEqual(there.get(), here.get())
        self.assertEqual(self.e.unregister_memory(there.addr), 0)
        self.assertNotEqual(self.e.get_first_buffer_address(session), 0)

    def test_forked_child(self):
        """A child neither uses the parent's engine nor breaks it when it ends."""
        here = Memory(10)
        child = os.fork()
        if child == 0:
            fine = self.e.transfer_sync_write(self.far.session, here.addr, self.there, 10) == -1
            own = engine()
            fine = fine and own.transfer_sync_write(self.far.session, here.addr, self.there, 10) == 0
            type(self).e = None
            os._exit(0 if fine else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(self.e.transfer_sync_write(self.far.session, here.addr, self.there, 10), 0)


class Failures(unittest.TestCase):
    def setUp(self):
        self.far = Far(HOST).begin()
        self.e = engine()
        self.size = 4 << 20
        self.there, _ = self.far.buffer(self.size)
        self.here = Memory(self.size, noise(1, self.size))

    def tearDown(self):
        self.far.end()

    def write(self, at=0, size=None):
        return self.e.transfer_sync_write(self.far.session, self.here.addr + at, self.there + at, size or self.size)

    def test_killed(self):
        self.assertEqual(self.write(), 0)
        running = self.e.batch_transfer_async_write(self.far.session, [self.here.addr] * 50, [self.there] * 50,
                                                    [self.size] * 50)
        self.far.kill()
        start = time.monotonic()
        self.assertIn(self.e.get_batch_transfer_status([running]), (0, -1))
        self.assertEqual(self.write(), -1)
        self.assertNotEqual(self.e.send_probe(self.far.session), 0)
        self.assertLess(time.monotonic() - start, TIMEOUT + SLACK)

    def test_killed_and_back_under_the_same_name(self):
        old_there = self.there
        for turn in range(3):
            self.assertEqual(self.write(), 0)
            port = self.far.port
            self.far.kill()
            if turn == 1:  # somebody noticed, or not
                self.assertEqual(self.write(0, 10), -1)
            self.far = Far(HOST).begin(port)
            self.assertEqual(self.far.port, port)
            self.assertEqual(self.e.send_probe(self.far.session), 0)
            self.far.buffer(4096)
            self.there, _ = self.far.buffer(self.size)
            self.assertEqual(self.write(), 0)
            self.assertEqual(bytes.fromhex(self.far.look(self.there + self.size - 100, 100)), self.here.get(self.size - 100))
        self.assertEqual(self.e.transfer_sync_write(self.far.session, self.here.addr, old_there, 1 << 40), -1)

    def test_stopped_for_a_while(self):
        """A peer that does not answer for a moment costs time, and no -1."""
        self.assertEqual(self.write(), 0)
        self.far.stop()
        timer = threading.Timer(1.5, self.far.go_on)
        timer.start()
        self.here.set(noise(2, self.size))
        self.assertEqual(self.write(), 0)
        timer.join()
        self.assertEqual(bytes.fromhex(self.far.look(self.there, self.size)), self.here.get())

    def test_stopped_for_good_and_the_gil(self):
        """Contract 11: the call returns at its deadline, and when the peer goes on nothing of it is written any more. Meanwhile other
        threads of this process run. On one host the caller may copy into the stopped peer's memory himself: then it is there."""
        self.assertEqual(self.write(), 0)
        before = bytes.fromhex(self.far.look(self.there, self.size))
        self.far.stop()
        self.here.set(noise(3, self.size))
        counts, done = [], threading.Event()

        def count():
            while not done.is_set():
                counts.append(time.monotonic())
                time.sleep(0.01)
        thread = threading.Thread(target=count)
        thread.start()
        start = time.monotonic()
        result = self.write()
        end = time.monotonic()
        done.set()
        thread.join()
        if result == 0 and LANE != "tcp":
            self.far.go_on()
            self.assertEqual(bytes.fromhex(self.far.look(self.there, self.size)), self.here.get())
            return
        self.assertEqual(result, -1)
        self.assertGreater(end - start, TIMEOUT - 0.5)
        self.assertLess(end - start, TIMEOUT + SLACK)
        inside = [at for at in counts if start + 0.1 < at < end - 0.1]
        self.assertGreater(len(inside), 20)
        self.assertLess(max(b - a for a, b in zip(inside, inside[1:])), (end - start) / 2)
        self.here.set(bytes(self.size))  # ours again: what is sent late would be zeros
        self.far.go_on()
        self.assertEqual(self.e.send_probe(self.far.session), 0)
        self.assertEqual(bytes.fromhex(self.far.look(self.there, self.size)), before)
        self.here.set(noise(4, self.size))
        self.assertEqual(self.write(), 0)
        self.assertEqual(bytes.fromhex(self.far.look(self.there, self.size)), self.here.get())

    def test_the_gil_is_free_while_bytes_move(self):
        """A Python thread counts while four others do nothing but transfer."""
        done, counted = threading.Event(), [0]

        def count():
            while not done.is_set():
                counted[0] += 1
                time.sleep(0)

        def move():
            for _ in range(30):
                self.write()
        counter = threading.Thread(target=count)
        movers = [threading.Thread(target=move) for _ in range(4)]
        counter.start()
        for mover in movers:
            mover.start()
        for mover in movers:
            mover.join()
        done.set()
        counter.join()
        self.assertGreater(counted[0], 100)


@unittest.skipUnless(LANE == "tcp", "on one host bytes would not go by the relay")
class Network(unittest.TestCase):
    """A network that cuts and swallows."""

    def setUp(self):
        self.far = Far(HOST).begin()
        self.size = 8 << 20
        self.there, _ = self.far.buffer(self.size)
        self.relay = Relay(self.far)
        self.e = engine()
        self.here = Memory(self.size, noise(1, self.size))
        self.assertEqual(self.write(), 0)

    def tearDown(self):
        self.relay.end()
        self.far.end()

    def write(self):
        return self.e.transfer_sync_write(self.relay.session, self.here.addr, self.there, self.size)

    def look(self):
        return b"".join(bytes.fromhex(self.far.look(self.there + at, 1 << 20)) for at in range(0, self.size, 1 << 20))

    def test_cut_again_and_again(self):
        """Connections are reset four times a second while four threads transfer: no -1, no wrong byte."""
        done, results = threading.Event(), []

        def cut():
            while not done.wait(0.25):
                self.relay.cut()
        cutter = threading.Thread(target=cut)

        def move(number):
            part = self.size // 16  # so much that even a slow machine gets it through between two cuts
            back = Memory(part)
            for turn in range(40):
                data = noise(number * 100 + turn, part)
                self.here.set(data, number * part)
                local, remote = self.here.addr + number * part, self.there + number * part
                results.append(self.e.batch_transfer_sync_write(self.relay.session, [local, local + 7], [remote, remote + 7],
                                                                [7, part - 7]))
                results.append(self.e.transfer_sync_read(self.relay.session, back.addr, remote, part))
                results.append(back.get() == data)
        movers = [threading.Thread(target=move, args=(n,)) for n in range(4)]
        for thread in [cutter, *movers]:
            thread.start()
        for thread in movers:
            thread.join()
        done.set()
        cutter.join()
        self.assertEqual([value for value in results if value is not True], [0] * 320)
        self.assertEqual(len(results), 480)

    def test_swallowed_for_a_while(self):
        self.relay.stop()
        timer = threading.Timer(1.5, self.relay.go_on)
        timer.start()
        self.here.set(noise(2, self.size))
        self.assertEqual(self.write(), 0)
        timer.join()
        self.assertEqual(self.look(), self.here.get())

    def test_swallowed_for_good(self):
        """-1 at the deadline, and what the network kept is not written when it comes at last."""
        self.relay.stop()
        self.here.set(noise(3, self.size))
        start = time.monotonic()
        self.assertEqual(self.write(), -1)
        self.assertGreater(time.monotonic() - start, TIMEOUT - 0.5)
        self.here.set(bytes(self.size))
        before = self.look()
        self.relay.go_on()
        self.assertEqual(self.e.send_probe(self.relay.session), 0)
        self.assertEqual(self.e.transfer_sync_read(self.relay.session, self.here.addr, self.there, self.size), 0)
        self.assertEqual(self.look(), before)
        self.assertEqual(self.here.get(), before)

    def test_notified_once_over_a_cut(self):
        for turn in range(20):
            if turn % 3 == 1:
                threading.Timer(0.002, self.relay.cut).start()
            self.assertEqual(self.e.transfer_sync(self.relay.session, self.here.addr, self.there, self.size // 8,
                                                  TransferOpcode.Write, TransferNotify(str(turn), "")), 0)
        self.assertEqual([name for name, _ in self.far.notifies()], [str(turn) for turn in range(20)])


class Named(unittest.TestCase):
    """Names that a metadata service knows."""
    kind = Metadata

    def setUp(self):
        self.service = self.kind()
        self.name = f"{'[::1]' if LANE == 'ip6' else HOST}:12345"  # a name: nothing listens at that port
        self.far = Far(HOST).begin_named(self.name, self.service.url)
        self.there, _ = self.far.buffer(100000)
        self.here = Memory(100000, noise(1, 100000))
        bare = f"[{HOST}]" if LANE == "ip6" else HOST
        self.e = engine(f"{bare}:777", metadata=self.service.url)

    def tearDown(self):
        self.far.end()
        self.e = None
        self.service.end()

    def write(self, name=None):
        return self.e.transfer_sync_write(name or self.name, self.here.addr, self.there, 100000)

    def test_names(self):
        self.assertNotEqual(self.far.port, 12345)
        self.assertIn(f"mooncake/rpc_meta/{self.name}", self.service.keys)
        self.assertEqual(self.write(), 0)
        self.assertEqual(bytes.fromhex(self.far.look(self.there, 100000)), self.here.get())
        self.assertNotEqual(self.e.get_first_buffer_address(self.name), 0)
        self.assertEqual(self.e.send_probe(self.name), 0)
        self.assertEqual(self.write("nobody"), -1)
        self.assertEqual(self.write("a b/c?&=%"), -1)
        self.assertEqual(len(self.service.keys), 2)
        self.far.end()
        self.e = None
        self.assertEqual(self.service.keys, {})

    def test_name_taken(self):
        self.assertEqual(TransferEngine().initialize(self.name, self.service.url, "tcp", ""), -1)
        self.assertEqual(self.write(), 0)

    def test_killed_and_back(self):
        self.assertEqual(self.write(), 0)
        self.far.kill()
        self.assertIn(f"mooncake/rpc_meta/{self.name}", self.service.keys)  # it could not withdraw
        self.far = Far(HOST).begin_named(self.name, self.service.url)
        self.there, _ = self.far.buffer(100000)
        self.assertEqual(self.e.get_first_buffer_address(self.name) != 0, True)  # asks the service again: nobody is at the old port
        self.assertEqual(self.write(), 0)
        self.assertEqual(bytes.fromhex(self.far.look(self.there, 100000)), self.here.get())

    def test_service_gone(self):
        self.assertEqual(self.write(), 0)
        self.service.end()
        self.assertEqual(self.write(), 0)  # who is known stays known
        self.assertEqual(self.write("other"), -1)
        self.assertEqual(TransferEngine().initialize(HOST, self.service.url, "tcp", ""), -1)
        self.service = self.kind()

    def test_service_talks_nonsense(self):
        if not isinstance(self.service, Metadata):
            self.skipTest("the other service is a real one")
        for n, value in enumerate([b"", b"{", b"[]", b"null", b'{"ip_or_host_name": 5, "rpc_port": 5}', b'{"rpc_port": 5}',
                                   b'{"ip_or_host_name": "127.0.0.1", "rpc_port": 0}', b'{"ip_or_host_name": "", "rpc_port": 1}',
                                   b'{"ip_or_host_name": "unix:/x", "rpc_port": 1}', b'{"ip_or_host_name": "a b", "rpc_port": 99999}',
                                   b"x" * 100000]):
            self.service.keys[f"mooncake/rpc_meta/odd-{n}"] = value
            self.assertEqual(self.write(f"odd-{n}"), -1)
        self.assertEqual(self.write(), 0)

    def test_cluster(self):
        far = Far(HOST, MC_METADATA_CLUSTER_ID="c7").begin_named(self.name, self.service.url)
        self.assertIn(f"mooncake/c7/rpc_meta/{self.name}", self.service.keys)
        far.end()


@unittest.skipUnless(LANE == "tcp" and shutil.which("etcd"), "etcd is not installed (etcd-server), or asked in another lane")
class NamedByEtcd(Named):
    kind = Etcd


class AsTheirCallersDo(unittest.TestCase):
    """Call sequences of the engines that use the existing package."""

    def test_vllm_connector(self):
        """One registration of whole storages; ten sender threads, thousands of coalesced blocks of any alignment per call."""
        decode, prefill = Far(HOST).begin(), engine()
        layers, blocks, block = 4, 64, 3 * 512 + 16
        theirs = [decode.buffer(blocks * block, False)[0] for _ in range(layers)]
        self.assertEqual(decode.call("batch_register_memory", theirs, [blocks * block] * layers), 0)
        ours = [Memory(blocks * block, noise(n, blocks * block)) for n in range(layers)]
        self.assertEqual(prefill.batch_register_memory([m.addr for m in ours], [m.size for m in ours]), 0)
        results = []

        def send(worker):
            ids = range(worker, blocks, 10)
            src = [m.addr + i * block for m in ours for i in ids]
            dst = [addr + (blocks - 1 - i) * block for addr in theirs for i in ids]
            results.append(prefill.batch_transfer_sync_write(decode.session, src, dst, [block] * len(src)))
        threads = [threading.Thread(target=send, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(results, [0] * 10)
        for m, addr in zip(ours, theirs):
            got, mine = bytes.fromhex(decode.look(addr, m.size)), m.get()
            for i in range(blocks):
                self.assertEqual(got[(blocks - 1 - i) * block:][:block], mine[i * block:][:block])
        decode.end()

    def test_checkpoint_engine(self):
        """A new object per retry, pulls of remote pinned memory, batch registration around them."""
        far = Far(HOST).begin()
        addr, _ = far.buffer(1 << 20)
        data = noise(6, 1 << 20)
        for start in range(0, 1 << 20, 1 << 18):
            far.fill(addr + start, data[start:start + (1 << 18)].hex())
        for turn in range(8):
            e = TransferEngine()
            if turn < 3:
                self.assertNotEqual(e.initialize("host.invalid", "P2PHANDSHAKE", "tcp", ""), 0)
                continue
            self.assertEqual(e.initialize(HOST, "P2PHANDSHAKE", "tcp", ""), 0)
            here = Memory(1 << 20)
            self.assertEqual(e.batch_register_memory([here.addr, here.addr + 4096], [4096, (1 << 20) - 4096]), 0)
            self.assertEqual(e.batch_transfer_sync_read(far.session, [here.addr, here.addr + 4096], [addr, addr + 4096],
                                                        [4096, (1 << 20) - 4096]), 0)
            self.assertEqual(here.get(), data)
            self.assertEqual(e.batch_unregister_memory([here.addr, here.addr + 4096]), 0)
        far.end()

    def test_sglang_pd(self):
        """zip()ed lists, buffers registered later one by one, register and deregister per request, probes of lost sessions."""
        far, e = Far(HOST).begin(), engine()
        kv, _ = far.buffer(50000)
        aux, _ = far.buffer(100)
        here = Memory(50100, noise(1, 50100))
        self.assertEqual(e.register_memory(here.addr, 50100), 0)
        blocks = [(here.addr + 100 * i, kv + 100 * (499 - i), 100) for i in range(500)] + [(here.addr + 50000, aux, 100)]
        for _ in range(5):
            self.assertEqual(e.batch_transfer_sync_write(far.session, *[list(x) for x in zip(*blocks)]), 0)
            staging, _ = far.buffer(1000)
            self.assertEqual(e.transfer_sync_write(far.session, here.addr, staging, 1000), 0)
            self.assertEqual(far.call("unregister_memory", staging), 0)
        self.assertEqual(e.send_probe(far.session), 0)
        far.kill()
        self.assertLess(e.batch_transfer_sync_write(far.session, *[list(x) for x in zip(*blocks)]), 0)
        self.assertNotEqual(e.send_probe(far.session), 0)


class Installed(unittest.TestCase):
    def test_module(self):
        """One symbol, and an import that starts nothing."""
        import mooncake.engine
        names = subprocess.run(["nm", "-D", "--defined-only", mooncake.engine.__file__], text=True, capture_output=True)
        if names.returncode == 0:
            self.assertEqual([line.split()[-1] for line in names.stdout.splitlines()], ["PyInit_engine"])
        out = subprocess.run([sys.executable, "-c", "import threading, os, mooncake.engine as e; e.TransferEngine(); "
                              "print(len(os.listdir('/proc/self/task')))"], text=True, capture_output=True, check=True)
        self.assertEqual((out.stdout.strip(), out.stderr), ("1", ""))
        self.assertFalse(mooncake.engine.SUPPORT_CUDA)
        self.assertIs(mooncake.engine.Write, TransferOpcode.Write)
        from mooncake import TransferEngine as same
        self.assertIs(same, TransferEngine)
        with self.assertRaises(AttributeError):
            mooncake.no_such_name


if __name__ == "__main__":
    unittest.main(verbosity=2)
