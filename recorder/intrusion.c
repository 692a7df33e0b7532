/* Modes in which signal frames, debuggers and core dumps read and write a task's FPU registers. */
#define _GNU_SOURCE
#include "workload.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { HANDLER_ROUNDS = 50, SLICE_ROUNDS = 2000, PAUSE_US = 1000 };

static volatile sig_atomic_t handler_failed;

static void compute_in_handler(int signal)
{
    (void)signal;
    if (!compute(HANDLER_ROUNDS))
        handler_failed = 1;
}

static void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    if (sigaction(signal, &action, NULL) != 0)
        give_up("sigaction");
}

static bool compute_under_timer(void)
{
    bool is_well = true;
    struct itimerval period = {{0, PAUSE_US}, {0, PAUSE_US}}, never = {{0, 0}, {0, 0}};
    handle(SIGALRM, compute_in_handler, SA_RESTART);
    setitimer(ITIMER_REAL, &period, NULL);
    while (time_left())
        is_well &= compute(SLICE_ROUNDS);
    setitimer(ITIMER_REAL, &never, NULL);
    return is_well && !handler_failed;
}

bool run_signals(void)
{
    return run_in_children(cpu_count() + 1, compute_under_timer);
}

enum { SIGNAL_STACK_BYTES = 65536 };

static char *map_signal_stack(char *at)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
    char *stack = mmap(at, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED)
        give_up("mmap");
    return stack;
}

/* In turn keeps and replaces the mapping: both leave no page to write the frame to. */
static void lose_pages(char *stack, unsigned turn)
{
    if (turn % 2 == 0) {
        madvise(stack, SIGNAL_STACK_BYTES, MADV_DONTNEED);
        return;
    }
    munmap(stack, SIGNAL_STACK_BYTES);
    map_signal_stack(stack);
}

static bool signal_on_lost_pages(void)
{
    bool is_well = true;
    stack_t alternate = {.ss_sp = map_signal_stack(NULL), .ss_size = SIGNAL_STACK_BYTES};
    if (sigaltstack(&alternate, NULL) != 0)
        give_up("sigaltstack");
    handle(SIGUSR1, compute_in_handler, SA_ONSTACK);
    for (unsigned turn = 0; time_left(); turn++) {
        lose_pages(alternate.ss_sp, turn);
        struct call raise_signal = {SYS_kill, {getpid(), SIGUSR1, 0}, 0};
        is_well &= compute_across(&raise_signal);
    }
    return is_well && !handler_failed;
}

bool run_signals_on_lost_pages(void)
{
    return run_in_children(cpu_count() + 1, signal_on_lost_pages);
}

enum { LEGACY_REGION_BYTES = 512 };
/* `xstate_size` of struct _fpx_sw_bytes (uapi/asm/sigcontext.h), in the legacy region, which is all there is without XSAVE. */
enum { XSTATE_SIZE_OFFSET_BYTES = 464 + 16 };
/* In the XSAVE header, bytes 16 to 63 are reserved and must be zero: SDM volume 1, 13.4.2 "XSAVE Header". */
enum { HEADER_RESERVED_OFFSET_BYTES = LEGACY_REGION_BYTES + 16 };

enum { MXCSR_RESERVED = 0xffff0000 };

static void spoil_mxcsr(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ((ucontext_t *)context)->uc_mcontext.fpregs->mxcsr |= MXCSR_RESERVED;
}

static void spoil_pointer(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    fpregset_t nowhere = (fpregset_t)64;
    ((ucontext_t *)context)->uc_mcontext.fpregs = nowhere;
}

static void spoil_header(int signal, siginfo_t *info, void *context)
{
    char *frame = (char *)((ucontext_t *)context)->uc_mcontext.fpregs;
    uint32_t xstate_bytes;
    memcpy(&xstate_bytes, frame + XSTATE_SIZE_OFFSET_BYTES, sizeof xstate_bytes);
    if (xstate_bytes > LEGACY_REGION_BYTES)
        memset(frame + HEADER_RESERVED_OFFSET_BYTES, 0xff, sizeof(uint64_t));
    else
        spoil_pointer(signal, info, context);
}

static bool return_through(void (*spoil)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = spoil, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    struct call raise_signal = {SYS_kill, {getpid(), SIGUSR1, 0}, 0};
    return compute_across(&raise_signal);
}

static bool return_with_spoilt_mxcsr(void)
{
    return return_through(spoil_mxcsr);
}

static bool return_with_spoilt_pointer(void)
{
    return return_through(spoil_pointer);
}

static bool return_with_spoilt_header(void)
{
    return return_through(spoil_header);
}

static bool abort_while_computing(void)
{
    struct call raise_signal = {SYS_kill, {getpid(), SIGABRT, 0}, 0};
    return compute_across(&raise_signal);
}

static int status_of(bool (*body)(void))
{
    int status;
    pid_t child = spawn(body);
    if (waitpid(child, &status, 0) != child)
        give_up("waitpid");
    return status;
}

static bool dies_of(int signal, bool (*body)(void))
{
    int status = status_of(body);
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

/* QEMU's emulation loads reserved bits of MXCSR, at which a CPU faults; then the registers have to be right. */
static bool dies_or_goes_on_with_spoilt_mxcsr(void)
{
    int status = status_of(return_with_spoilt_mxcsr);
    return status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

bool run_deaths(void)
{
    bool is_well = true;
    struct rlimit core_bytes = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_CORE, &core_bytes);
    while (time_left()) {
        is_well &= dies_of(SIGABRT, abort_while_computing);
        is_well &= dies_of(SIGSEGV, return_with_spoilt_header);
        is_well &= dies_of(SIGSEGV, return_with_spoilt_pointer);
        is_well &= dies_or_goes_on_with_spoilt_mxcsr();
        is_well &= compute(HANDLER_ROUNDS);
    }
    return is_well;
}

/* Reads a stopped child's registers, writes them back, and says whether they then read the same. */
typedef bool exchange(pid_t child);

static bool exchange_xstate(pid_t child)
{
    static char image[16384], again[16384];
    struct iovec area = {image, sizeof image};
    if (ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &area) != 0)
        return errno == ENODEV; /* a CPU without XSAVE */
    if (ptrace(PTRACE_SETREGSET, child, NT_X86_XSTATE, &area) != 0)
        return false;
    struct iovec written = {again, sizeof again};
    return ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &written) == 0 && written.iov_len == area.iov_len &&
           memcmp(image, again, area.iov_len) == 0;
}

static bool exchange_fpregs(pid_t child)
{
    struct user_fpregs_struct image, again;
    return ptrace(PTRACE_GETFPREGS, child, NULL, &image) == 0 &&
           ptrace(PTRACE_SETFPREGS, child, NULL, &image) == 0 &&
           ptrace(PTRACE_GETFPREGS, child, NULL, &again) == 0 && memcmp(&image, &again, sizeof image) == 0;
}

static bool compute_until_end(void)
{
    bool is_well = true;
    while (time_left())
        is_well &= compute(SLICE_ROUNDS);
    return is_well;
}

/* Stops the child over and over until it exits. */
static bool trace_child(exchange *exchange_registers)
{
    bool is_well = true;
    int status;
    pid_t child = spawn(compute_until_end);
    if (ptrace(PTRACE_SEIZE, child, NULL, NULL) != 0) {
        /* On a busy host it may have ended by now. */
        if (waitpid(child, &status, WNOHANG) != child)
            give_up("PTRACE_SEIZE");
        return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    for (;;) {
        usleep(PAUSE_US);
        ptrace(PTRACE_INTERRUPT, child, NULL, NULL);
        if (waitpid(child, &status, 0) != child)
            give_up("waitpid");
        if (!WIFSTOPPED(status))
            return is_well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        is_well &= exchange_registers(child);
        ptrace(PTRACE_CONT, child, NULL, NULL);
    }
}

static bool trace_xstate(void)
{
    return trace_child(exchange_xstate);
}

static bool trace_fpregs(void)
{
    return trace_child(exchange_fpregs);
}

bool run_xstate_tracer(void)
{
    return run_in_children(2, trace_xstate);
}

bool run_fpregs_tracer(void)
{
    return run_in_children(2, trace_fpregs);
}
