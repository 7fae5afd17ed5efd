/* inbox.c - notifications that came and nobody has taken yet.
 *
 * A sender that lost the connection before the answer sends again; the ring of ids makes that one message. */
#include <stdlib.h>
#include <string.h>

#include "compat/engine/impl.h"

#define SEEN      4096
#define BYTES_MAX (64u << 20)

enum mc_status ce_inbox_init(struct ce_inbox *inbox)
{
    *inbox = (struct ce_inbox){.seen = calloc(SEEN, sizeof(uint64_t))};
    pthread_mutex_init(&inbox->lock, NULL);
    return inbox->seen ? MC_OK : MC_ENOMEM;
}

static void notes_free(struct ce_note *notes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)notes[i].name);
    free(notes);
}

void ce_inbox_fini(struct ce_inbox *inbox)
{
    notes_free(inbox->notes, inbox->count);
    free(inbox->seen);
    pthread_mutex_destroy(&inbox->lock);
}

static bool seen(const struct ce_inbox *inbox, uint64_t id)
{
    for (unsigned i = 0; i < SEEN; i++)
        if (inbox->seen[i] == id)
            return true;
    return false;
}

static enum mc_status make_room(struct ce_inbox *inbox, size_t bytes)
{
    size_t room = inbox->room ? inbox->room * 2 : 16;
    struct ce_note *notes;

    if (inbox->count == CE_NOTES_MAX || bytes > BYTES_MAX - inbox->bytes)
        return MC_EBUSY;
    if (inbox->count < inbox->room)
        return MC_OK;
    notes = realloc(inbox->notes, room * sizeof(*notes));
    if (!notes)
        return MC_ENOMEM;
    inbox->notes = notes;
    inbox->room = room;
    return MC_OK;
}

/* Name and message lie in one piece of memory, each with a NUL behind it, which the C interface wants. */
static enum mc_status append(struct ce_inbox *inbox, const struct ce_wire_note *note)
{
    size_t bytes = note->name.len + note->msg.len + 2;
    enum mc_status status = make_room(inbox, bytes);
    char *name;

    if (status != MC_OK)
        return status;
    name = calloc(1, bytes);
    if (!name)
        return MC_ENOMEM;
    if (note->name.len)
        memcpy(name, note->name.ptr, note->name.len);
    if (note->msg.len)
        memcpy(name + note->name.len + 1, note->msg.ptr, note->msg.len);
    inbox->notes[inbox->count++] = (struct ce_note){name, name + note->name.len + 1, note->name.len, note->msg.len};
    inbox->bytes += bytes;
    inbox->seen[inbox->seen_at++ % SEEN] = note->id;
    return MC_OK;
}

enum mc_status ce_inbox_put(struct ce_inbox *inbox, const struct ce_wire_note *note)
{
    enum mc_status status = MC_OK;

    pthread_mutex_lock(&inbox->lock);
    if (!seen(inbox, note->id))
        status = append(inbox, note);
    pthread_mutex_unlock(&inbox->lock);
    return status;
}

enum mc_status ce_notes_take(struct ce_engine *engine, struct ce_notes *out)
{
    struct ce_inbox *inbox = &engine->inbox;
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    pthread_mutex_lock(&inbox->lock);
    *out = (struct ce_notes){inbox->notes, inbox->count};
    inbox->notes = NULL;
    inbox->count = inbox->room = inbox->bytes = 0;
    pthread_mutex_unlock(&inbox->lock);
    ce_leave(engine);
    return MC_OK;
}

void ce_notes_free(struct ce_notes *notes)
{
    notes_free(notes->note, notes->count);
    *notes = (struct ce_notes){0};
}
