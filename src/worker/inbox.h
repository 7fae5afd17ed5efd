/* inbox.h - how other threads tell the engine thread something: a list of notes and a bell.
 *
 * A note is embedded in the object it is about and says which function the engine thread shall run for it. Posting does not
 * allocate. Threads: post and kick from any thread; the rest by the engine thread. */
#ifndef WORKER_INBOX_H
#define WORKER_INBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct worker;
struct note;
typedef void note_fn(struct worker *worker, struct note *note);

struct note {
    struct list link;
    note_fn *fn;
};

struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t bell; /* CLOCK_MONOTONIC */
    struct list notes;   /* guarded by lock */
    bool kicked;         /* guarded by lock */
};

void inbox_init(struct inbox *inbox);
void inbox_fini(struct inbox *inbox);

/* `note` must not be in the inbox already. */
void inbox_post(struct inbox *inbox, struct note *note, note_fn *fn);
/* Wake the engine thread without a note: something it looks at anyway has changed. */
void inbox_kick(struct inbox *inbox);
/* Run the functions of all notes. True if there was one, or a kick. */
bool inbox_run(struct inbox *inbox, struct worker *worker);
/* Sleep until a note or kick comes, or until `until_ns` (DEADLINE_NONE: for ever). */
void inbox_wait(struct inbox *inbox, uint64_t until_ns);

#endif
