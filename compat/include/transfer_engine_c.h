/* transfer_engine_c.h - the C interface of the existing Mooncake's Transfer Engine, over ours (libtransfer_engine.so).
 *
 * Types, values and calling conventions are the binary interface that programs were compiled against; what each call does is written
 * down here anew. Where ours differs: docs/compatibility.md.
 *
 *     transfer_engine_t e = createTransferEngine("P2PHANDSHAKE", "10.0.0.7", "", 0, 1);
 *     registerLocalMemory(e, buffer, length, "*", 1);
 *     segment_id_t peer = openSegment(e, "10.0.0.8:15123");
 *     batch_id_t batch = allocateBatchID(e, 1);
 *     struct transfer_request r = {OPCODE_WRITE, buffer, peer, address_at_the_peer, length};
 *     submitTransfer(e, batch, &r, 1);
 *     do getTransferStatus(e, batch, 0, &s); while (s.status == STATUS_PENDING);
 *     freeBatchID(e, batch);
 *
 * Results: 0 ok, negative an error, where nothing else is said. No `char *` argument is kept after a call returned.
 * Threads: every call from any thread, except that nothing may be called on an engine once destroyTransferEngine() began.
 * The library installs no signal handlers and nothing that runs at load or exit; in a forked child calls on the parent's
 * engine fail. */
#ifndef TRANSFER_ENGINE_C_H
#define TRANSFER_ENGINE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define segment_handle_t int32_t
#define segment_id_t     int32_t
#define batch_id_t       uint64_t

#define LOCAL_SEGMENT (0) /* the caller's own memory */
#define INVALID_BATCH UINT64_MAX

#define OPCODE_READ  (0) /* the peer's memory into ours */
#define OPCODE_WRITE (1) /* ours into the peer's */

struct transfer_request {
    int opcode;
    void *source; /* address here */
    segment_id_t target_id;
    uint64_t target_offset; /* address in the peer's process */
    uint64_t length;
};
typedef struct transfer_request transfer_request_t;

struct notify_msg {
    char *name;
    char *msg;
};
typedef struct notify_msg notify_msg_t;

#define STATUS_WAITING   (0)
#define STATUS_PENDING   (1)
#define STATUS_INVALID   (2)
#define STATUS_CANCELED  (3)
#define STATUS_COMPLETED (4)
#define STATUS_TIMEOUT   (5)
#define STATUS_FAILED    (6)

struct transfer_status {
    int status;
    uint64_t transferred_bytes; /* of a completed task its length, else 0 */
};
typedef struct transfer_status transfer_status_t;

struct segment_desc {
    int type;
    union {
        struct {
            void *addr;
            uint64_t size;
            const char *location;
        } rdma;
        struct {
            const char *file_path;
            const char *subsystem_name;
            const char *proto;
            const char *ip;
            uint64_t port;
        } nvmeof;
    } desc_;
};
typedef struct segment_desc segment_desc_t;

struct buffer_entry {
    void *addr;
    size_t length;
};
typedef struct buffer_entry buffer_entry_t;

struct nic_load_stat {
    char device_name[64];
    uint64_t inflight_bytes;
    double ewma_bandwidth_bps;
};
typedef struct nic_load_stat nic_load_stat_t;

typedef void *transfer_engine_t;
typedef void *transport_t;

/* ---- an engine ---- */

/* Listen at `ip_or_host_name` (empty: at the host of `local_server_name`), at `rpc_port` if it is not 0, else at the port of
 * `local_server_name`, else at a free one. metadata_conn_string: "P2PHANDSHAKE". NULL: failed (logged). */
transfer_engine_t createTransferEngine(const char *metadata_conn_string, const char *local_server_name,
    const char *ip_or_host_name, uint64_t rpc_port, int auto_discover);

/* Cancels what runs. NULL is harmless. */
void destroyTransferEngine(transfer_engine_t engine);

/* "host:port" that peers open. -1: it does not fit. */
int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len);

/* Transports are there from the start, so this says whether one is: "tcp" is; "rdma" only where MC_FORCE_TCP makes it tcp. The handle
 * is not NULL and has no further use. NULL: there is no such transport. */
transport_t installTransport(transfer_engine_t engine, const char *proto, void **args);
int uninstallTransport(transfer_engine_t engine, const char *proto); /* 0, does nothing */
int discoverTopology(transfer_engine_t engine);                      /* 0, does nothing */
void enableGracefulShutdown(transfer_engine_t engine);               /* does nothing: signals are the program's */

/* ---- peers ---- */

/* The peer of that name: at least 0; LOCAL_SEGMENT for our own. Waits at most 5 s for a first answer; negative: there is none. The same
 * name has the same id as long as the engine lives; it serves a peer that was restarted, too. NoCache asks anew what the
 * peer has registered. */
segment_id_t openSegment(transfer_engine_t engine, const char *segment_name);
segment_id_t openSegmentNoCache(transfer_engine_t engine, const char *segment_name);
int closeSegment(transfer_engine_t engine, segment_id_t segment_id); /* 0; the id stays good for others who opened it */
int syncSegmentCache(transfer_engine_t engine); /* what peers have registered is asked anew when it is needed */
int removeLocalSegment(
    transfer_engine_t engine, const char *segment_name); /* 0, does nothing: there is no service to remove from */
int warmupEfaSegment(transfer_engine_t engine, const char *segment_name); /* -303: not implemented */

/* ---- memory ---- */

/* Let peers read and write it. Ranges may overlap and be registered twice. `remote_accessible` and `location` are ignored.
 * -1 the range is empty or wraps, -302 too many. */
int registerLocalMemory(
    transfer_engine_t engine, void *addr, size_t length, const char *location, int remote_accessible);
int unregisterLocalMemory(transfer_engine_t engine, void *addr); /* -3: none begins there */
int registerLocalMemoryBatch(
    transfer_engine_t engine, buffer_entry_t *buffer_list, size_t buffer_len, const char *location); /* all or none */
int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list, size_t addr_len);

/* ---- transfers ---- */

/* Room for `batch_size` tasks, or INVALID_BATCH. */
batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size);

/* Start `count` tasks, numbered on from those of the batch. `entries` is copied. -2: no room for so many; -1: an entry is wrong, or a
 * target cannot be reached: then these tasks are there and have failed. The notification is sent to the target of the first
 * entry when its tasks have completed; they count as completed when it has arrived. */
int submitTransfer(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries, size_t count);
int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries,
    size_t count, notify_msg_t notify_msg);

/* Does not wait. -1: no such task. */
int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id, size_t task_id, struct transfer_status *status);

/* -4: tasks of it are under way; -1: no such batch. */
int freeBatchID(transfer_engine_t engine, batch_id_t batch_id);

/* ---- notifications ---- */

/* What came since the last call: *size of them, given to the caller: freeNotifsMsgBuf(). NULL: none. Strings end at a NUL. */
notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size);
int freeNotifsMsgBuf(notify_msg_t *msg, int size);

/* Notify a peer; waits until it has arrived. */
int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id, notify_msg_t notify_msg);

/* ---- looking ---- */

/* No device, so *count becomes 0. */
int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats, size_t *count);

/* One line per peer, or a JSON array. -1: it does not fit. */
int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len, int json);

#ifdef __cplusplus
}
#endif
#endif
