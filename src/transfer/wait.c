/* wait.c - sleeping until a word changes, or until an instant. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "transfer/core.h"

void word_wait_change(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    struct timespec at = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, deadline_ns == DEADLINE_NONE ? NULL : &at,
        NULL, FUTEX_BITSET_MATCH_ANY);
}

bool word_wait(_Atomic uint32_t *word, uint64_t deadline_ns)
{
    uint32_t seen = WORD_UNSET;

    if (!atomic_compare_exchange_strong(word, &seen, WORD_WAITED) && seen == WORD_SET)
        return true;
    while (atomic_load(word) != WORD_SET) {
        if (deadline_passed(deadline_ns, now_ns()))
            return false;
        word_wait_change(word, WORD_WAITED, deadline_ns);
    }
    return true;
}

void word_wake_waiters(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

/* The word may be gone as soon as it is set: waking an address nobody waits at is harmless. */
void word_wake(_Atomic uint32_t *word)
{
    if (atomic_exchange(word, WORD_SET) == WORD_WAITED)
        word_wake_waiters(word);
}

/* On the loop's thread a fence can only be sat out, when something is closed or cancelled there. */
void fence_wait(uint64_t until_ns)
{
    struct timespec at = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};

    while (until_ns > now_ns() && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}
