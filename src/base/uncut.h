/* uncut.h - a look, and the system call that acts on what was seen, without a stop in between.
 *
 * A process may be stopped between any two instructions (SIGSTOP, a debugger, a frozen cgroup) and go on an hour later. Who looks
 * whether bytes are still wanted, is stopped, and then stores them, stores them an hour late. A system call itself is not cut.
 *
 *     do {
 *         uncut_begin();
 *         if (!still_wanted())
 *             return MC_ECANCELED;
 *         n = uncut_recvmsg(fd, &msg, flags);
 *     } while (n == UNCUT_AGAIN);
 *
 * How: the call is the last instruction of a restartable sequence (rseq(2), which glibc registers for each thread). When the thread
 * has lost its processor since uncut_begin() the kernel has either taken the sequence off again, or jumps to its end: in
 * both cases nothing was called, and the caller looks again. On a busy machine that is a second look now and then.
 *
 * Where there is no such thing (other processors than x86-64, a libc or kernel without rseq, the race detector, which must see the
 * call) these are the plain calls, and a gap of some tens of nanoseconds stays: docs/decisions/021.
 * Copying works the same way, in the thread itself: who is stopped in the middle of uncut_store() does not go on with it, but looks
 * again.
 *
 * What lies between the two should make no system call that takes long: a stop inside one may go unseen on newer kernels.
 * Threads: any; a begin and its call belong to one thread. */
#ifndef BASE_UNCUT_H
#define BASE_UNCUT_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "mooncake/status.h"

enum { UNCUT_AGAIN = -4096 }; /* below all that a system call returns */

/* From here on a stop is seen. */
void uncut_begin(void);

/* As the calls of libc they are named for; or UNCUT_AGAIN: nothing was called, look again. */
ssize_t uncut_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t uncut_process_vm_writev(pid_t pid, const struct iovec *here, unsigned long here_count,
    const struct iovec *there, unsigned long there_count);

/* Copy as long as `look` says MC_OK, which is asked before the first byte and again whenever the thread has lost its processor since.
 * MC_OK; what look said, when the rest was not stored; MC_ESYS (logged): without restartable sequences it is process_vm_readv within
 * this process, and that failed. At the speed of memcpy. The ranges must not overlap. */
typedef enum mc_status uncut_look_fn(void *arg);
enum mc_status uncut_store(void *dst, const void *src, size_t len, uncut_look_fn *look, void *arg);

/* Is the gap closed in this thread? */
bool uncut_works(void);

/* For the test: addresses of the system call's instruction, and of the one that ends a round of the copy; NULL where there is none of
 * ours. */
void *uncut_instruction(void);
void *uncut_copy_instruction(void);

#endif
