/* noise.h - a TCP relay that flips a bit of what passes it, when it is told to: of headers, bodies and data as they lie on the wire.
 *
 * Failures of the relay itself end the test (cmocka). Threads: one of its own; calls from one other. */
#ifndef TESTS_STORE_NOISE_H
#define TESTS_STORE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

struct noise;

/* Listens on loopback; connections are refused until it has a target. */
struct noise *noise_start(uint64_t seed);
void noise_stop(struct noise *noise);
const char *noise_address(const struct noise *noise);
void noise_target(struct noise *noise, const char *address);

/* Flip one bit of the next bytes that come from the target: any, or (`head`) one of the first 64, where a frame begins. */
void noise_arm(struct noise *noise, bool head);
uint64_t noise_flips(const struct noise *noise);

#endif
