/* Disturbs the N-th file operation inside one folder; for scripts/maintenance/torture.py, Linux.

   Loaded by LD_PRELOAD and armed by the process that is to be disturbed. An operation is
   a call that changes what the folder holds: opening for writing, write, rename, link,
   fsync, unlink, mkdir, rmdir, truncate. Processes that it starts are left alone, but for
   forks that join: they count on where it is. */

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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { COUNT, KILL, HALF, FULL, BROKEN, TERM };

static char folder[PATH_MAX];
static size_t length;
static pid_t process;
static long last;
static long *passed; /* shared with the forks */
static enum mode mode;
static int tally = -1;

/* Arm: in this process, disturb operation `number` (from 1) in `where`, and write the
   names of the operations to the file descriptor `names`, -1 for none. */
void shim_arm(const char *where, long number, int how, int names) {
  strncpy(folder, where, sizeof folder - 1);
  length = strlen(folder);
  last = number;
  mode = (enum mode)how;
  tally = names;
  passed = mmap(NULL, sizeof *passed, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (passed == MAP_FAILED) abort();
  process = getpid();
}

/* Join, in a fork of the armed process, if there is one. */
void shim_join(void) {
  if (process != 0) process = getpid();
}

static int inside(const char *path) {
  return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Whether a path, relative to an open folder, lies in ours. */
static int path_inside(int at, const char *path) {
  char full[2 * PATH_MAX], base[PATH_MAX], link[64];
  if (process == 0 || process != getpid() || path == NULL) return 0;
  if (*path == '/') return inside(path);
  snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
  ssize_t size = readlink(link, base, sizeof base - 1);
  if (size < 0) return 0;
  base[size] = 0;
  snprintf(full, sizeof full, "%s/%s", base, path);
  return inside(full);
}

static int file_inside(int file, char *path) {
  char link[64];
  if (process == 0 || process != getpid()) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return inside(path);
}

/* What is to happen now: COUNT for nothing. A disk that is full stays full for whatever
   needs room, `grows`; everything else happens once. */
static enum mode next(const char *name, const char *path, int grows) {
  long number = __atomic_add_fetch(passed, 1, __ATOMIC_SEQ_CST);
  if (tally >= 0) dprintf(tally, "%d %s %s\n", process, name, path);
  int now = mode == FULL ? grows && number >= last : number == last;
  if (!now) return COUNT;
  if (mode == KILL) kill(process, SIGKILL);
  if (mode == TERM) kill(process, SIGTERM);
  return mode;
}

static int failed(enum mode now) {
  if (now != FULL && now != BROKEN) return 0;
  errno = now == FULL ? ENOSPC : EIO;
  return 1;
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define AROUND(name, inside, path, grows, call) \
  REAL(name); \
  if (!(inside)) return call; \
  enum mode now = next(#name, path, grows); \
  if (failed(now)) return -1; \
  __typeof__(call) done = call; \
  if (now == HALF) kill(process, SIGKILL); \
  return done

#define OPENING(name, at, call) \
  mode_t rights = 0; \
  if (flags & (O_CREAT | __O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    rights = va_arg(rest, mode_t); \
    va_end(rest); \
  } \
  int writes = (flags & O_ACCMODE) != O_RDONLY; \
  AROUND(name, writes && path_inside(at, path), path, (flags & O_CREAT) != 0, call)

int open(const char *path, int flags, ...) {
  OPENING(open, AT_FDCWD, real(path, flags, rights));
}
int open64(const char *path, int flags, ...) {
  OPENING(open64, AT_FDCWD, real(path, flags, rights));
}
int openat(int at, const char *path, int flags, ...) {
  OPENING(openat, at, real(at, path, flags, rights));
}
int openat64(int at, const char *path, int flags, ...) {
  OPENING(openat64, at, real(at, path, flags, rights));
}

/* The first half of the content goes through, then it ends. */
ssize_t write(int file, const void *content, size_t size) {
  REAL(write);
  char path[PATH_MAX];
  if (file == tally || !file_inside(file, path)) return real(file, content, size);
  enum mode now = next("write", path, 1);
  if (now == HALF || (now == FULL && *passed == last)) real(file, content, size / 2);
  if (now == HALF) kill(process, SIGKILL);
  if (failed(now)) return -1;
  return real(file, content, size);
}

int fsync(int file) {
  char path[PATH_MAX];
  AROUND(fsync, file_inside(file, path), path, 0, real(file));
}
int fdatasync(int file) {
  char path[PATH_MAX];
  AROUND(fdatasync, file_inside(file, path), path, 0, real(file));
}
int ftruncate(int file, off_t size) {
  char path[PATH_MAX];
  AROUND(ftruncate, file_inside(file, path), path, 0, real(file, size));
}
int ftruncate64(int file, off64_t size) {
  char path[PATH_MAX];
  AROUND(ftruncate64, file_inside(file, path), path, 0, real(file, size));
}
int rename(const char *from, const char *to) {
  AROUND(rename, path_inside(AT_FDCWD, to), to, 0, real(from, to));
}
int renameat(int at, const char *from, int there, const char *to) {
  AROUND(renameat, path_inside(there, to), to, 0, real(at, from, there, to));
}
int link(const char *from, const char *to) {
  AROUND(link, path_inside(AT_FDCWD, to), to, 1, real(from, to));
}
int unlink(const char *path) {
  AROUND(unlink, path_inside(AT_FDCWD, path), path, 0, real(path));
}
int unlinkat(int at, const char *path, int flags) {
  AROUND(unlinkat, path_inside(at, path), path, 0, real(at, path, flags));
}
int mkdir(const char *path, mode_t rights) {
  AROUND(mkdir, path_inside(AT_FDCWD, path), path, 1, real(path, rights));
}
int rmdir(const char *path) {
  AROUND(rmdir, path_inside(AT_FDCWD, path), path, 0, real(path));
}
