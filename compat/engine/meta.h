/* meta.h - a metadata service: from names of engines to where they listen.
 *
 *     key     mooncake/[CLUSTER/]rpc_meta/NAME           CLUSTER from MC_METADATA_CLUSTER_ID
 *     value   {"ip_or_host_name": "10.0.0.7", "rpc_port": 15123}
 *
 *     http://host:port/metadata     PUT, GET, DELETE of that URL with ?key=; PUT of a key that is there is refused with 400
 *     etcd://host:port[,host:port]  the JSON gateway of an etcd cluster (3.4 and later); the first member that answers is asked
 *
 * Only this key is kept there: what is registered changes too often for a service in the middle, so engines ask each other.
 * Threads: any; every call has a connection of its own and blocks for at most 5 s (for each member of an etcd cluster). */
#ifndef COMPAT_ENGINE_META_H
#define COMPAT_ENGINE_META_H

#include "compat/engine/settings.h"

/* Publish that `name` listens at `at`. A name that is there already is taken over when it is this address, or nobody listens at the
 * one that it has. MC_OK; MC_EEXIST somebody else has the name; MC_EPEERDOWN, MC_EPROTO the service: all logged. */
enum mc_status ce_meta_publish(const struct ce_settings *set, const char *name, const struct addr *at);
void ce_meta_withdraw(const struct ce_settings *set, const char *name);

/* Where `name` listens. MC_OK, MC_ENOENT (no such name), or as above. */
enum mc_status ce_meta_find(const struct ce_settings *set, const char *name, struct addr *at);

#endif
