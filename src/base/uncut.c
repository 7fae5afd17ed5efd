/* uncut.c - see uncut.h.
 *
 *   uncut_begin()     thread's rseq area -> sequence        the kernel clears this when it finds the thread outside of the
 *   ... look ...                                            sequence after it had lost its processor
 *   begin:  cleared? then abort
 *           syscall                                         interrupted up to here: the kernel goes on at abort
 *   commit: return                                          in the call or after it: nothing happens
 *
 * The copy is a sequence of its own, without a call: interrupted anywhere in it the kernel goes on at its abort, where the registers
 * say how much is left. */
#include "base/uncut.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES_WATCHED
#endif
#elif defined(__SANITIZE_THREAD__)
#define RACES_WATCHED
#endif

#if defined(__x86_64__) && defined(__has_include) && !defined(RACES_WATCHED)
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#pragma weak __rseq_offset /* libc has them since 2.35; what is built for an older one runs there, too */
#pragma weak __rseq_size
#define HAVE_SEQUENCE
#endif
#endif

#ifdef HAVE_SEQUENCE

/* struct rseq_cs: version, flags, start, length, abort; aligned as the kernel wants it. Before the place it jumps to on an abort it
 * wants to see the number that was registered, here as the operand of an instruction that traps. */
__asm__(".pushsection .data.rel.ro, \"aw\"\n"
        ".balign 32\n"
        "mc_uncut_sequence:\n"
        "    .long 0, 0\n"
        "    .quad mc_uncut_begin, mc_uncut_commit - mc_uncut_begin, mc_uncut_abort\n"
        ".popsection\n"
        ".pushsection .text\n"
        ".type mc_uncut_call, @function\n"
        "mc_uncut_call:\n" /* rdi: where the thread's sequence stands, rsi: number, rdx: six arguments */
        "    .cfi_startproc\n"
        "    mov %rdi, %rcx\n"
        "    mov %rsi, %rax\n"
        "    mov %rdx, %r11\n"
        "    mov (%r11), %rdi\n"
        "    mov 8(%r11), %rsi\n"
        "    mov 16(%r11), %rdx\n"
        "    mov 24(%r11), %r10\n"
        "    mov 32(%r11), %r8\n"
        "    mov 40(%r11), %r9\n"
        "mc_uncut_begin:\n"
        "    cmpq $0, (%rcx)\n"
        "    je mc_uncut_abort\n"
        "mc_uncut_at_call:\n"
        "    syscall\n"
        "mc_uncut_commit:\n"
        "    ret\n"
        "    .byte 0x0f, 0xb9, 0x3d\n"
        "    .long 0x53053053\n"
        "mc_uncut_abort:\n"
        "    mov $-4096, %rax\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size mc_uncut_call, . - mc_uncut_call\n"
        ".popsection\n");

/* Rounds of 64 bytes: as fast as memory for what is worth copying this way, and SSE2 is everywhere. `to` goes on last in each round, so
 * that what lies before it is complete wherever the sequence is left. */
__asm__(".pushsection .data.rel.ro, \"aw\"\n"
        ".balign 32\n"
        "mc_uncut_copy_sequence:\n"
        "    .long 0, 0\n"
        "    .quad mc_uncut_copy_begin, mc_uncut_copy_commit - mc_uncut_copy_begin, mc_uncut_copy_abort\n"
        ".popsection\n"
        ".pushsection .text\n"
        ".type mc_uncut_copy, @function\n"
        "mc_uncut_copy:\n" /* rdi: to, rsi: from, rdx: length, rcx: where the thread's sequence stands */
        "    .cfi_startproc\n"
        "mc_uncut_copy_begin:\n"
        "    cmpq $0, (%rcx)\n"
        "    je mc_uncut_copy_abort\n"
        "    sub $64, %rdx\n"
        "    jb 2f\n"
        "1:  movdqu (%rsi), %xmm0\n"
        "    movdqu 16(%rsi), %xmm1\n"
        "    movdqu 32(%rsi), %xmm2\n"
        "    movdqu 48(%rsi), %xmm3\n"
        "    movdqu %xmm0, (%rdi)\n"
        "    movdqu %xmm1, 16(%rdi)\n"
        "    movdqu %xmm2, 32(%rdi)\n"
        "    movdqu %xmm3, 48(%rdi)\n"
        "    add $64, %rsi\n"
        "    add $64, %rdi\n"
        "mc_uncut_copy_round:\n"
        "    sub $64, %rdx\n"
        "    jae 1b\n"
        "2:  lea 64(%rdx), %rcx\n"
        "    rep movsb\n"
        "mc_uncut_copy_commit:\n"
        "    mov %rdi, %rax\n"
        "    ret\n"
        "    .byte 0x0f, 0xb9, 0x3d\n"
        "    .long 0x53053053\n"
        "mc_uncut_copy_abort:\n"
        "    mov %rdi, %rax\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size mc_uncut_copy, . - mc_uncut_copy\n"
        ".popsection\n");

#define OF_THE_ASSEMBLY __attribute__((visibility("hidden")))
extern const char mc_uncut_sequence[] OF_THE_ASSEMBLY, mc_uncut_at_call[] OF_THE_ASSEMBLY;
extern const char mc_uncut_copy_sequence[] OF_THE_ASSEMBLY, mc_uncut_copy_round[] OF_THE_ASSEMBLY;
uint8_t *mc_uncut_copy(uint8_t *to, const uint8_t *from, size_t len, uint64_t *sequence) OF_THE_ASSEMBLY;
long mc_uncut_call(uint64_t *sequence, long number, const long arguments[6]) OF_THE_ASSEMBLY;

_Static_assert(RSEQ_SIG == 0x53053053, "the number in front of mc_uncut_abort");

static uint64_t *thread_sequence(void)
{
    struct rseq *area = (struct rseq *)(void *)((char *)__builtin_thread_pointer() + __rseq_offset);

    return (uint64_t *)(void *)((char *)area + offsetof(struct rseq, rseq_cs));
}

bool uncut_works(void)
{
    return &__rseq_size && __rseq_size > 0;
}

void *uncut_instruction(void)
{
    return (void *)(uintptr_t)mc_uncut_at_call;
}

void *uncut_copy_instruction(void)
{
    return (void *)(uintptr_t)mc_uncut_copy_round;
}

static void begin(const char *sequence)
{
    if (uncut_works())
        *(volatile uint64_t *)thread_sequence() = (uintptr_t)sequence;
    __asm__ volatile("" ::: "memory"); /* the look stays behind it */
}

void uncut_begin(void)
{
    begin(mc_uncut_sequence);
}

static void copy_begin(void)
{
    begin(mc_uncut_copy_sequence);
}

static size_t copy(void *dst, const void *src, size_t len)
{
    uint64_t *sequence = thread_sequence();
    uint8_t *end;

    __asm__ volatile("" ::: "memory");
    end = mc_uncut_copy(dst, src, len, sequence);
    *(volatile uint64_t *)sequence = 0;
    return (size_t)(end - (uint8_t *)dst);
}

/* The result as libc gives it. */
static ssize_t call(long number, long a, long b, long c, long d, long e, long f)
{
    const long arguments[6] = {a, b, c, d, e, f};
    uint64_t *sequence = thread_sequence();
    long result;

    __asm__ volatile("" ::: "memory");
    result = mc_uncut_call(sequence, number, arguments);
    *(volatile uint64_t *)sequence = 0;
    if (result >= 0 || result == UNCUT_AGAIN)
        return result;
    errno = (int)-result;
    return -1;
}

#else

bool uncut_works(void)
{
    return false;
}

void *uncut_instruction(void)
{
    return NULL;
}

void *uncut_copy_instruction(void)
{
    return NULL;
}

void uncut_begin(void)
{
}

static void copy_begin(void)
{
}

static size_t copy(void *dst, const void *src, size_t len)
{
    return 0; /* nobody calls it: it does not work here */
}

static ssize_t call(long number, long a, long b, long c, long d, long e, long f)
{
    errno = ENOSYS; /* nobody calls it: it does not work here */
    return -1;
}

#endif

ssize_t uncut_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return uncut_works() ? call(SYS_recvmsg, fd, (long)msg, flags, 0, 0, 0) : recvmsg(fd, msg, flags);
}

ssize_t uncut_process_vm_writev(
    pid_t pid, const struct iovec *here, unsigned long here_count, const struct iovec *there, unsigned long there_count)
{
    return uncut_works()
               ? call(SYS_process_vm_writev, pid, (long)here, (long)here_count, (long)there, (long)there_count, 0)
               : process_vm_writev(pid, here, here_count, there, there_count, 0);
}

/* How much was copied, from the front; less than `len` when the thread has lost its processor since copy_begin(). -1: failed. */
static ssize_t copy_once(void *dst, const void *src, size_t len)
{
    struct iovec here = {dst, len}, there = {(void *)(uintptr_t)src, len};

    return uncut_works() ? (ssize_t)copy(dst, src, len) : process_vm_readv(getpid(), &here, 1, &there, 1, 0);
}

enum mc_status uncut_store(void *dst, const void *src, size_t len, uncut_look_fn *look, void *arg)
{
    size_t done = 0;

    while (done < len) {
        enum mc_status status;
        ssize_t n;

        copy_begin();
        status = look(arg);
        if (status != MC_OK)
            return status;
        n = copy_once((uint8_t *)dst + done, (const uint8_t *)src + done, len - done);
        if (n < 0) {
            log_error("copy of %zu bytes within this process: %m", len);
            return MC_ESYS;
        }
        done += (size_t)n;
    }
    return MC_OK;
}
