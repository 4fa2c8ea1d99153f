// Stands before the C library's operations that change files (LD_PRELOAD) and counts those below one folder. At a chosen
// one the process is killed (before it, or after it, a write then being half done), or the operation fails, that one
// or all from there on; or all of them are recorded, with their bytes, for power_loss.py. Python sees none of it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wnonnull-compare"
#pragma GCC diagnostic ignored "-Wformat-truncation"

enum { NOTHING, KILL, KILL_AFTER, FAIL, FAIL_ON };

static char root[PATH_MAX];
static int action = NOTHING, error_number, record = -1;
static long at = -1, counted, struck;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

void faults_arm(const char *folder, int what, long number, int error, int record_to) {
    if (!realpath(folder, root)) strncpy(root, folder, sizeof root - 1);
    counted = struck = 0, at = number, error_number = error, record = record_to, action = what;
}
void faults_disarm(void) { root[0] = 0; }
long faults_counted(void) { return counted; }
long faults_struck(void) { return struck; }

__attribute__((constructor)) static void from_environment(void) {
    const char *folder = getenv("FAULTS_FOLDER");
    if (!folder) return;
    faults_arm(folder, atoi(getenv("FAULTS_ACTION")), atol(getenv("FAULTS_AT")), atoi(getenv("FAULTS_ERRNO")), -1);
}

static int below(const char *path) {
    size_t n = strlen(root);
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static void full(int folder, const char *path, char *out) {  // the absolute path, as text
    char base[PATH_MAX] = "", name[64];
    if (path[0] != '/') {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) base[0] = 0;
        } else {
            snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(name, base, sizeof base - 1);
            base[n > 0 ? n : 0] = 0;
        }
    }
    if (!path[0]) snprintf(out, PATH_MAX, "%s", base);
    else if (base[0]) snprintf(out, PATH_MAX, "%s/%s", base, path);
    else snprintf(out, PATH_MAX, "%s", path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

// 0: go on. -1: fail, errno is set. 1: do it, or half of a write, then die.
static int comes(const char *path, int frees) {
    if (!root[0] || !below(path)) return 0;
    long number = counted++;
    if (action == NOTHING || number < at || (number > at && action != FAIL_ON)) return 0;
    if (frees && error_number == ENOSPC) return 0;  // a full disk lets go of files
    struck++;
    if (action == KILL) die();
    if (action == KILL_AFTER) return 1;
    errno = error_number;
    return -1;
}

static void note(const char *kind, const char *path, const char *other, unsigned long long inode, long long offset,
                 const void *data, size_t size) {
    if (record < 0 || !root[0] || !below(path)) return;
    REAL(ssize_t, write, int, const void *, size_t);
    char line[3 * PATH_MAX];
    int n = snprintf(line, sizeof line, "%s\t%s\t%s\t%llu\t%lld\t%zu\n", kind, path, other, inode, offset, size), saved = errno;
    if (real(record, line, n) != n || (size && real(record, data, size) != (ssize_t)size)) abort();
    errno = saved;
}

static unsigned long long inode_of(int descriptor) {
    struct stat info;
    return fstat(descriptor, &info) ? 0 : (unsigned long long)info.st_ino;
}
static unsigned long long inode_at(const char *path) {
    struct stat info;
    return lstat(path, &info) ? 0 : (unsigned long long)info.st_ino;
}

static int opened(int (*real)(int, const char *, int, ...), int folder, const char *path, int flags, mode_t mode) {
    char where[PATH_MAX];
    full(folder, path, where);
    int writes = (flags & O_ACCMODE) != O_RDONLY && (flags & O_TMPFILE) != O_TMPFILE;
    int was = writes && below(where) ? inode_at(where) != 0 : 1;
    int what = writes ? comes(where, 0) : 0;
    if (what < 0) return -1;
    int found = real(folder, path, flags, mode);
    if (what > 0) die();
    if (found >= 0 && writes && !was) note("create", where, "", inode_of(found), 0, "", 0);
    if (found >= 0 && writes && was && (flags & O_TRUNC)) note("truncate", where, "", inode_of(found), 0, "", 0);
    return found;
}
#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }
static int (*real_openat(void))(int, const char *, int, ...) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
    return real;
}
int open(const char *path, int flags, ...) { MODE return opened(real_openat(), AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(real_openat(), AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return opened(real_openat(), folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return opened(real_openat(), folder, path, flags, mode); }

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!root[0] || descriptor < 3) return real(descriptor, data, size);
    char where[PATH_MAX];
    full(descriptor, "", where);
    int what = comes(where, 0);
    if (what < 0) {  // a disk takes a part, then says that it is full
        if (error_number == ENOSPC && struck == 1 && size > 1) {
            if (action == FAIL) at++;  // what follows is the other half
            return real(descriptor, data, size / 2);
        }
        errno = error_number;
        return -1;
    }
    off_t offset = below(where) ? lseek(descriptor, 0, SEEK_CUR) : 0;
    ssize_t done = real(descriptor, data, what > 0 ? size / 2 : size);
    if (what > 0) die();
    if (done > 0) note("write", where, "", inode_of(descriptor), offset, data, done);
    return done;
}

static int synced(int (*real)(int), int descriptor) {
    char where[PATH_MAX] = "";
    if (root[0]) full(descriptor, "", where);
    int what = comes(where, 0);
    if (what < 0) return -1;
    int done = real(descriptor);
    if (what > 0) die();
    if (!done) note("sync", where, "", inode_of(descriptor), 0, "", 0);
    return done;
}
int fsync(int descriptor) { REAL(int, fsync, int); return synced(real, descriptor); }
int fdatasync(int descriptor) { REAL(int, fdatasync, int); return synced(real, descriptor); }

int ftruncate(int descriptor, off_t length) {
    REAL(int, ftruncate, int, off_t);
    char where[PATH_MAX] = "";
    if (root[0]) full(descriptor, "", where);
    int what = comes(where, 0);
    if (what < 0) return -1;
    int done = real(descriptor, length);
    if (what > 0) die();
    if (!done) note("truncate", where, "", inode_of(descriptor), length, "", 0);
    return done;
}
int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

// Operations on names: `expression` is the real one.
#define NAMED(kind, folder, path, to_folder, to, inode_first, expression) \
    char where[PATH_MAX] = "", other[PATH_MAX] = ""; \
    if (root[0]) { full(folder, path, where); if (to) full(to_folder, to, other); } \
    int what = comes(where, !strcmp(kind, "unlink")); \
    if (what < 0) return -1; \
    unsigned long long inode = inode_first && root[0] ? inode_at(where) : 0; \
    int done = expression; \
    if (what > 0) die(); \
    if (!done) note(kind, where, other, inode ? inode : inode_at(where), 0, "", 0); \
    return done

#define NO_PATH ((const char *)0)
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    NAMED("rename", AT_FDCWD, from, AT_FDCWD, to, 1, real(from, to));
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    NAMED("rename", a, from, b, to, 1, real(a, from, b, to));
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    NAMED("link", AT_FDCWD, from, AT_FDCWD, to, 1, real(from, to));
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    NAMED("link", a, from, b, to, 1, real(a, from, b, to, flags));
}
int symlink(const char *text, const char *path) {
    REAL(int, symlink, const char *, const char *);
    NAMED("symlink", AT_FDCWD, path, AT_FDCWD, NO_PATH, 0, real(text, path));
}
int unlink(const char *path) {
    REAL(int, unlink, const char *);
    NAMED("unlink", AT_FDCWD, path, AT_FDCWD, NO_PATH, 1, real(path));
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    NAMED("unlink", folder, path, AT_FDCWD, NO_PATH, 1, real(folder, path, flags));
}
int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    NAMED("unlink", AT_FDCWD, path, AT_FDCWD, NO_PATH, 1, real(path));
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    NAMED("mkdir", AT_FDCWD, path, AT_FDCWD, NO_PATH, 0, real(path, mode));
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    NAMED("mkdir", folder, path, AT_FDCWD, NO_PATH, 0, real(folder, path, mode));
}
int fchmod(int descriptor, mode_t mode) {
    REAL(int, fchmod, int, mode_t);
    char where[PATH_MAX] = "";
    if (root[0]) full(descriptor, "", where);
    int what = comes(where, 0);
    if (what < 0) return -1;
    int done = real(descriptor, mode);
    if (what > 0) die();
    return done;
}

// Ways to write that the project has no use for, and that a record would miss: they end the process loudly.
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    char where[PATH_MAX] = "";
    if (root[0]) full(descriptor, "", where);
    if (root[0] && below(where)) { fputs("pwrite is not watched\n", stderr); abort(); }
    return real(descriptor, data, size, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) { return pwrite(descriptor, data, size, offset); }
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    char where[PATH_MAX] = "";
    if (root[0]) full(descriptor, "", where);
    if (root[0] && below(where)) { fputs("writev is not watched\n", stderr); abort(); }
    return real(descriptor, parts, count);
}
