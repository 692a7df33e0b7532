/* What the modes share: time, processes, and the arithmetic that notices lost registers. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <sys/types.h>

/* A system call with at most three arguments; `result` as the kernel returns it, errors negative. */
struct call {
    long number;
    long arguments[3];
    long result;
};

/* Computes for `rounds` and once more, and says whether both came out the same. */
bool compute(unsigned rounds);

/* Makes the call while operands are in vector registers, and says whether they were the same behind it. */
bool compute_across(struct call *call);

/* Whether the mode should go on. Integers only, since one mode is to leave the FPU alone. */
bool time_left(void);

int cpu_count(void);
void pin_to(int cpu);

/* Ends the process with a message from errno: the guest lacks something that every kernel has. */
_Noreturn void give_up(const char *what);

/* Runs `body` in a child, whose exit status is 0 if it returned true. */
pid_t spawn(bool (*body)(void));

/* Waits for all children, and says whether all exited with 0. */
bool reap_all(void);

/* Runs `body` in `count` children side by side. */
bool run_in_children(int count, bool (*body)(void));

/* Becomes `workload once`. Returns only if that fails; may be called in a vfork child. */
void exec_once(void);

/* Ordinary switches: switching.c */
bool run_pipe(void);
bool run_pipe_without_fp(void);
bool run_spin(void);
bool run_fork(void);
bool run_yield(void);
bool run_hop(void);
bool run_threads(void);
bool run_kernel_fpu(void);

/* Others that read or write a task's registers: intrusion.c */
bool run_signals(void);
bool run_signals_on_lost_pages(void);
bool run_deaths(void);
bool run_xstate_tracer(void);
bool run_fpregs_tracer(void);

#endif
