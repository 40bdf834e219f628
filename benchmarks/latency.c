/* Makes each call that a file server has to answer take longer, as on a network file system.
 *
 *     cc -O2 -fno-delete-null-pointer-checks -Wno-nonnull-compare -shared -fPIC -o latency.so latency.c -ldl
 *     LATENCY_US=200 LATENCY_BELOW=/mnt/slow LD_PRELOAD=./latency.so cp -a /mnt/slow/a /mnt/slow/b
 *
 * Waits: opening, listing and making; looking by name; changing names, modes, owners and times, by name and by descriptor.
 * Waits not: reading, writing, closing, extended attributes, and fstat(2) of an open file, which a client answers from
 * what opening it told.  Only below LATENCY_BELOW, so that starting a program costs what it did.  LATENCY_COUNT names a
 * file that gets a line with the number of waits of each process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_long waits;
static struct timespec delay;
static const char *below;
static size_t below_length;
static dev_t device;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("LATENCY_US");
    struct stat status;

    below = getenv("LATENCY_BELOW");
    if (!text || !below || syscall(SYS_newfstatat, AT_FDCWD, below, &status, 0))
        return;
    below_length = strlen(below);
    device = status.st_dev;
    delay.tv_nsec = atol(text) * 1000;
    prctl(PR_SET_TIMERSLACK, 1UL); /* else the kernel adds up to 50 us; threads inherit it */
}

__attribute__((destructor)) static void finish(void)
{
    const char *name = getenv("LATENCY_COUNT");
    char line[32];
    int length, fd;

    if (!name || (fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND, 0600)) < 0)
        return;
    length = snprintf(line, sizeof line, "%ld\n", atomic_load(&waits));
    if (write(fd, line, length) != length)
        abort();
    close(fd);
}

static void wait_once(void)
{
    atomic_fetch_add(&waits, 1);
    nanosleep(&delay, NULL);
}

static void by_fd(int fd)
{
    struct stat status;

    if (delay.tv_nsec && !syscall(SYS_newfstatat, fd, "", &status, AT_EMPTY_PATH) && status.st_dev == device)
        wait_once();
}

static void by_name(int folder, const char *name)
{
    if (!delay.tv_nsec || !name || !*name)
        return;
    if (*name == '/') {
        if (!strncmp(name, below, below_length))
            wait_once();
    } else {
        by_fd(folder);
    }
}

/* Defines `name`, which waits and then does what the function of that name in the C library does. */
#define FORWARD(result, name, types, names, wait)          \
    result name types                                      \
    {                                                      \
        static result(*real) types;                        \
        if (!real)                                         \
            real = (result(*) types)dlsym(RTLD_NEXT, #name); \
        wait;                                              \
        return real names;                                 \
    }

/* The same for a function with a mode that is there only when a file may be made. */
#define OPENER(name, types, names, wait)        \
    int name types                                         \
    {                                                      \
        static int(*real) types;                           \
        mode_t mode = 0;                                   \
        va_list rest;                                      \
        if (!real)                                         \
            real = (int(*) types)dlsym(RTLD_NEXT, #name);  \
        va_start(rest, flags);                             \
        if (flags & (O_CREAT | __O_TMPFILE))               \
            mode = va_arg(rest, mode_t);                   \
        va_end(rest);                                      \
        wait;                                              \
        return real names;                                 \
    }
#define OPEN(name) OPENER(name, (const char *p, int flags, ...), (p, flags, mode), by_name(AT_FDCWD, p))
#define OPENAT(name) OPENER(name, (int d, const char *p, int flags, ...), (d, p, flags, mode), by_name(d, p))

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FORWARD(int, __open_2, (const char *p, int f), (p, f), by_name(AT_FDCWD, p))
FORWARD(int, __open64_2, (const char *p, int f), (p, f), by_name(AT_FDCWD, p))
FORWARD(int, __openat_2, (int d, const char *p, int f), (d, p, f), by_name(d, p))
FORWARD(int, __openat64_2, (int d, const char *p, int f), (d, p, f), by_name(d, p))
FORWARD(int, creat, (const char *p, mode_t m), (p, m), by_name(AT_FDCWD, p))
FORWARD(int, creat64, (const char *p, mode_t m), (p, m), by_name(AT_FDCWD, p))
FORWARD(DIR *, opendir, (const char *p), (p), by_name(AT_FDCWD, p))
FORWARD(DIR *, fdopendir, (int fd), (fd), by_fd(fd))
FORWARD(int, mkdir, (const char *p, mode_t m), (p, m), by_name(AT_FDCWD, p))
FORWARD(int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), by_name(d, p))
FORWARD(int, symlink, (const char *t, const char *p), (t, p), by_name(AT_FDCWD, p))
FORWARD(int, symlinkat, (const char *t, int d, const char *p), (t, d, p), by_name(d, p))
FORWARD(int, link, (const char *o, const char *p), (o, p), by_name(AT_FDCWD, p))
FORWARD(int, linkat, (int a, const char *o, int d, const char *p, int f), (a, o, d, p, f), by_name(d, p))
FORWARD(int, stat, (const char *p, struct stat *s), (p, s), by_name(AT_FDCWD, p))
FORWARD(int, stat64, (const char *p, struct stat64 *s), (p, s), by_name(AT_FDCWD, p))
FORWARD(int, lstat, (const char *p, struct stat *s), (p, s), by_name(AT_FDCWD, p))
FORWARD(int, lstat64, (const char *p, struct stat64 *s), (p, s), by_name(AT_FDCWD, p))
FORWARD(int, fstatat, (int d, const char *p, struct stat *s, int f), (d, p, s, f), by_name(d, p))
FORWARD(int, fstatat64, (int d, const char *p, struct stat64 *s, int f), (d, p, s, f), by_name(d, p))
FORWARD(int, statx, (int d, const char *p, int f, unsigned m, struct statx *s), (d, p, f, m, s), by_name(d, p))
FORWARD(int, access, (const char *p, int m), (p, m), by_name(AT_FDCWD, p))
FORWARD(int, faccessat, (int d, const char *p, int m, int f), (d, p, m, f), by_name(d, p))
FORWARD(ssize_t, readlink, (const char *p, char *b, size_t n), (p, b, n), by_name(AT_FDCWD, p))
FORWARD(ssize_t, readlinkat, (int d, const char *p, char *b, size_t n), (d, p, b, n), by_name(d, p))
FORWARD(int, rename, (const char *o, const char *p), (o, p), by_name(AT_FDCWD, p))
FORWARD(int, renameat, (int a, const char *o, int d, const char *p), (a, o, d, p), by_name(d, p))
FORWARD(int, renameat2, (int a, const char *o, int d, const char *p, unsigned f), (a, o, d, p, f), by_name(d, p))
FORWARD(int, unlink, (const char *p), (p), by_name(AT_FDCWD, p))
FORWARD(int, unlinkat, (int d, const char *p, int f), (d, p, f), by_name(d, p))
FORWARD(int, rmdir, (const char *p), (p), by_name(AT_FDCWD, p))
FORWARD(int, chmod, (const char *p, mode_t m), (p, m), by_name(AT_FDCWD, p))
FORWARD(int, fchmod, (int fd, mode_t m), (fd, m), by_fd(fd))
FORWARD(int, fchmodat, (int d, const char *p, mode_t m, int f), (d, p, m, f), by_name(d, p))
FORWARD(int, chown, (const char *p, uid_t u, gid_t g), (p, u, g), by_name(AT_FDCWD, p))
FORWARD(int, lchown, (const char *p, uid_t u, gid_t g), (p, u, g), by_name(AT_FDCWD, p))
FORWARD(int, fchown, (int fd, uid_t u, gid_t g), (fd, u, g), by_fd(fd))
FORWARD(int, fchownat, (int d, const char *p, uid_t u, gid_t g, int f), (d, p, u, g, f), by_name(d, p))
FORWARD(int, utimensat, (int d, const char *p, const struct timespec t[2], int f), (d, p, t, f),
        p ? by_name(d, p) : by_fd(d))
FORWARD(int, futimens, (int fd, const struct timespec t[2]), (fd, t), by_fd(fd))
FORWARD(int, utimes, (const char *p, const struct timeval t[2]), (p, t), by_name(AT_FDCWD, p))
FORWARD(int, lutimes, (const char *p, const struct timeval t[2]), (p, t), by_name(AT_FDCWD, p))
FORWARD(int, futimes, (int fd, const struct timeval t[2]), (fd, t), by_fd(fd))
