/* program.h - what the drop-in programs have in common beside flags: addresses, signals, how they end.
 * Threads: the main thread's, before others are made, except where said. */
#ifndef COMPAT_PROGRAM_PROGRAM_H
#define COMPAT_PROGRAM_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

enum { PROGRAM_FAILED = 1, PROGRAM_USAGE = 2, PROGRAM_ADDRESS_MAX = 300 };

/* "host:port" of a listener, as the user wrote the host with --flag. Every interface only when he said that he means it
 * (`insecure`): nothing is authenticated. One warning for what can be reached from outside. False: logged. */
bool program_address(const char *flag, const char *host, uint32_t port, bool insecure, char out[PROGRAM_ADDRESS_MAX]);

/* Before any thread: SIGTERM and SIGINT wait for program_on_signal(), SIGPIPE is nothing. */
void program_block_signals(void);

/* A thread that calls stop(arg) at the first of them; join it when the program has ended by that. MC_ESYS: no thread. */
enum mc_status program_on_signal(void (*stop)(void *arg), void *arg);
void program_join_signal(void);

/* The frame of a main(): under this name the program speaks; the message is for the parser of its flags. */
struct buf program_begin(const char *name);

/* What the flags said, on the right stream: help, version, or why not. True: the program goes on. *code else. Takes the message. */
bool program_goes_on(struct buf *message, enum mc_status status, bool help, bool version,
    void (*print_help)(struct buf *out), int *code);

#endif
