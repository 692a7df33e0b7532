/* `workload MODE SECONDS`: makes the kernel switch FPU registers in one of many ways, and says whether any were lost. */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ONCE_ROUNDS = 500, ACROSS_ROUNDS = 8 };

static int64_t deadline_ns;

struct mode {
    const char *name;
    bool (*run)(void);
    bool is_in_mix;
};

static bool run_once(void);
static bool run_mix(void);

static const struct mode MODES[] = {
    {"pipe", run_pipe, true},
    {"pipe-nofp", run_pipe_without_fp, false},
    {"spin", run_spin, false},
    {"sig", run_signals, true},
    {"fork", run_fork, true},
    {"yield", run_yield, true},
    {"hop", run_hop, true},
    {"kfpu", run_kernel_fpu, true},
    {"ptrace", run_xstate_tracer, true},
    {"fpregs", run_fpregs_tracer, false},
    {"sigpage", run_signals_on_lost_pages, false},
    {"threads", run_threads, false},
    {"core", run_deaths, false},
    {"mix", run_mix, false},
    {"once", run_once, false},
};
enum { MODE_COUNT = sizeof MODES / sizeof MODES[0] };

/* Sixteen numbers are enough for four registers of either width. */
struct sums {
    double at[16];
};

typedef double sse_vector __attribute__((vector_size(16)));
typedef double avx_vector __attribute__((vector_size(32)));

/* The vectors are operands of the system call: the compiler keeps them in registers over it. The factors keep sums finite. */
#define DEFINE_SEQUENCE(NAME, VECTOR, TARGET)                                                              \
    __attribute__((noipa, TARGET)) static struct sums NAME(double seed, unsigned rounds, struct call *call) \
    {                                                                                                      \
        VECTOR a = {seed, seed + 1}, b = a + 2, c = b * 3, d = c + a;                                      \
        for (unsigned round = 0; round < rounds; round++) {                                                \
            if (call && round == rounds / 2)                                                               \
                __asm__ volatile("syscall"                                                                 \
                                 : "=a"(call->result), "+x"(a), "+x"(b), "+x"(c), "+x"(d)                  \
                                 : "0"(call->number), "D"(call->arguments[0]), "S"(call->arguments[1]),    \
                                   "d"(call->arguments[2])                                                 \
                                 : "rcx", "r11", "memory");                                                \
            a = a * 0.75 + d;                                                                              \
            b = b * 0.625 + 1.5;                                                                           \
            c = c * 0.5 + b;                                                                               \
            d = d * 0.125 + seed;                                                                          \
        }                                                                                                  \
        struct sums sums = {{0}};                                                                          \
        const VECTOR all[] = {a, b, c, d};                                                                 \
        memcpy(&sums, all, sizeof all);                                                                    \
        return sums;                                                                                       \
    }

DEFINE_SEQUENCE(sequence_sse, sse_vector, target("sse2"))
DEFINE_SEQUENCE(sequence_avx, avx_vector, target("avx"))

/* Differs between tasks and from one computation to the next: foreign and stale registers must not look right. */
static double next_seed(void)
{
    static __thread unsigned computations;
    static __thread pid_t thread;
    if (computations++ % 64 == 0)
        thread = gettid();
    return thread + (computations % 4096) / 4096.0;
}

static bool sequence_repeats(unsigned rounds, struct call *call)
{
    struct sums (*sequence)(double, unsigned, struct call *) =
        __builtin_cpu_supports("avx") ? sequence_avx : sequence_sse;
    double seed = next_seed();
    struct sums first = sequence(seed, rounds, call);
    struct sums again = sequence(seed, rounds, NULL);
    return memcmp(&first, &again, sizeof first) == 0;
}

bool compute(unsigned rounds)
{
    return sequence_repeats(rounds, NULL);
}

bool compute_across(struct call *call)
{
    return sequence_repeats(ACROSS_ROUNDS, call);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

bool time_left(void)
{
    return now_ns() < deadline_ns;
}

int cpu_count(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        give_up("sched_getaffinity");
    return CPU_COUNT(&allowed);
}

void pin_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        give_up("sched_setaffinity");
}

void give_up(const char *what)
{
    fprintf(stderr, "workload: %s: %s\n", what, strerror(errno));
    _exit(3);
}

pid_t spawn(bool (*body)(void))
{
    pid_t child = fork();
    if (child < 0)
        give_up("fork");
    if (child == 0)
        _exit(body() ? 0 : 1);
    return child;
}

bool reap_all(void)
{
    bool all_well = true;
    int status;
    while (wait(&status) > 0)
        all_well &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return all_well;
}

bool run_in_children(int count, bool (*body)(void))
{
    for (int i = 0; i < count; i++)
        spawn(body);
    return reap_all();
}

void exec_once(void)
{
    /* Without SECONDS it prints nothing: the console is slow, and these are many. */
    execl("/proc/self/exe", "workload", "once", (char *)NULL);
}

static bool run_once(void)
{
    return compute(ONCE_ROUNDS);
}

static int modes_in_mix(void)
{
    int count = 0;
    for (int i = 0; i < MODE_COUNT; i++)
        count += MODES[i].is_in_mix;
    return count;
}

/* Each in a child: some pin themselves. */
static bool run_mix(void)
{
    bool all_well = true;
    int64_t end_ns = deadline_ns, start_ns = now_ns();
    int64_t share_ns = (end_ns - start_ns) / modes_in_mix();
    deadline_ns = start_ns;
    for (int i = 0; i < MODE_COUNT; i++) {
        if (!MODES[i].is_in_mix)
            continue;
        deadline_ns += share_ns;
        all_well &= run_in_children(1, MODES[i].run);
    }
    return all_well;
}

static const struct mode *mode_named(const char *name)
{
    for (int i = 0; i < MODE_COUNT; i++)
        if (strcmp(MODES[i].name, name) == 0)
            return &MODES[i];
    return NULL;
}

static int explain_usage(void)
{
    fputs("usage: workload MODE SECONDS\nmodes:", stderr);
    for (int i = 0; i < MODE_COUNT; i++)
        fprintf(stderr, " %s", MODES[i].name);
    fputs("\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "once") == 0)
        return run_once() ? 0 : 1;
    const struct mode *mode = argc == 3 ? mode_named(argv[1]) : NULL;
    double seconds = mode ? strtod(argv[2], NULL) : 0;
    if (seconds <= 0)
        return explain_usage();
    deadline_ns = now_ns() + (int64_t)(seconds * 1e9);
    bool is_well = mode->run();
    printf("workload %s %s\n", mode->name, is_well ? "ok" : "BAD");
    return is_well ? 0 : 1;
}
