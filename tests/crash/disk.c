/* A disk that can lose its power and that can be full, preloaded into the program under test.
 *
 * It concerns itself with what lies below DISK_ROOT, an absolute path without symbolic links. What
 * else it does is said by the environment:
 *
 *   DISK_IMAGE=<folder>  Each sync records there what it makes durable: `content/<id>` has the
 *                        bytes of a file, `names/<id>` the entries of a folder, as lines of type,
 *                        id and name. So the image is all that must outlive a power cut: bytes
 *                        that were synced, under names whose folder was synced since. A name that
 *                        was taken away stays until then.
 *   DISK_NO_FSYNC=<of>   Syncs of `files`, of `folders` or of `all` answer well and record nothing.
 *   DISK_CUT=<n>         The n-th write or sync does not happen: the process is killed.
 *   DISK_SPACE=<bytes>   So much fits; whatever comes after fails with ENOSPC.
 *   DISK_REPORT=<file>   At its end the program leaves there how many bytes it took and how many
 *                        writes and syncs it made.
 *
 * Files are known by their handles, in which an inode's number is followed by its generation. The
 * number alone would not do: it is given away again as soon as a file is gone, within a tick of the
 * clock that times of birth are told by, and then the bytes of a file that was synced and removed
 * would turn up under the name of one that never was synced.
 *
 * No sync reaches the machine's own disk: the image takes its place, and time is saved.
 *
 * Intercepted is what Rust's standard library calls to write, to sync and to make names. Space that
 * is taken in other ways (copy_file_range, fallocate, a file that is truncated to more than it
 * holds) is not counted, and none is ever given back.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a name takes. Any number will do that lets the disk be full at names, too. */
#define NAME_BYTES 256
#define ID_BYTES (2 * MAX_HANDLE_SZ + 1)

/* The function that this library stands before. Found anew on each call, which is quick enough. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* One sync at a time: of two that record the same folder the later one has the newer names. */
static pthread_mutex_t syncing = PTHREAD_MUTEX_INITIALIZER;

static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static unsigned long long bytes_taken, steps_made;

/* The test is at fault, or the machine it runs on. */
static void give_up(const char *what)
{
    fprintf(stderr, "disk.c: %s: %s\n", what, strerror(errno));
    abort();
}

static unsigned long long number(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Whether the path is DISK_ROOT or lies below it. */
static int is_below(const char *path)
{
    const char *root = getenv("DISK_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && !strncmp(path, root, length) && (!path[length] || path[length] == '/');
}

/* Whether an open file is; gives its path. */
static int is_ours(int fd, char path[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return is_below(path);
}

/* Counts a write or sync; the one that DISK_CUT names is the last thing this process does. */
static void step(void)
{
    pthread_mutex_lock(&counting);
    if (++steps_made == number("DISK_CUT", 0)) {
        kill(getpid(), SIGKILL);
        pause();
    }
    pthread_mutex_unlock(&counting);
}

/* Takes space, or as much of it as is left. */
static size_t take(size_t bytes)
{
    pthread_mutex_lock(&counting);
    unsigned long long left = number("DISK_SPACE", ULLONG_MAX) - bytes_taken;
    if (bytes > left)
        bytes = left;
    bytes_taken += bytes;
    pthread_mutex_unlock(&counting);
    return bytes;
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("DISK_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file)
        return;
    fprintf(file, "%llu %llu\n", bytes_taken, steps_made);
    fclose(file);
}

/* --- Power ------------------------------------------------------------------------------------ */

/* The id of what `name` means in a folder, or of the open file itself where it is "". Gives 0 if it
 * is gone. */
static int identify(int fd, const char *name, char id[ID_BYTES])
{
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } found;
    int mount;
    found.handle.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(fd, name, &found.handle, &mount, *name ? 0 : AT_EMPTY_PATH)) {
        if (errno == ENOENT && *name)
            return 0;
        give_up("the file system has no handles");
    }
    for (unsigned at = 0; at < found.handle.handle_bytes; at++)
        sprintf(id + 2 * at, "%02x", found.handle.f_handle[at]);
    return 1;
}

static void copy_content(int fd, FILE *record)
{
    char path[64], block[1 << 16];
    size_t length;
    /* Opened anew: it may be open for writing only, and has its place. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    FILE *file = fopen(path, "r");
    if (!file)
        give_up("cannot read what is synced");
    while ((length = fread(block, 1, sizeof block, file)))
        fwrite(block, 1, length, record);
    if (ferror(file))
        give_up("cannot read what is synced");
    fclose(file);
}

static void list_names(int fd, FILE *record)
{
    char id[ID_BYTES];
    struct dirent *entry;
    struct stat found;
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    if (!folder)
        give_up("cannot list what is synced");
    while ((entry = readdir(folder))) {
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        /* Other threads may be taking it away. */
        if (!identify(fd, name, id) || fstatat(fd, name, &found, AT_SYMLINK_NOFOLLOW))
            continue;
        fprintf(record, "%c %s %s\n", S_ISDIR(found.st_mode) ? 'd' : 'f', id, name);
    }
    closedir(folder);
}

/* Records what lies in a file or folder, in place of what was recorded before, in one step. */
static void record(int fd, int is_folder, const char *path)
{
    const char *image = getenv("DISK_IMAGE");
    char id[ID_BYTES], temporary[PATH_MAX], target[PATH_MAX];
    if (strcmp(path, getenv("DISK_ROOT")))
        identify(fd, "", id);
    else
        strcpy(id, "root"); /* Where whoever reads the image begins. */
    snprintf(temporary, sizeof temporary, "%s/unfinished", image);
    snprintf(target, sizeof target, "%s/%s/%s", image, is_folder ? "names" : "content", id);
    FILE *file = fopen(temporary, "w");
    if (!file)
        give_up(temporary);
    (is_folder ? list_names : copy_content)(fd, file);
    if (ferror(file) | fclose(file) || rename(temporary, target))
        give_up(target);
}

static int synced(int fd, int (*next)(int))
{
    char path[PATH_MAX];
    struct stat found;
    if (!is_ours(fd, path) || fstat(fd, &found))
        return next(fd);
    step();
    int is_folder = S_ISDIR(found.st_mode);
    const char *off = getenv("DISK_NO_FSYNC");
    if (off && (!strcmp(off, "all") || !strcmp(off, is_folder ? "folders" : "files")))
        return 0;
    if (getenv("DISK_IMAGE")) {
        pthread_mutex_lock(&syncing);
        record(fd, is_folder, path);
        pthread_mutex_unlock(&syncing);
    }
    return 0;
}

int fsync(int fd)
{
    return synced(fd, NEXT(fsync));
}

int fdatasync(int fd)
{
    return synced(fd, NEXT(fdatasync));
}

/* --- Space ------------------------------------------------------------------------------------ */

/* How many of these bytes may be written; none, with an error set, when the disk is full. */
static size_t admitted(int fd, size_t bytes)
{
    char path[PATH_MAX];
    if (!bytes || !is_ours(fd, path))
        return bytes;
    step();
    size_t taken = take(bytes);
    if (!taken)
        errno = ENOSPC;
    return taken;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    size_t fit = admitted(fd, count);
    return count && !fit ? -1 : NEXT(write)(fd, bytes, fit);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    size_t fit = admitted(fd, count);
    return count && !fit ? -1 : NEXT(pwrite64)(fd, bytes, fit, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char path[PATH_MAX];
    if (!is_ours(fd, path))
        return NEXT(writev)(fd, parts, count);
    /* It may write less than it was given, so the first part will do. */
    while (count > 1 && !parts->iov_len)
        parts++, count--;
    return count > 0 ? write(fd, parts->iov_base, parts->iov_len) : 0;
}

/* Whether a name can be made, or is there already. */
static int has_room(const char *path)
{
    struct stat found;
    if (!is_below(path) || !lstat(path, &found) || take(NAME_BYTES) == NAME_BYTES)
        return 1;
    errno = ENOSPC;
    return 0;
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = __OPEN_NEEDS_MODE(flags) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return flags & O_CREAT && !has_room(path) ? -1 : NEXT(open64)(path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return has_room(path) ? NEXT(mkdir)(path, mode) : -1;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return has_room(to) ? NEXT(linkat)(from_folder, from, to_folder, to, flags) : -1;
}
