#include "transfer/shm/shm.h"
enum mc_status shm_create(struct mc_te *te, struct shm **out) { *out = NULL; return MC_OK; }
void shm_stop(struct shm *shm) {}
void shm_destroy(struct shm *shm) {}
const char *shm_path(const struct shm *shm) { return ""; }
void shm_grant(struct shm *shm, uint64_t id, const struct region *row) {}
void shm_withdraw(struct shm *shm, uint64_t id) {}
void shm_wait_readers(struct shm *shm, uint64_t id) {}
void shm_peer_offers(struct mc_peer *peer, const struct hello *hello, const char *path, bool dial) {}
bool shm_path_usable(struct mc_peer *peer, enum mc_path path, const struct te_key *key) { return false; }
bool shm_read_inline(struct shm *shm, struct mc_batch *batch) { return false; }
void shm_unmap_all(struct mc_peer *peer) {}
static enum mc_status no(void) { return MC_ENOSUP; }
static enum transport_fit fit(struct transport *s, struct mc_peer *p, const struct xfer *x) { return FIT_NO; }
static enum mc_status sub(struct transport *s, struct mc_peer *p, struct xfer *x) { return MC_ENOSUP; }
static uint64_t can(struct transport *s, struct mc_peer *p, struct xfer *x) { return 0; }
const struct transport_ops shm_memfd_ops = {.name = "shm-memfd", .path = MC_PATH_SHM_MEMFD, .caps = 1, .probe = no, .fit = fit, .submit = sub, .cancel = can};
const struct transport_ops shm_vm_ops = {.name = "shm-vm", .path = MC_PATH_SHM_VM, .caps = 1, .probe = no, .fit = fit, .submit = sub, .cancel = can};
