/* env.h - the existing Mooncake's environment variables: none is dropped without a word.
 *
 * Threads: any. */
#ifndef COMPAT_ENGINE_ENV_H
#define COMPAT_ENGINE_ENV_H

/* Once per process: sets the log level from MC_LOG_LEVEL (unless MOONCAKE_LOG is there), names the variables that are set and have no
 * meaning here in one line, and in another (a warning) those nobody knows. */
void ce_env_tell(void);

#endif
