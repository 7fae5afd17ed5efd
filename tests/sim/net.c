/* net.c - links, messages on them, and memory that is copied between processes piece by piece.
 *
 * What a connection does here: keeps order, delays, stands still while it is cut, is reset (then what was under way is lost and
 * both ends hear of it, at different times), is dialled again. Nothing is lost or doubled within one connection; repeats
 * come from callers who try again after a reset without knowing what arrived. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/hash.h"
#include "sim.h"

enum { PIECE = 1500 };

void world_queue(struct world *world, struct event *event);

static uint64_t latency(struct world *world, const struct proc *from)
{
    uint64_t ns = 20000 + (uint64_t)rng_exponential(&world->rng, 60000);

    if (rng_chance(&world->rng, 0.01))
        ns += rng_below(&world->rng, 20 * NS_PER_MS);
    return ns + from->slow;
}

static struct proc *other_end(const struct link *link, const struct proc *proc)
{
    return link->a == proc ? link->b : link->a;
}

static bool up_at(const struct link *link, const struct proc *proc)
{
    return link->a == proc ? link->up_a : link->up_b;
}

static struct link *link_of(struct proc *proc, uint32_t peer)
{
    struct world *world = proc->world;

    for (uint32_t i = 0; i < world->links_n; i++) {
        struct link *link = &world->links[i];

        if ((link->a == proc && link->peer_a == peer && link->wanted) || (link->b == proc && link->peer_b == peer))
            return link;
    }
    return NULL;
}

/* ---- messages ---- */

static void on_deliver(struct world *world, struct event *event)
{
    struct link *link = event->over;
    struct proc *to = event->proc;
    struct store_msg msg;
    const char *bad;

    if (event->life != link->life || !up_at(link, to))
        return;
    event->frame.body = slice_of(event->bytes, event->len);
    if (store_msg_decode(&event->frame, &msg, &bad) != MC_OK) {
        world_fail(world, "message %s cannot be decoded: %s", message_name(event->frame.type), bad);
        return;
    }
    world_trace(world, "%u > %u %s%s %llu status %d", other_end(link, to)->number, to->number, message_name(msg.type),
        msg.reply ? " reply" : "", (unsigned long long)msg.request, msg.status);

    uint32_t peer = link->a == to ? link->peer_a : link->peer_b;

    if (to->index)
        index_core_on_message(to->index, world->now, peer, &msg);
    if (to->node && msg.type == MSG_NODE_BEAT && msg.authority_ms) /* as its heart does */
        names_extend(to->names, msg.request + msg.authority_ms * NS_PER_MS);
    if (to->node)
        node_core_on_message(to->node, world->now, peer, &msg);
    if (to->client)
        client_core_on_message(to->client, world->now, peer, &msg);
}

static enum mc_status net_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct proc *from = ctx;
    struct world *world = from->world;
    struct link *link = link_of(from, peer);
    struct event *event;
    struct buf body;
    uint64_t at;

    if (!link || !up_at(link, from))
        return MC_EPEERDOWN;
    if (!world->quiet && rng_chance(&world->rng, 0.002)) {
        if (msg->reply)
            world->answer_lost = world->now;
        return MC_AGAIN; /* the queue is full */
    }
    buf_init(&body, FRAME_BODY_MAX);
    store_msg_encode(msg, &body);
    if (buf_status(&body) != MC_OK)
        world_fail(world, "message %s cannot be encoded", message_name(msg->type));
    event = calloc(1, sizeof(*event));
    if (!event)
        abort();

    event->bytes = buf_steal(&body, &event->len);
    event->run = on_deliver;
    event->over = link;
    event->life = link->life;
    event->kind = msg->type;
    event->proc = other_end(link, from);
    event->incarnation = event->proc->incarnation;
    event->frame = (struct frame){.type = msg->type,
        .flags = msg->reply ? FRAME_REPLY : 0,
        .status = msg->status,
        .request = msg->request,
        .deadline_ms = msg->deadline_ms};
    at = world->now + latency(world, from);
    if (link->cut_until > world->now)
        at += link->cut_until - world->now;
    if (at <= link->last[link->a == from])
        at = link->last[link->a == from] + 1;
    link->last[link->a == from] = at;
    event->at = at;
    world_queue(world, event);
    return MC_OK;
}

/* ---- links ---- */

static void on_up(struct world *world, struct event *event)
{
    struct link *link = event->arg;
    struct proc *proc = event->proc, *other = other_end(link, proc);
    uint32_t peer = link->a == proc ? link->peer_a : link->peer_b;

    if (event->number != link->life)
        return;
    if (link->a == proc)
        link->up_a = true;
    else
        link->up_b = true;
    if (proc->index)
        index_core_on_peer_up(proc->index, world->now, peer, other->kind == PROC_NODE ? ROLE_NODE : ROLE_CLIENT,
            other->uuid, other->epoch);
    if (proc->node)
        node_core_on_peer_up(proc->node, world->now, peer);
    if (proc->client)
        client_core_on_peer_up(proc->client, world->now, peer, other->uuid, other->epoch);
}

static void on_down(struct world *world, struct event *event)
{
    struct link *link = event->arg;
    struct proc *proc = event->proc;
    uint32_t peer = link->a == proc ? link->peer_a : link->peer_b;

    if (proc->index)
        index_core_on_peer_down(proc->index, world->now, peer);
    if (proc->node)
        node_core_on_peer_down(proc->node, world->now, peer);
    if (proc->client) {
        proc->info[event->number] = false;
        client_core_on_peer_down(proc->client, world->now, peer);
    }
}

static void on_dial(struct world *world, struct event *event)
{
    struct link *link = event->arg;
    uint64_t lat;

    link->dialing = false;
    if (link->state == LINK_UP || !link->wanted || !link->a->alive)
        return;
    if (!link->b->alive || link->cut_until > world->now || link->b->stopped_until > world->now) {
        link_dial(world, link);
        return;
    }
    link->state = LINK_UP;
    link->life++;
    lat = latency(world, link->a);
    link->last[0] = link->last[1] = world->now + lat + 2;
    world_after(world, lat, link->a, on_up, link, link->life);
    world_after(world, lat + 1, link->b, on_up, link, link->life);
}

void link_dial(struct world *world, struct link *link)
{
    if (link->dialing || link->state == LINK_UP || !link->wanted)
        return;
    link->dialing = true;
    world_after(world, 10 * NS_PER_MS + rng_below(&world->rng, 40 * NS_PER_MS), NULL, on_dial, link, 0);
}

/* One end hears that the connection is gone. */
static void say_down(struct world *world, struct link *link, struct proc *proc)
{
    bool *up = link->a == proc ? &link->up_a : &link->up_b;

    if (*up)
        world_after(world, rng_below(&world->rng, 2 * NS_PER_MS), proc, on_down, link, link->b->number);
    *up = false;
}

static void copies_over_end(struct world *world, struct link *link);

void link_reset(struct world *world, struct link *link)
{
    if (link->state == LINK_DOWN)
        return;
    world_trace(world, "reset %u - %u", link->a->number, link->b->number);
    link->state = LINK_DOWN;
    link->life++;
    copies_over_end(world, link);
    say_down(world, link, link->a);
    say_down(world, link, link->b);
    link_dial(world, link);
}

void link_add(struct world *world, struct proc *a, struct proc *b, uint32_t peer_a, uint32_t peer_b, bool wanted)
{
    world->links[world->links_n++] =
        (struct link){.a = a, .b = b, .peer_a = peer_a, .peer_b = peer_b, .wanted = wanted};
}

static void net_connect(void *ctx, uint32_t peer, const struct store_member *member)
{
    struct proc *proc = ctx;
    struct world *world = proc->world;

    for (uint32_t i = 0; i < world->links_n; i++) {
        struct link *link = &world->links[i];

        if (link->a != proc || link->b->kind != PROC_NODE || memcmp(link->b->uuid, member->uuid, 16) != 0)
            continue;
        link->peer_a = peer;
        link->wanted = true;
        link_dial(world, link);
    }
}

static void net_disconnect(void *ctx, uint32_t peer)
{
    struct link *link = link_of(ctx, peer);

    if (!link)
        return;
    link_reset(((struct proc *)ctx)->world, link);
    link->wanted = false;
}

static void net_segments(void *ctx, uint32_t peer, struct slice segments)
{
    struct proc *proc = ctx;
    struct link *link = link_of(proc, peer);

    if (link && store_segment_count(segments) == SEGMENTS)
        proc->info[link->b->number] = true;
}

/* ---- copies ---- */

bool same_host(const struct proc *a, const struct proc *b)
{
    return (a->number + b->number) % 2 == 0;
}

static bool shared_memory(const struct copy *copy)
{
    return same_host(copy->proc, copy->other);
}

/* Events name copies by number: addresses come again. */
static struct copy *copy_find(struct world *world, uint64_t id)
{
    list_for_each (it, &world->copies)
        if (list_entry(it, struct copy, link)->id == id)
            return list_entry(it, struct copy, link);
    return NULL;
}

static void copy_free(struct copy *copy)
{
    list_del(&copy->link);
    free(copy);
}

static void on_copied(struct world *world, struct event *event)
{
    struct copy *copy = copy_find(world, event->number);
    struct proc *proc = event->proc;

    if (!copy)
        return;

    uint64_t cookie = copy->cookie;
    enum mc_status status = copy->status;
    bool pull = copy->pulls != NULL;

    copy_free(copy);
    if (pull)
        node_core_on_io(proc->node, world->now, cookie, status);
    else
        client_core_on_io(proc->client, world->now, cookie, status);
}

static void copy_done(struct world *world, struct copy *copy, enum mc_status status)
{
    copy->status = status;
    copy->at = copy->count;
    world_after(world, 1000 + rng_below(&world->rng, 100000), copy->proc, on_copied, NULL, copy->id);
}

static const struct region *region_find(struct world *world, const uint8_t *key)
{
    uint64_t id = le64_get(key);
    const struct region *region = &world->regions[id % REGIONS_MAX];

    return region->id == id ? region : NULL;
}

/* The next piece of a pull over the wire leaves its source: from now on it is on its way, whatever happens there. */
static enum mc_status piece_sent(struct world *world, struct copy *copy)
{
    const struct store_pull *p = &copy->pulls[copy->at];
    const struct region *region = region_find(world, p->region);
    uint64_t left = p->len - copy->in;

    if (!region || !region->proc->alive)
        return MC_ENOENT;
    if (p->offset + p->len > region->len)
        return MC_EINVAL;
    copy->air_len = left < PIECE ? left : PIECE;
    memcpy(copy->air, region->addr + p->offset + copy->in, copy->air_len);
    return MC_OK;
}

/* Copy the next piece. MC_OK, or why not. */
static enum mc_status copy_piece(struct world *world, struct copy *copy)
{
    uint64_t left, len;
    uint8_t *dst;
    const uint8_t *src;
    uint32_t *crc;

    if (copy->pulls) {
        struct store_pull *p = &copy->pulls[copy->at];
        enum mc_status status = copy->air_len ? MC_OK : piece_sent(world, copy);

        if (status != MC_OK)
            return status;
        left = p->len - copy->in;
        src = copy->air;
        dst = (uint8_t *)p->dst + copy->in;
        crc = &p->crc;
    } else {
        struct store_read *r = &copy->reads[copy->at];

        if (r->segment >= SEGMENTS)
            return MC_ENOENT;
        if (r->offset > copy->other->memory_size || r->len > copy->other->memory_size - r->offset)
            return MC_EINVAL;
        left = r->len - copy->in;
        src = copy->other->memory[r->segment] + r->offset + copy->in;
        dst = (uint8_t *)r->dst + copy->in;
        crc = &r->crc;
    }
    len = left < PIECE ? left : PIECE;
    if (copy->in == 0)
        *crc = 0;
    if (len)
        memcpy(dst, src, len);
    *crc = crc32c(*crc, dst, len);
    copy->air_len = 0;
    copy->in += len;
    if (len == left) {
        copy->at++;
        copy->in = 0;
    }
    return MC_OK;
}

static void copy_next(struct world *world, struct copy *copy, uint64_t delay);

static void on_piece(struct world *world, struct event *event)
{
    struct copy *copy = copy_find(world, event->number);
    enum mc_status status;

    if (!copy || copy->at == copy->count)
        return;
    if (!shared_memory(copy)) { /* the other side's loop serves it, over the wire */
        if (copy->over->cut_until > world->now) {
            copy_next(world, copy, copy->over->cut_until - world->now);
            return;
        }
        if (copy->other->stopped_until > world->now) {
            copy_next(world, copy, copy->other->stopped_until - world->now);
            return;
        }
    }
    if (copy->pulls && !shared_memory(copy) && copy->air_len == 0 && !copy->cancelled) {
        status = piece_sent(world, copy);
        if (status == MC_OK)
            copy_next(world, copy, rng_below(&world->rng, rng_chance(&world->rng, 0.2) ? 40 * NS_PER_MS : 60000));
        else
            copy_done(world, copy, status);
        return;
    }
    status = copy_piece(world, copy);
    if (copy->cancelled) {
        /* what was on its way or being copied when it was cancelled: the last piece */
        copy_done(world, copy, MC_ECANCELED);
    } else if (status != MC_OK || copy->at == copy->count) {
        copy_done(world, copy, status);
    } else {
        copy_next(world, copy,
            rng_below(&world->rng, rng_chance(&world->rng, copy->pulls ? 0.25 : 0.05) ? 40 * NS_PER_MS : 60000));
    }
}

static void copy_next(struct world *world, struct copy *copy, uint64_t delay)
{
    world_after(world, delay + copy->other->slow / 4, copy->proc, on_piece, NULL, copy->id);
}

static struct copy *copy_start(struct proc *proc, struct link *link, uint64_t cookie)
{
    struct copy *copy = calloc(1, sizeof(*copy));

    if (!copy)
        abort();
    copy->proc = proc;
    copy->other = other_end(link, proc);
    copy->over = link;
    copy->cookie = cookie;
    copy->id = ++proc->world->next_copy;
    list_push_back(&proc->world->copies, &copy->link);
    copy_next(proc->world, copy, latency(proc->world, proc));
    return copy;
}

/* The connection is gone. A client's core withdraws its reads itself; a node waits for the end of its pulls. */
static void copies_over_end(struct world *world, struct link *link)
{
    list_for_each_safe (it, tmp, &world->copies) {
        struct copy *copy = list_entry(it, struct copy, link);

        if (copy->over != link || copy->at == copy->count)
            continue;
        copy_done(world, copy, MC_EPEERDOWN);
    }
}

static enum mc_status net_read(void *ctx, uint64_t cookie, uint32_t peer, struct store_read *reads, uint32_t count)
{
    struct proc *proc = ctx;
    struct link *link = link_of(proc, peer);
    struct copy *copy;

    if (!link || !link->up_a)
        return MC_EPEERDOWN;
    if (!proc->info[link->b->number])
        return MC_ENOENT;
    if (!proc->world->quiet && rng_chance(&proc->world->rng, 0.002))
        return MC_AGAIN;
    copy = copy_start(proc, link, cookie);
    copy->reads = reads;
    copy->count = count;
    return MC_OK;
}

static void net_read_cancel(void *ctx, uint64_t cookie)
{
    struct proc *proc = ctx;

    list_for_each_safe (it, tmp, &proc->world->copies) {
        struct copy *copy = list_entry(it, struct copy, link);

        if (copy->proc == proc && copy->cookie == cookie)
            copy_free(copy);
    }
}

static enum mc_status net_pull(void *ctx, uint64_t cookie, uint32_t peer, struct store_pull *pulls, uint32_t count)
{
    struct proc *proc = ctx;
    struct link *link = link_of(proc, peer);
    struct copy *copy;

    if (!link || !link->up_b)
        return MC_EPEERDOWN;
    copy = copy_start(proc, link, cookie);
    copy->pulls = pulls;
    copy->count = count;
    return MC_OK;
}

static void net_pull_cancel(void *ctx, uint64_t cookie)
{
    struct proc *proc = ctx;

    list_for_each (it, &proc->world->copies) {
        struct copy *copy = list_entry(it, struct copy, link);

        if (copy->proc == proc && copy->cookie == cookie)
            copy->cancelled = true;
    }
}

static enum mc_status net_expose(void *ctx, const void *addr, uint64_t len, uint8_t key[STORE_REGION_KEY])
{
    struct proc *proc = ctx;
    struct world *world = proc->world;
    uint64_t id = ++world->next_region;

    world->regions[id % REGIONS_MAX] = (struct region){id, proc, addr, len};
    memset(key, 0, STORE_REGION_KEY);
    le64_put(key, id);
    return MC_OK;
}

static void net_hide(void *ctx, const uint8_t key[STORE_REGION_KEY])
{
    struct proc *proc = ctx;
    uint64_t id = le64_get(key);

    if (proc->world->regions[id % REGIONS_MAX].id == id)
        proc->world->regions[id % REGIONS_MAX] = (struct region){0};
}

static enum mc_status net_map(
    void *ctx, uint32_t peer, uint32_t segment, uint64_t offset, uint64_t len, const void **addr)
{
    struct link *link = link_of(ctx, peer);

    if (!link || !link->up_a)
        return MC_EPEERDOWN;
    if (segment >= SEGMENTS || offset + len > link->b->memory_size)
        return MC_ENOENT;
    *addr = link->b->memory[segment] + offset;
    return MC_OK;
}

static void net_unmap(void *ctx, uint32_t peer, const void *addr)
{
}

/* The node whose number is nearest is on the same host. */
static uint32_t net_distance(void *ctx, const struct store_member *member)
{
    const struct proc *proc = ctx;
    const struct world *world = proc->world;

    for (uint32_t i = 1; i <= world->nodes_n; i++)
        if (memcmp(world->procs[i].uuid, member->uuid, 16) == 0)
            return same_host(proc, &world->procs[i]) ? 0 : 2;
    return 2;
}

/* All are: in this world every read takes its time, also where it is near. */
static bool net_far(void *ctx, uint32_t peer)
{
    return true;
}

void net_proc_gone(struct world *world, struct proc *proc)
{
    list_for_each_safe (it, tmp, &world->copies) {
        struct copy *copy = list_entry(it, struct copy, link);

        if (copy->proc == proc || (copy->other == proc && copy->reads))
            copy_free(copy);
    }
    for (uint32_t i = 0; i < world->links_n; i++) {
        struct link *link = &world->links[i];

        if (link->a != proc && link->b != proc)
            continue;
        if (link->a == proc) {
            link->up_a = false;
            if (proc->kind == PROC_CLIENT && link->b->kind == PROC_NODE)
                link->wanted = false;
        } else {
            link->up_b = false;
        }
        link_reset(world, link);
    }
}

void net_ports(struct proc *proc, struct store_port *port)
{
    *port = (struct store_port){
        .ctx = proc,
        .send = net_send,
        .pull = net_pull,
        .pull_cancel = net_pull_cancel,
        .connect = net_connect,
        .disconnect = net_disconnect,
        .segments = net_segments,
        .read = net_read,
        .read_cancel = net_read_cancel,
        .expose = net_expose,
        .hide = net_hide,
        .map = net_map,
        .unmap = net_unmap,
        .distance = net_distance,
        .far = net_far,
    };
}
