/* backends.h - the back ends of llama.cpp: plug-ins that lie beside the library. */
#ifndef LLAMA_BACKENDS_H
#define LLAMA_BACKENDS_H

/* Registers the back ends in the folder of the loaded library and initialises it; without them it can open no model. Once per process,
 * after the log callbacks are set, on one thread. What is not there shows when a model is opened. */
void llama_load_backends(void);

#endif
