/* What a machine can do to its processes: the clock jumps, the disk is slow or full. Preloaded into the service's
 * processes; `shim.py` writes the commands into a file that each of them maps. Only x86-64 and arm64 Linux with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 16

struct commands { /* as `shim.py` packs them */
    volatile int64_t full;      /* writes to the write-ahead log find no space */
    volatile int64_t delay_us;  /* of each fsync */
    struct {
        volatile int64_t pid;   /* 0: of nobody; with its children */
        volatile int64_t jump_ns;
    } clocks[SLOTS];
};

static struct commands *commands;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);

__attribute__((constructor)) static void begin(void) {
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    const char *path = getenv("FAULTS_SHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct commands), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) commands = mapped;
}

static int64_t jump(void) {
    if (commands)
        for (int i = 0; i < SLOTS; i++)
            if (commands->clocks[i].pid && (commands->clocks[i].pid == getpid() || commands->clocks[i].pid == getppid()))
                return commands->clocks[i].jump_ns;
    return 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = real_clock(id, now);
    if (failed || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return failed;
    int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + jump();
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &read)) return -1;
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec read;
    if (clock_gettime(CLOCK_REALTIME, &read)) return -1;
    if (kept) *kept = read.tv_sec;
    return read.tv_sec;
}

static void wait_for_disk(void) {
    if (commands && commands->delay_us > 0) usleep((useconds_t)commands->delay_us);
}

int fsync(int file) { wait_for_disk(); return real_fsync(file); }
int fdatasync(int file) { wait_for_disk(); return real_fdatasync(file); }

static int no_space(int file) {
    if (!commands || !commands->full) return 0;
    char link[32] = "/proc/self/fd/", path[512], digits[12];
    int n = 0, length = 14;
    for (int rest = file; rest || !n; rest /= 10) digits[n++] = (char)('0' + rest % 10);
    while (n) link[length++] = digits[--n];
    link[length] = 0;
    ssize_t read = readlink(link, path, sizeof path - 1);
    if (read < 0) return 0;
    path[read] = 0;
    if (!strstr(path, "/pg_wal/")) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t pwrite64(int file, const void *bytes, size_t n, off_t at) {
    return no_space(file) ? -1 : real_pwrite(file, bytes, n, at);
}
ssize_t pwrite(int file, const void *bytes, size_t n, off_t at) { return pwrite64(file, bytes, n, at); }
ssize_t pwritev64(int file, const struct iovec *parts, int n, off_t at) {
    return no_space(file) ? -1 : real_pwritev(file, parts, n, at);
}
ssize_t pwritev(int file, const struct iovec *parts, int n, off_t at) { return pwritev64(file, parts, n, at); }
