/*
 * What stands between a server under test and its disk and clock: built with cc and loaded by LD_PRELOAD.
 *
 * Here: calls that storage is made of (write, flush, cut, rename, unlink, open), each of which may be slow, fail,
 * come up short or be the last one; a record of all that was not flushed, which a power cut takes back in
 * part; clocks that leap. Not here: when any of that happens (the driver writes it into a shared page).
 *
 * The page is an array of 64 bit words, see shim.rs. The driver fills in all words, the generation last.
 * Not seen here: fallocate, which the server calls without libc. What it does counts as durable at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { GENERATION, FILES, OPS, ACTION, AFTER, TIMES, ARG_MIN, ARG_MAX, LOSS, SEED, REALTIME, MONOTONIC,
       SEEN = 32, HITS, UNDONE, KEPT, NAMES_UNDONE, TRACKED, WORDS = 64 };
enum { NOTHING, DELAY, FAIL, SHORT, CRASH };
enum { WAL = 1, DB = 2, SNAP = 4, DIRECTORY = 8, OTHER = 16 };
enum { WRITE = 1, FLUSH = 2, CUT = 4, RENAME = 8, UNLINK = 16, CREATE = 32 };
enum { SECTOR = 512 };

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_open)(const char *, int, ...);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);

static _Atomic uint64_t *page;
static char root[PATH_MAX];
static size_t root_len;
static char trash[PATH_MAX];
static int tracking;

static _Atomic uint64_t armed, seen, hit;
/* Storage calls hold it for reading; a power cut for writing, so that none is half done. */
static pthread_rwlock_t power = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

/* ---- what was not flushed ---- */

struct op { struct op *older; uint64_t seq; off_t at; size_t len; off_t size_before, size_after; char *before; };
struct file { struct file *next; dev_t dev; ino_t ino; int fd; struct op *newest; };
struct name { struct name *older; uint64_t seq; int what; char *from, *to, *kept; };
static pthread_mutex_t book = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static struct name *names;
static uint64_t sequence;
static uint64_t dice;

static uint64_t roll(void) {
    uint64_t z = (dice += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int in_root(const char *path) { return root_len && strncmp(path, root, root_len) == 0; }

static int class_of_path(const char *path) {
    if (!in_root(path)) return 0;
    path += root_len;
    if (strstr(path, "/wal")) return WAL;
    size_t len = strlen(path);
    if (len > 3 && strcmp(path + len - 3, "/db") == 0) return DB;
    if (strstr(path, "/snap/")) return SNAP;
    return OTHER;
}

static int class_of(int fd, char *path) {
    if (!page) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return class_of_path(path);
}

static struct file *find(int fd, int make) {
    struct stat st;
    if (fstat(fd, &st)) return NULL;
    for (struct file *f = files; f; f = f->next)
        if (f->dev == st.st_dev && f->ino == st.st_ino) return f;
    if (!make) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    /* A description of our own: a duplicate would hold the server's lock after it has let go. */
    int own = real_open(link, O_RDWR | O_CLOEXEC);
    if (own < 0) return NULL;
    struct file *f = calloc(1, sizeof *f);
    *f = (struct file){ .next = files, .dev = st.st_dev, .ino = st.st_ino, .fd = own };
    files = f;
    return f;
}

/* Remembers what [at, at + len) held, before it is written or cut. */
static void remember(int fd, off_t at, size_t len, off_t size_after) {
    struct stat st;
    if (!tracking || fstat(fd, &st)) return;
    pthread_mutex_lock(&book);
    struct file *f = find(fd, 1);
    if (f) {
        struct op *op = calloc(1, sizeof *op);
        *op = (struct op){ .older = f->newest, .seq = ++sequence, .at = at, .len = len,
                           .size_before = st.st_size, .size_after = size_after < 0 ? st.st_size : size_after };
        if (size_after < 0 && at + (off_t)len > st.st_size) op->size_after = at + len;
        op->before = calloc(1, len ? len : 1);
        if (len && pread(f->fd, op->before, len, at) < 0) op->len = 0;
        f->newest = op;
        atomic_fetch_add(&page[TRACKED], 1);
    }
    pthread_mutex_unlock(&book);
}

static uint64_t mark(void) {
    pthread_mutex_lock(&book);
    uint64_t now = sequence;
    pthread_mutex_unlock(&book);
    return now;
}

/* All that was written to the file up to the mark is durable. */
static void forget(int fd, uint64_t upto) {
    pthread_mutex_lock(&book);
    struct file *f = find(fd, 0);
    for (struct op **at = f ? &f->newest : NULL; at && *at;) {
        struct op *op = *at;
        if (op->seq > upto) { at = &op->older; continue; }
        *at = op->older;
        free(op->before);
        free(op);
    }
    pthread_mutex_unlock(&book);
}

static int same_directory(const char *path, const char *dir) {
    size_t len = strlen(dir);
    const char *slash = strrchr(path, '/');
    return slash && (size_t)(slash - path) == len && strncmp(path, dir, len) == 0;
}

static void forget_names(const char *dir, uint64_t upto) {
    pthread_mutex_lock(&book);
    for (struct name **at = &names; *at;) {
        struct name *n = *at;
        if (n->seq > upto || !same_directory(n->to, dir)) { at = &n->older; continue; }
        *at = n->older;
        if (n->kept) real_unlink(n->kept);
        free(n->from); free(n->to); free(n->kept); free(n);
    }
    pthread_mutex_unlock(&book);
}

static void remember_name(int what, const char *from, const char *to) {
    if (!tracking) return;
    pthread_mutex_lock(&book);
    struct name *n = calloc(1, sizeof *n);
    *n = (struct name){ .older = names, .seq = ++sequence, .what = what,
                        .from = from ? strdup(from) : NULL, .to = strdup(to) };
    if (what != CREATE) {
        /* Another name for what is about to go, so that it can come back. */
        char kept[PATH_MAX + 64];
        snprintf(kept, sizeof kept, "%s/%d-%llu", trash, getpid(), (unsigned long long)n->seq);
        if (link(to, kept) == 0) n->kept = strdup(kept);
    }
    names = n;
    pthread_mutex_unlock(&book);
}

/* Sectors whose fate is settled: what they hold now survives. */
struct settled { uint64_t *bits; size_t words; };

static int is_settled(struct settled *s, uint64_t sector) {
    return sector / 64 < s->words && (s->bits[sector / 64] >> (sector % 64) & 1);
}

static void settle(struct settled *s, uint64_t sector) {
    if (sector / 64 >= s->words) {
        size_t words = sector / 64 + 1024;
        s->bits = realloc(s->bits, words * 8);
        memset(s->bits + s->words, 0, (words - s->words) * 8);
        s->words = words;
    }
    s->bits[sector / 64] |= 1ull << (sector % 64);
}

/* Takes a file back to something that a power cut may leave: each sector is that of some moment since the
 * last flush. Loss 1: all is gone. 2: each sector on its own. 3: a beginning of the writes survives. */
static void undo_file(struct file *f, uint64_t loss) {
    uint64_t ops = 0;
    for (struct op *op = f->newest; op; op = op->older) ops++;
    if (!ops) return;
    uint64_t lost = loss == 1 ? ops : roll() % (ops + 1), lost_sizes = loss == 2 ? roll() % (ops + 1) : lost;
    struct settled settled = { 0 };
    struct stat st;
    off_t size = fstat(f->fd, &st) ? 0 : st.st_size;
    uint64_t nth = 0;
    for (struct op *op = f->newest; op; op = op->older, nth++) {
        if (nth < lost_sizes) size = op->size_before;
        for (size_t done = 0; done < op->len;) {
            off_t at = op->at + done;
            size_t piece = SECTOR - at % SECTOR;
            if (piece > op->len - done) piece = op->len - done;
            int keep = loss == 2 ? roll() & 1 : nth >= lost;
            if (keep) settle(&settled, at / SECTOR);
            if (!is_settled(&settled, at / SECTOR)) {
                if (real_pwrite(f->fd, op->before + done, piece, at) < 0) { /* what stays is a survivor */ }
                atomic_fetch_add(&page[UNDONE], 1);
            } else {
                atomic_fetch_add(&page[KEPT], 1);
            }
            done += piece;
        }
    }
    if (real_ftruncate(f->fd, size)) { /* as above */ }
    free(settled.bits);
}

static void undo_names(uint64_t loss) {
    uint64_t count = 0, nth = 0;
    for (struct name *n = names; n; n = n->older) count++;
    if (!count) return;
    uint64_t lost = loss == 1 ? count : roll() % (count + 1);
    for (struct name *n = names; n && nth < lost; n = n->older, nth++) {
        int gone = 0;
        if (n->what == CREATE) gone = real_unlink(n->to);
        if (n->what == RENAME) gone = real_rename(n->to, n->from);
        if (n->kept) gone = real_rename(n->kept, n->to);
        if (!gone) atomic_fetch_add(&page[NAMES_UNDONE], 1);
    }
}

static void lose(void) {
    uint64_t loss = page[LOSS];
    if (!tracking || !loss) return;
    pthread_mutex_lock(&book);
    dice = page[SEED];
    for (struct file *f = files; f; f = f->next) undo_file(f, loss);
    undo_names(loss);
}

static void power_cut(void) {
    pthread_rwlock_unlock(&power);
    pthread_rwlock_wrlock(&power);
    lose();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* ---- what is to happen to a call ---- */

struct fate { uint64_t what, nth; };

static struct fate fate_of(int class, int op) {
    struct fate none = { NOTHING, 0 };
    uint64_t generation = page[GENERATION], was = armed;
    if (generation != was && atomic_compare_exchange_strong(&armed, &was, generation)) seen = 0;
    if (!generation || !page[ACTION] || !(page[FILES] & class) || !(page[OPS] & op)) return none;
    uint64_t nth = atomic_fetch_add(&seen, 1);
    atomic_fetch_add(&page[SEEN], 1);
    if (nth < page[AFTER] || nth - page[AFTER] >= page[TIMES]) return none;
    atomic_fetch_add(&page[HITS], 1);
    hit = generation;
    return (struct fate){ page[ACTION], nth };
}

static void delay(uint64_t nth) {
    uint64_t low = page[ARG_MIN], high = page[ARG_MAX], us = low;
    if (high > low) us += (nth * 0x9e3779b97f4a7c15ull >> 20) % (high - low);
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    nanosleep(&t, NULL);
}

/* 0: go on. -1: the call fails. A crash before the call does not come back. */
static int before(struct fate fate) {
    if (fate.what == DELAY) delay(fate.nth);
    if (fate.what == CRASH && page[ARG_MIN] == 0) power_cut();
    if (fate.what != FAIL) return 0;
    errno = page[ARG_MIN];
    return -1;
}

static void after(struct fate fate) {
    if (fate.what == CRASH) power_cut();
}

/* How much of a write is done. A disk takes whole sectors or pages, so that is where a part ends. */
static size_t length(struct fate fate, size_t len, off_t at) {
    int part = fate.what == SHORT || (fate.what == CRASH && page[ARG_MIN] == 2);
    if (!part || len < 2) return len;
    size_t some = 1 + (fate.nth * 0x9e3779b97f4a7c15ull >> 20) % (len - 1);
    size_t over = (at + some) % SECTOR;
    return over < some ? some - over : len;
}

static void enter(void) { pthread_rwlock_rdlock(&power); }
static void leave(void) { int e = errno; pthread_rwlock_unlock(&power); errno = e; }

/* ---- the calls ---- */

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t at) {
    char path[PATH_MAX];
    int class = class_of(fd, path);
    if (!class) return real_pwrite(fd, buf, len, at);
    enter();
    struct fate fate = fate_of(class, WRITE);
    ssize_t n = before(fate);
    if (n == 0) {
        len = length(fate, len, at);
        remember(fd, at, len, -1);
        n = real_pwrite(fd, buf, len, at);
        after(fate);
    }
    leave();
    return n;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t at) { return pwrite64(fd, buf, len, at); }

ssize_t write(int fd, const void *buf, size_t len) {
    char path[PATH_MAX];
    int class = fd > 2 ? class_of(fd, path) : 0;
    if (!class) return real_write(fd, buf, len);
    enter();
    struct fate fate = fate_of(class, WRITE);
    ssize_t n = before(fate);
    if (n == 0) {
        off_t at = lseek(fd, 0, SEEK_CUR);
        len = length(fate, len, at);
        remember(fd, at, len, -1);
        n = real_write(fd, buf, len);
        after(fate);
    }
    leave();
    return n;
}

static int flush(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    int class = class_of(fd, path);
    if (!class) return real(fd);
    struct stat st;
    int directory = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    enter();
    struct fate fate = fate_of(directory ? DIRECTORY : class, FLUSH);
    int n = before(fate);
    if (n == 0) {
        uint64_t upto = mark();
        n = real(fd);
        if (n == 0 && directory) forget_names(path, upto);
        if (n == 0 && !directory) forget(fd, upto);
        after(fate);
    }
    leave();
    return n;
}

int fsync(int fd) { return flush(fd, real_fsync); }
int fdatasync(int fd) { return flush(fd, real_fdatasync); }

int ftruncate64(int fd, off_t size) {
    char path[PATH_MAX];
    int class = class_of(fd, path);
    if (!class) return real_ftruncate(fd, size);
    enter();
    struct fate fate = fate_of(class, CUT);
    int n = before(fate);
    if (n == 0) {
        struct stat st;
        size_t cut = fstat(fd, &st) == 0 && st.st_size > size ? st.st_size - size : 0;
        remember(fd, size, cut, size);
        n = real_ftruncate(fd, size);
        after(fate);
    }
    leave();
    return n;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int rename(const char *from, const char *to) {
    int class = page ? class_of_path(to) : 0;
    if (!class) return real_rename(from, to);
    enter();
    struct fate fate = fate_of(class, RENAME);
    int n = before(fate);
    if (n == 0) {
        remember_name(RENAME, from, to);
        n = real_rename(from, to);
        after(fate);
    }
    leave();
    return n;
}

int unlink(const char *path) {
    int class = page ? class_of_path(path) : 0;
    if (!class) return real_unlink(path);
    enter();
    struct fate fate = fate_of(class, UNLINK);
    int n = before(fate);
    if (n == 0) {
        remember_name(UNLINK, NULL, path);
        n = real_unlink(path);
        after(fate);
    }
    leave();
    return n;
}

int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    int class = page && flags & O_CREAT ? class_of_path(path) : 0;
    if (!class) return real_open(path, flags, mode);
    enter();
    struct fate fate = fate_of(class, CREATE);
    int n = before(fate);
    if (n == 0) {
        struct stat st;
        int is_new = stat(path, &st) != 0;
        n = real_open(path, flags, mode);
        if (n >= 0 && is_new) remember_name(CREATE, NULL, path);
        after(fate);
    }
    leave();
    return n;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open64(path, flags, mode);
}

/* ---- the clock ---- */

static void add(struct timespec *t, int64_t ns) {
    int64_t nanos = t->tv_nsec + ns % 1000000000;
    t->tv_sec += ns / 1000000000;
    if (nanos < 0) { nanos += 1000000000; t->tv_sec--; }
    if (nanos >= 1000000000) { nanos -= 1000000000; t->tv_sec++; }
    t->tv_nsec = nanos;
    if (t->tv_sec < 0) t->tv_sec = t->tv_nsec = 0;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int n = real_clock_gettime(clock, t);
    if (n || !page) return n;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) add(t, (int64_t)page[REALTIME]);
    if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW ||
        clock == CLOCK_BOOTTIME)
        add(t, (int64_t)page[MONOTONIC]);
    return n;
}

/* Waits with a deadline are made by this call, and the kernel's clock has not leapt. */
long syscall(long number, ...) {
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    if (!real_syscall) real_syscall = dlsym(RTLD_NEXT, "syscall");
    struct timespec deadline;
    int waits = number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && a[3];
    if (waits && page && !(a[1] & FUTEX_CLOCK_REALTIME) && page[MONOTONIC]) {
        deadline = *(struct timespec *)a[3];
        add(&deadline, -(int64_t)page[MONOTONIC]);
        a[3] = (long)&deadline;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- begin and end ---- */

__attribute__((constructor)) static void begin(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_open = dlsym(RTLD_NEXT, "open64");
    const char *at = getenv("TORTURE_PAGE"), *dir = getenv("TORTURE_ROOT"), *kept = getenv("TORTURE_TRASH");
    if (!at || !dir) return;
    int fd = real_open(at, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        fprintf(stderr, "torture shim: cannot map %s\n", at);
        _exit(97);
    }
    close(fd);
    root_len = snprintf(root, sizeof root, "%s", dir);
    if (kept) {
        snprintf(trash, sizeof trash, "%s", kept);
        tracking = 1;
    }
    page = map;
}

/* An orderly end after a failed flush: the machine may still lose what the flush did not save. */
__attribute__((destructor)) static void end(void) {
    if (!page || !hit || hit != page[GENERATION] || page[ACTION] != FAIL || !page[LOSS]) return;
    pthread_rwlock_wrlock(&power);
    lose();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
