/* send_floor - what a delivery costs at the least: one send() of a prebuilt
 * frame to each of N sockets, R times a second, on loopback.
 *
 *   gcc -O2 -o send_floor send_floor.c
 *   send_floor recv PORT N NAP            accept N connections, read and discard until all are
 *                                         closed; sleep NAP us after a partial batch of events, as
 *                                         wsload does, so that the sender is spared wake-ups alike
 *   send_floor send PORT N SIZE SECS R    connect N, send each of them a frame of SIZE bytes
 *                                         R times a second; one JSON object on standard output
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512 };       /* as wsload's: what makes a batch of events a partial one */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *what)
{
    fprintf(stderr, "send_floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void nap(double seconds)
{
    struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    if (seconds > 0) nanosleep(&t, NULL);
}

static int receive(int port, int n, int nap_us)
{
    static char buf[1 << 17];
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, ep = epoll_create1(0), open = n;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) fail("listen");
    for (int i = 0; i < n; i++) {
        struct epoll_event e = { .events = EPOLLIN };
        if ((e.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0) fail("accept");
        epoll_ctl(ep, EPOLL_CTL_ADD, e.data.fd, &e);
    }
    while (open > 0) {
        struct epoll_event event[EVENTS];
        int k = epoll_wait(ep, event, EVENTS, -1);
        if (k < EVENTS) nap(nap_us / 1e6);
        for (int i = 0; i < k; i++) {
            ssize_t r = recv(event[i].data.fd, buf, sizeof buf, 0);
            if (r > 0 || (r < 0 && errno == EAGAIN)) continue;
            close(event[i].data.fd);
            open--;
        }
    }
    return 0;
}

/* Send until it is taken: a full socket is waited for. */
static void send_whole(int fd, const char *frame, size_t size)
{
    while (send(fd, frame, size, MSG_DONTWAIT) < 0) {
        struct pollfd p = { fd, POLLOUT, 0 };
        if (errno != EAGAIN) fail("send");
        poll(&p, 1, 100);
    }
}

static int transmit(int port, int n, size_t size, double secs, double rate)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int *fd = calloc((size_t)n, sizeof *fd), one = 1;
    char *frame = malloc(size);
    if (!fd || !frame) fail("memory");
    memset(frame, 'x', size);
    for (int i = 0; i < n; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd[i], (void *)&a, sizeof a)) fail("connect");
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    nap(0.5);                   /* the receiver has accepted them all */
    long rounds = 0;
    double start = now_s(), cpu = cpu_s();
    for (; now_s() - start < secs; rounds++, nap(start + (double)rounds / rate - now_s()))
        for (int i = 0; i < n; i++) send_whole(fd[i], frame, size);
    double wall = now_s() - start, sends = (double)rounds * n;
    cpu = cpu_s() - cpu;
    printf("{\"sockets\":%d,\"frame_bytes\":%zu,\"rounds_per_s\":%.2f,\"sends_per_s\":%.0f,\"cpu\":%.3f,\"cpu_us_per_send\":%.3f}\n",
           n, size, (double)rounds / wall, sends / wall, cpu / wall, cpu * 1e6 / sends);
    return 0;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    if (argc == 5 && !strcmp(argv[1], "recv")) return receive(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    if (argc == 7 && !strcmp(argv[1], "send") && atof(argv[6]) > 0)
        return transmit(atoi(argv[2]), atoi(argv[3]), (size_t)atol(argv[4]), atof(argv[5]), atof(argv[6]));
    fprintf(stderr, "usage: send_floor recv PORT N NAP | send PORT N SIZE SECS RATE\n");
    return 2;
}
