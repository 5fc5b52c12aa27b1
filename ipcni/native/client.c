/* A plugin, as `ipcni install` puts it into a folder: hands its call to the server (`ipcni serve`), or becomes the plugin itself.
 *
 * Beside it are .ipcni/serve, with the build and the socket of the server, and .ipcni/PLUGIN, the plugin as a process of its own.
 * ipcni/serve/wire.py says what the two sides tell each other. Until "G" is sent nothing has happened, and any doubt leads to the
 * plugin itself; from then on this process only waits for the exit status.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE 2000 /* milliseconds to be taken in */
#define HEAD 8
#define LONGEST (1 << 20)

extern char **environ;
static int server = -1;
static volatile sig_atomic_t told_to_end;

/* The runtime wants us to end: the server notices that we hang up, and undoes what it did. Its status still comes. */
static void hang_up(int number) {
    told_to_end = number;
    if (server >= 0) shutdown(server, SHUT_WR);
}

static int sends(const void *data, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t n = send(server, (const char *)data + done, length - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {server, POLLOUT, 0};
            if (poll(&wait, 1, PATIENCE) == 1) continue;
        }
        if (n <= 0) return 0;
        done += n;
    }
    return 1;
}

/* One byte of the server's, or -1 when none comes in time. */
static int hears(int patience) {
    struct pollfd wait = {server, POLLIN, 0};
    unsigned char byte;
    for (;;) {
        int ready = poll(&wait, 1, patience);
        if (ready < 0 && errno == EINTR) continue;
        if (ready != 1) return -1;
        ssize_t n = recv(server, &byte, 1, 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        return n == 1 ? byte : -1;
    }
}

/* Whether the server has taken the call in, so that a "G" has it run. */
static int taken(const char *build, const char *path, const char *plugin) {
    static char text[HEAD + LONGEST];
    size_t length = HEAD;
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof peer;
    const char *texts[2] = {build, plugin};

    for (int i = 0; i < 3; i++) /* descriptors that our caller left closed cannot be handed on */
        if (fcntl(i, F_GETFD) < 0) return 0;
    if (strlen(path) >= sizeof where.sun_path) return 0;
    strcpy(where.sun_path, path);
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(texts[i]) + 1;
        if (length + n > sizeof text) return 0;
        memcpy(text + length, texts[i], n);
        length += n;
    }
    for (char **variable = environ; *variable; variable++) {
        size_t n = strlen(*variable) + 1;
        if (length + n > sizeof text) return 0;
        memcpy(text + length, *variable, n);
        length += n;
    }
    uint32_t rest = length - HEAD;
    memcpy(text, (unsigned char[HEAD]){'C', 'N', 'I', '1', rest, rest >> 8, rest >> 16, rest >> 24}, HEAD);
    server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server < 0 || connect(server, (struct sockaddr *)&where, sizeof where) < 0) return 0;
    if (getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || (peer.uid && peer.uid != geteuid())) return 0;
    return sends(text, length) && hears(PATIENCE) == 'A';
}

/* "G", and with it our descriptors: not before, for nobody must hold them while we turn away. */
static int goes(void) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(3 * sizeof(int))];
    } control;
    int fds[3] = {0, 1, 2};
    struct iovec part = {"G", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    return sendmsg(server, &message, MSG_NOSIGNAL) == 1;
}

static int answer(int code, const char *text, const char *what) {
    printf("{\n    \"code\": %d,\n    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}", code, text, what);
    return 1;
}

int main(int argc, char **argv) {
    static char self[PATH_MAX], path[PATH_MAX + 300], build[64], place[PATH_MAX];
    const char *plugin = basename(strdupa(argc ? argv[0] : ""));
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return answer(999, "/proc is not mounted", "plugins need it");
    const char *folder = dirname(self);

    snprintf(path, sizeof path, "%s/.ipcni/serve", folder);
    FILE *file = fopen(path, "re");
    int told = file && fscanf(file, "%63s %4095[^\n]", build, place) == 2;
    if (file) fclose(file);
    const char *other = getenv("IPCNI_SOCKET");
    struct sigaction act = {.sa_handler = hang_up}, usual = {.sa_handler = SIG_DFL};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    /* Words behind the name, as in `dhcp daemon`, are no call. */
    if (argc == 1 && told && taken(build, other ? other : place, plugin) && !told_to_end && goes()) {
        int status = hears(-1);
        return status >= 0 ? status : answer(11, "the ipcni server ended during the request", "`ipcni journal` has what it did; call DEL");
    }
    sigaction(SIGTERM, &usual, NULL); /* from here on a signal ends us: one that only set a flag would be lost */
    sigaction(SIGINT, &usual, NULL);
    if (told_to_end) return answer(11, "interrupted by a signal", "nothing was done");
    if (server >= 0) close(server);
    snprintf(path, sizeof path, "%s/.ipcni/%s", folder, plugin);
    execv(path, argv);
    return answer(999, "cannot run the plugin", "ipcni install puts it into .ipcni beside this file");
}
