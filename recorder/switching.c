/* Modes in which tasks use the FPU and are switched, born and replaced, and the kernel computes with their registers. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <linux/if_alg.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SHORT_ROUNDS = 50, SLICE_ROUNDS = 2000 };

/* One end of a pair of pipes. */
struct peer {
    int in, out;
    bool uses_fp;
};

/* False at the end of the pipe. */
static bool receive(const struct peer *peer, bool *is_well)
{
    char byte;
    if (!peer->uses_fp)
        return read(peer->in, &byte, 1) == 1;
    struct call read_byte = {SYS_read, {peer->in, (long)&byte, 1}, 0};
    *is_well &= compute_across(&read_byte);
    return read_byte.result == 1;
}

static void answer(const struct peer *peer, bool *is_well)
{
    if (peer->uses_fp)
        *is_well &= compute(SHORT_ROUNDS);
    if (write(peer->out, "", 1) != 1)
        give_up("write to a pipe");
}

static bool echo(const struct peer *peer)
{
    bool is_well = true;
    while (receive(peer, &is_well))
        answer(peer, &is_well);
    return is_well;
}

static bool serve(const struct peer *peer)
{
    bool is_well = true;
    while (time_left()) {
        answer(peer, &is_well);
        if (!receive(peer, &is_well))
            return false;
    }
    return is_well;
}

static bool ping_pong(bool uses_fp)
{
    int there[2], back[2];
    pin_to(0);
    if (pipe(there) != 0 || pipe(back) != 0)
        give_up("pipe");
    pid_t child = fork();
    if (child < 0)
        give_up("fork");
    if (child == 0) {
        close(there[1]);
        _exit(echo(&(struct peer){there[0], back[1], uses_fp}) ? 0 : 1);
    }
    close(back[1]);
    bool is_well = serve(&(struct peer){back[0], there[1], uses_fp});
    close(there[1]);
    return reap_all() && is_well;
}

bool run_pipe(void)
{
    return ping_pong(true);
}

bool run_pipe_without_fp(void)
{
    return ping_pong(false);
}

static bool compute_until_end(void)
{
    bool is_well = true;
    while (time_left())
        is_well &= compute(SLICE_ROUNDS);
    return is_well;
}

bool run_spin(void)
{
    return run_in_children(cpu_count() + 2, compute_until_end);
}

static bool compute_once(void)
{
    return compute(SHORT_ROUNDS);
}

static bool compute_and_exec(void)
{
    if (compute_once())
        exec_once();
    return false;
}

bool run_fork(void)
{
    bool is_well = true;
    while (time_left()) {
        spawn(compute_and_exec);
        is_well &= run_in_children(cpu_count() + 1, compute_once);
        is_well &= compute_once();
    }
    return is_well;
}

static bool yield_until_end(void)
{
    bool is_well = true;
    pin_to(0);
    while (time_left()) {
        struct call yield = {SYS_sched_yield, {0}, 0};
        is_well &= compute_across(&yield);
    }
    return is_well;
}

bool run_yield(void)
{
    return run_in_children(2, yield_until_end);
}

static bool hop_until_end(void)
{
    bool is_well = true;
    int cpus = cpu_count();
    for (int cpu = getpid() % cpus; time_left(); cpu = (cpu + 1) % cpus) {
        cpu_set_t target;
        CPU_ZERO(&target);
        CPU_SET(cpu, &target);
        struct call move = {SYS_sched_setaffinity, {0, sizeof target, (long)&target}, 0};
        is_well &= compute_across(&move) && move.result == 0;
        is_well &= compute(SHORT_ROUNDS);
    }
    return is_well;
}

bool run_hop(void)
{
    return run_in_children(cpu_count() + 1, hop_until_end);
}

static void *compute_in_thread(void *unused)
{
    (void)unused;
    return compute(SLICE_ROUNDS) ? "well" : NULL;
}

static void start_thread(pthread_t *thread, void *(*body)(void *))
{
    if (pthread_create(thread, NULL, body, NULL) != 0)
        give_up("pthread_create");
}

static bool compute_in_threads(void)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    bool is_well = true;
    for (int i = 0; i < THREADS; i++)
        start_thread(&threads[i], compute_in_thread);
    is_well &= compute(SLICE_ROUNDS);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        is_well &= result != NULL;
    }
    return is_well;
}

static void vfork_and_exec(void)
{
    pid_t child = vfork();
    if (child < 0)
        give_up("vfork");
    if (child == 0) {
        exec_once();
        _exit(1);
    }
}

static void *exec_in_thread(void *unused)
{
    (void)unused;
    if (compute_once())
        exec_once();
    _exit(1);
}

/* The thread takes the place of the leader, which computes until then. */
static bool replace_leader(void)
{
    pthread_t thread;
    start_thread(&thread, exec_in_thread);
    while (compute(SHORT_ROUNDS))
        ;
    return false;
}

bool run_threads(void)
{
    bool is_well = true;
    while (time_left()) {
        is_well &= compute_in_threads();
        vfork_and_exec();
        spawn(replace_leader);
        is_well &= compute(SHORT_ROUNDS);
        is_well &= reap_all();
    }
    return is_well;
}

/* A socket that hashes what is written to it, or -1 where the kernel has none. */
static int open_hash(void)
{
    struct sockaddr_alg address = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
    int algorithm = socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (algorithm < 0)
        return -1;
    int hash = bind(algorithm, (struct sockaddr *)&address, sizeof address) == 0 ? accept(algorithm, NULL, 0) : -1;
    close(algorithm);
    return hash;
}

enum { BLOCK_BYTES = 16384, DIGEST_BYTES = 32 };

static bool hash_block(int hash, const char block[BLOCK_BYTES], char digest[DIGEST_BYTES])
{
    struct call feed = {SYS_write, {hash, (long)block, BLOCK_BYTES}, 0};
    struct call finish = {SYS_read, {hash, (long)digest, DIGEST_BYTES}, 0};
    return compute_across(&feed) && feed.result == BLOCK_BYTES && compute_across(&finish) &&
           finish.result == DIGEST_BYTES;
}

/* Twice, since the kernel's own vector code has to come out the same as well. */
static bool hash_repeats(int hash, const char block[BLOCK_BYTES])
{
    char first[DIGEST_BYTES], again[DIGEST_BYTES];
    return hash_block(hash, block, first) && hash_block(hash, block, again) &&
           memcmp(first, again, sizeof first) == 0;
}

static bool draw_random_bytes(int urandom, char block[BLOCK_BYTES])
{
    struct call getrandom = {SYS_getrandom, {(long)block, BLOCK_BYTES / 4, 0}, 0};
    struct call read_device = {SYS_read, {urandom, (long)block, BLOCK_BYTES / 4}, 0};
    return compute_across(&getrandom) && getrandom.result > 0 && compute_across(&read_device) &&
           read_device.result > 0;
}

static bool use_kernel_fpu(void)
{
    static char block[BLOCK_BYTES];
    bool is_well = true;
    int hash = open_hash();
    int urandom = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (urandom < 0)
        give_up("/dev/urandom");
    while (time_left()) {
        is_well &= draw_random_bytes(urandom, block);
        if (hash >= 0)
            is_well &= hash_repeats(hash, block);
        is_well &= compute(SHORT_ROUNDS);
    }
    return is_well;
}

bool run_kernel_fpu(void)
{
    return run_in_children(cpu_count() + 1, use_kernel_fpu);
}
