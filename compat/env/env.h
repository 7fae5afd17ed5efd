/* env.h - the existing Mooncake's environment variables: none is dropped without a word.
 *
 * Threads: any. */
#ifndef COMPAT_ENV_ENV_H
#define COMPAT_ENV_ENV_H

/* Who speaks. The Store's variables are left to the Store, which speaks of the engine's as well. */
enum compat_part { COMPAT_PART_ENGINE, COMPAT_PART_STORE };

/* Once per process, or per Python module: sets the log level from MC_LOG_LEVEL (unless MOONCAKE_LOG is there), names the variables that
 * are set and have no meaning here in one line, and in another (a warning) those that nobody knows. */
void compat_env_tell(enum compat_part part);

#endif
