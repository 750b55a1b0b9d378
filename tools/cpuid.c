/* Answers the instruction cpuid as on a processor with fewer instruction sets.

   Preloaded by as_processor.py. Libraries run patched copies, in which each cpuid (two bytes) is
   a trap and a no-op. WITHOUT_EBX, WITHOUT_ECX and WITHOUT_EDX are the bits of leaf 7 to clear. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <ucontext.h>

typedef int Sigaction(int, const struct sigaction *, struct sigaction *);

enum { TRAP = 0xCC, NO_OPERATION = 0x90, EXTENDED_FEATURES = 7 };

static void answer(int number, siginfo_t *information, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *next = (const unsigned char *)registers[REG_RIP];
    if (next[-1] != TRAP || next[0] != NO_OPERATION)
        abort();
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == EXTENDED_FEATURES) {
        /* Further parts have AVX-VNNI and AVX-512 BF16: there are none. */
        a = 0;
        b = part ? 0 : b & ~WITHOUT_EBX;
        c = part ? 0 : c & ~WITHOUT_ECX;
        d = part ? 0 : d & ~WITHOUT_EDX;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
}

static Sigaction *of_the_c_library(void) {
    return (Sigaction *)dlsym(RTLD_NEXT, "sigaction");
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    of_the_c_library()(SIGTRAP, &action, NULL);
}

/* Others, such as Ray's workers, would take the trap for a crash. */
int sigaction(int number, const struct sigaction *action, struct sigaction *previous) {
    return of_the_c_library()(number, number == SIGTRAP ? NULL : action, previous);
}
