/* room_server - the floor that servers are compared with: the room JSON
 * protocol (templates/roomjson.txt) in C on epoll, one thread, one send() per
 * delivery.  It orders, stores and checks nothing.
 *
 *   gcc -O2 -o room_server room_server.c
 *   room_server PORT                     (on 127.0.0.1)
 *
 * It trusts its client, which is wsload: JSON is found by substring, frames are
 * whole and under 64 KiB, bytes that a socket does not take are kept without a
 * limit.
 */
#define _GNU_SOURCE
#include "handshake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_ROOMS = 100000,
    READ_BYTES = 1 << 16,    /* most bytes taken by one recv(), and the longest frame */
    EVENTS = 512,
};

typedef struct { int fd, upgraded, room; char *in, *out; size_t in_n, out_n; } Conn;
typedef struct { Conn **member; int n, cap; } Room;

static Room rooms[MAX_ROOMS];
static int ep;

static void *grown(void *p, size_t n)
{
    if (!(p = realloc(p, n))) { perror("room_server"); exit(1); }
    return p;
}

static void watch(Conn *c, int how, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    epoll_ctl(ep, how, c->fd, &e);
}

static void conn_close(Conn *c)
{
    if (c->room >= 0) {
        Room *r = &rooms[c->room];
        for (int i = 0; i < r->n; i++)
            if (r->member[i] == c) { r->member[i] = r->member[--r->n]; break; }
    }
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

/* Send, or keep what the socket does not take.  A broken connection is noticed
 * by the recv() that follows. */
static void conn_write(Conn *c, const char *p, size_t n)
{
    if (!c->out_n) {
        ssize_t r = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r == (ssize_t)n || (r < 0 && errno != EAGAIN)) return;
        if (r > 0) p += r, n -= (size_t)r;
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    c->out = grown(c->out, c->out_n + n);
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
}

static void conn_flush(Conn *c)
{
    ssize_t r = send(c->fd, c->out, c->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r > 0) memmove(c->out, c->out + r, c->out_n -= (size_t)r);
    if (c->out_n) return;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    free(c->out);
    c->out = NULL;
}

/* A text frame of n bytes of text (under 64 KiB) at f; gives its length. */
static size_t frame(char *f, const char *text, size_t n)
{
    f[0] = (char)0x81;
    if (n < 126) {
        f[1] = (char)n;
        memcpy(f + 2, text, n);
        return n + 2;
    }
    f[1] = 126;
    f[2] = (char)(n >> 8);
    f[3] = (char)n;
    memcpy(f + 4, text, n);
    return n + 4;
}

static void join(Conn *c, int room)
{
    char text[64], f[80];
    Room *r = &rooms[c->room = room];
    if (r->n == r->cap) r->member = grown(r->member, (size_t)(r->cap = r->cap * 2 + 4) * sizeof *r->member);
    r->member[r->n++] = c;
    conn_write(c, f, frame(f, text, (size_t)sprintf(text, "{\"t\":\"joined\",\"room\":\"r%d\"}", room)));
}

static void publish(Conn *c, long id, const char *data, int n)
{
    static char text[READ_BYTES + 64], f[READ_BYTES + 80];
    size_t len = frame(f, text, (size_t)sprintf(text, "{\"t\":\"msg\",\"room\":\"r%d\",\"data\":\"%.*s\"}", c->room, n, data));
    Room *r = &rooms[c->room];
    for (int i = 0; i < r->n; i++) conn_write(r->member[i], f, len);
    conn_write(c, f, frame(f, text, (size_t)sprintf(text, "{\"t\":\"ack\",\"id\":%ld}", id)));
}

static void on_text(Conn *c, const char *text)
{
    const char *room = strstr(text, "\"room\":\"r"), *data = strstr(text, "\"data\":\""), *id = strstr(text, "\"id\":");
    if (room && c->room < 0) join(c, abs(atoi(room + 9)) % MAX_ROOMS);
    else if (data && id && c->room >= 0) publish(c, atol(id + 5), data + 8, (int)strcspn(data + 8, "\""));
}

/* Answer the upgrade request in the n bytes at p; gives its length, 0 when it
 * is not all there, -1 when it is none. */
static ssize_t upgrade(Conn *c, const char *p, size_t n)
{
    static const char field[] = "sec-websocket-key: ";
    char accept[ACCEPT_LEN + 1], answer[160];
    const char *end = memmem(p, n, "\r\n\r\n", 4), *key = strcasestr(p, field);
    if (!end) return 0;
    if (!key || end - key < (ssize_t)sizeof field - 1 + KEY_LEN) return -1;
    websocket_accept(key + sizeof field - 1, accept);
    conn_write(c, answer, (size_t)sprintf(answer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept));
    c->upgraded = 1;
    return end + 4 - p;
}

/* Take one masked frame off the n bytes at p; gives its length, 0 when it is
 * not all there, -1 when the connection is to be closed. */
static ssize_t take_frame(Conn *c, char *p, size_t n)
{
    uint8_t *b = (uint8_t *)p;
    if (n < 6) return 0;
    size_t len = b[1] & 127, head = 2;
    if (len == 127) return -1;
    if (len == 126) len = (size_t)b[2] << 8 | b[3], head = 4;
    if (n < head + 4 + len) return 0;
    uint8_t *key = b + head, *text = key + 4, after = text[len];
    for (size_t i = 0; i < len; i++) text[i] ^= key[i & 3];
    if ((b[0] & 15) == 8) return -1;
    text[len] = 0;
    if ((b[0] & 15) == 1) on_text(c, (char *)text);
    text[len] = after;
    return (ssize_t)(head + 4 + len);
}

static void on_readable(Conn *c)
{
    static char buf[3 * READ_BYTES];
    if (c->in_n) memcpy(buf, c->in, c->in_n);
    ssize_t r = recv(c->fd, buf + c->in_n, READ_BYTES, 0), used = 1;
    if (r < 0 && errno == EAGAIN) return;
    if (r <= 0) { conn_close(c); return; }
    size_t have = c->in_n + (size_t)r, off = 0;
    buf[have] = 0;
    while (off < have && (used = c->upgraded ? take_frame(c, buf + off, have - off) : upgrade(c, buf + off, have - off)) > 0)
        off += (size_t)used;
    if (used < 0 || have - off > READ_BYTES + 8) { conn_close(c); return; }
    free(c->in);
    c->in = NULL;
    if ((c->in_n = have - off)) c->in = memcpy(grown(NULL, c->in_n), buf + off, c->in_n);
}

static void on_connections(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        Conn *c = memset(grown(NULL, sizeof *c), 0, sizeof *c);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd;
        c->room = -1;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int listen_on(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 4096)) { perror("room_server: listen"); exit(1); }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: room_server PORT\n"), 2;
    struct epoll_event event[EVENTS], e = { .events = EPOLLIN, .data.ptr = NULL };      /* NULL: the listener */
    int listener = listen_on(atoi(argv[1]));
    ep = epoll_create1(0);
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, event, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Conn *c = event[i].data.ptr;
            if (!c) { on_connections(listener); continue; }
            if (event[i].events & EPOLLOUT && c->out_n) conn_flush(c);
            if (event[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
    }
}
