/* wsload - a protocol-agnostic WebSocket load generator.
 *
 *   gcc -O2 -Wall -Wextra -o wsload wsload.c -lm
 *
 * One thread, one epoll set, nothing beyond libc.  What is said on a
 * connection comes from a template file (docs/benchmarks.md, ../templates), so
 * that one binary drives quite different servers in the same way and their
 * figures can be set side by side.
 *
 * How latency is measured: every published payload starts with a marker
 * "@T<16 digits>@", the microsecond of CLOCK_MONOTONIC at which the message
 * was *due*.  Publishing is open loop: when the generator or the server falls
 * behind, later messages keep the times of the schedule, so the wait is
 * counted (no coordinated omission).  Each marker seen in any data frame is
 * one delivery, whatever the protocol wraps around it.
 *
 * Sections: utilities, histogram, templates, connections, frames, publishing,
 * event loop, steps, reports, options.
 */
#define _GNU_SOURCE
#include "handshake.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------ utilities -- */

enum {
    MARK_LEN = 19,           /* "@T" + 16 digits + "@"                        */
    TAG_LEN = 17,            /* "P" + 6 digits + "." + 8 digits + "@"         */
    HEADROOM = 14,           /* longest client frame header                   */
    RD_BUF = 1 << 20,        /* receive buffer, also the longest frame        */
    RD_CHUNK = 128 << 10,    /* most bytes taken by one recv()                */
    MAX_EVENTS = 512,
    ACK_RING = 1 << 20,      /* publishes whose ack may be outstanding        */
    MAX_OPS = 64, MAX_PONGS = 8, MAX_HEADERS = 16, MAX_SETS = 16, MAX_PIDS = 16,
    MAX_STEPS = 64,
};

typedef struct { char *p; size_t n, cap; } Buf;

static volatile sig_atomic_t stop;
static void on_sigint(int sig) { (void)sig; stop = 1; }

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("wsload: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(2);
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void buf_add(Buf *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        if (!(b->p = realloc(b->p, b->cap))) die("out of memory");
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void buf_free(Buf *b) { free(b->p); memset(b, 0, sizeof *b); }

static uint64_t seed[2];
static uint64_t mix64(uint64_t x)                      /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ------------------------------------------------------------ histogram -- */
/* Log-linear as in HDR histograms: 128 cells per power of two, so a value is
 * kept to better than 1 %.  Values are microseconds. */

enum { H_SUB = 7, H_CELLS = (64 - H_SUB + 1) << H_SUB };
typedef struct { uint64_t n, sum, max, cell[H_CELLS]; } Hist;

static void hist_add(Hist *h, uint64_t v)
{
    unsigned i = (unsigned)v;
    if (v >> H_SUB) {
        int s = 63 - __builtin_clzll(v) - H_SUB;
        i = ((unsigned)(s + 1) << H_SUB) + (unsigned)(v >> s) - (1u << H_SUB);
    }
    h->cell[i]++;
    h->n++;
    h->sum += v;
    if (v > h->max) h->max = v;
}

static double hist_ms(const Hist *h, double q)         /* quantile, in ms */
{
    uint64_t want = (uint64_t)ceil(q * (double)h->n), seen = 0;
    for (unsigned i = 0; h->n && i < H_CELLS; i++) {
        if ((seen += h->cell[i]) < (want ? want : 1)) continue;
        uint64_t top = i;
        if (i >> H_SUB) {
            int s = (int)(i >> H_SUB) - 1;
            top = ((((uint64_t)i & ((1u << H_SUB) - 1)) + (1u << H_SUB) + 1) << s) - 1;
        }
        return (double)(top < h->max ? top : h->max) / 1000.0;
    }
    return 0;
}

/* ------------------------------------------------------------ templates -- */

typedef enum { S_LIT, S_CONN, S_ROOM, S_USER, S_ID, S_TS, S_PAYLOAD, S_LEN, S_RAND, S_TOKEN } SegKind;
static const char *const seg_name[] = { "", "conn", "room", "user", "id", "ts", "payload", "len", "rand", "token" };
typedef struct { SegKind kind; char *lit; size_t len; } Seg;
typedef struct { Seg *seg; int n; } Tmpl;

/* A pattern: "text" is found anywhere in a frame, "^text" only at its start,
 * "=text" only when it is the whole frame. */
typedef struct { char *s; size_t n; char anchor; } Pat;

enum { ROLE_SUB = 1, ROLE_PUB = 2 };
typedef struct { int expect, role; Tmpl t; Pat pat; } Op;

static struct {                     /* what the template file says */
    Op op[MAX_OPS]; int nops;
    struct { Pat pat; Tmpl reply; } pong[MAX_PONGS]; int npongs;
    Tmpl path, publish, header[MAX_HEADERS], every; int nheaders;
    double every_s;
    Pat ack; char *ackid, *seq; size_t ackid_n, seq_n;
    int opcode;
} T = { .opcode = 1 };

static struct {
    const char *mode, *host, *tmpl, *name;
    int port, conns, rooms, pubs, size, src_ips, inflight, nap;
    double rate, secs, warmup, conn_rate, conn_timeout, limit_ms, step, precision, budget;
    int dedicated, no_echo, acks, order, mask, verbose, retry;
    struct { const char *k, *v; } set[MAX_SETS]; int nsets;
    int pid[MAX_PIDS], npids;
    char **token; int ntokens;
} O = { .host = "127.0.0.1", .conns = 1000, .rooms = 1, .pubs = 1, .size = 100, .inflight = 200, .nap = 100,
        .secs = 10, .warmup = 1, .conn_timeout = 15, .rate = 10, .limit_ms = 100, .step = 3,
        .precision = 0.05, .budget = 50, .retry = 1 };

/* Turn \r \n \t \0 \\ \xHH into bytes, in place; gives the new length. */
static size_t unescape(char *s)
{
    char *w = s;
    for (char *r = s; *r; r++) {
        if (*r != '\\' || !r[1]) { *w++ = *r; continue; }
        switch (*++r) {
        case 'r': *w++ = '\r'; break;
        case 'n': *w++ = '\n'; break;
        case 't': *w++ = '\t'; break;
        case '0': *w++ = 0; break;
        case 'x': {
            unsigned v = 0;
            if (sscanf(r + 1, "%2x", &v) == 1) r += 2;
            *w++ = (char)v;
            break;
        }
        default: *w++ = *r;         /* "\\" and "\{" and the like */
        }
    }
    *w = 0;
    return (size_t)(w - s);
}

static void tmpl_push(Tmpl *t, SegKind k, const char *lit, size_t n)
{
    if (k == S_LIT && !n) return;
    t->seg = realloc(t->seg, (size_t)(t->n + 1) * sizeof *t->seg);
    Seg *s = &t->seg[t->n++];
    s->kind = k;
    s->len = n;
    s->lit = memcpy(malloc(n + 1), lit, n);
}

/* Unknown names in braces stay as they are, so JSON needs no quoting. */
static Tmpl tmpl_compile(const char *text)
{
    Tmpl t = {0};
    char *s = strdup(text);
    size_t n = unescape(s), lit = 0;
    for (size_t i = 0; i < n; i++) {
        char *end;
        if (s[i] != '{' || !(end = memchr(s + i, '}', n - i))) continue;
        size_t len = (size_t)(end - s) - i - 1;
        const char *value = NULL;
        SegKind kind = S_LIT;
        for (int k = S_CONN; k <= S_TOKEN; k++)
            if (strlen(seg_name[k]) == len && !memcmp(seg_name[k], s + i + 1, len)) kind = k;
        for (int k = 0; k < O.nsets; k++)
            if (strlen(O.set[k].k) == len && !memcmp(O.set[k].k, s + i + 1, len)) value = O.set[k].v;
        if (kind == S_LIT && !value) continue;
        tmpl_push(&t, S_LIT, s + lit, i - lit);
        tmpl_push(&t, kind, value ? value : "", value ? strlen(value) : 0);
        i += len + 1;
        lit = i + 1;
    }
    tmpl_push(&t, S_LIT, s + lit, n - lit);
    free(s);
    return t;
}

static Pat pat_compile(const char *text)
{
    Pat p = {0};
    if (*text == '^' || *text == '=') p.anchor = *text++;
    p.s = strdup(text);
    p.n = unescape(p.s);
    return p;
}

static int pat_match(const Pat *p, const char *s, size_t n)
{
    if (p->anchor) return n >= p->n && (p->anchor == '^' || n == p->n) && !memcmp(s, p->s, p->n);
    return memmem(s, n, p->s, p->n) != NULL;
}

static void tmpl_load(const char *file)
{
    FILE *f = fopen(file, "r");
    if (!f) die("%s: %s", file, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    for (int no = 1; getline(&line, &cap, f) > 0; no++) {
        line[strcspn(line, "\r\n")] = 0;
        if (!*line || *line == '#') continue;
        char *rest = strchr(line, ' ');
        if (!rest) die("%s:%d: a keyword and a text, please", file, no);
        *rest++ = 0;
        char *at = strchr(line, '@');
        int role = ROLE_SUB | ROLE_PUB;
        if (at) {
            *at++ = 0;
            role = !strcmp(at, "sub") ? ROLE_SUB : !strcmp(at, "pub") ? ROLE_PUB : 0;
            if (!role) die("%s:%d: role is @sub or @pub", file, no);
        }
        if (!strcmp(line, "send") || !strcmp(line, "expect")) {
            if (T.nops == MAX_OPS) die("%s:%d: too many steps", file, no);
            Op *o = &T.op[T.nops++];
            o->role = role;
            o->expect = *line == 'e';
            if (o->expect) o->pat = pat_compile(rest); else o->t = tmpl_compile(rest);
        } else if (!strcmp(line, "path")) T.path = tmpl_compile(rest);
        else if (!strcmp(line, "publish")) T.publish = tmpl_compile(rest);
        else if (!strcmp(line, "header")) {
            if (T.nheaders == MAX_HEADERS) die("%s:%d: too many headers", file, no);
            T.header[T.nheaders++] = tmpl_compile(rest);
        } else if (!strcmp(line, "opcode")) T.opcode = !strcmp(rest, "binary") ? 2 : 1;
        else if (!strcmp(line, "ack")) T.ack = pat_compile(rest);
        else if (!strcmp(line, "ackid")) T.ackid = strdup(rest), T.ackid_n = unescape(T.ackid);
        else if (!strcmp(line, "seq")) T.seq = strdup(rest), T.seq_n = unescape(T.seq);
        else if (!strcmp(line, "every")) {
            char *end;
            T.every_s = strtod(rest, &end);
            if (T.every_s <= 0 || *end != ' ') die("%s:%d: every SECONDS TEXT", file, no);
            T.every = tmpl_compile(end + 1);
        } else if (!strcmp(line, "pong")) {
            char *arrow = strstr(rest, " => ");
            if (!arrow || T.npongs == MAX_PONGS) die("%s:%d: pong PATTERN => REPLY", file, no);
            *arrow = 0;
            T.pong[T.npongs].pat = pat_compile(rest);
            T.pong[T.npongs++].reply = tmpl_compile(arrow + 4);
        } else die("%s:%d: unknown keyword %s", file, no, line);
    }
    free(line);
    fclose(f);
}

/* ---------------------------------------------------------- connections -- */

typedef enum { ST_CLOSED, ST_CONNECTING, ST_UPGRADE, ST_SCRIPT, ST_READY } State;

typedef struct {
    int fd, idx, room, pub;         /* pub: publisher number, or -1           */
    uint8_t st, role, fragmented, step, tried;
    uint32_t seq;                   /* next sequence number as a publisher    */
    uint64_t t0;                    /* when connecting began                  */
    Buf in, frag, out;              /* partial frame, message, unsent bytes   */
    uint32_t *last;                 /* --order: next seq due, by publisher    */
    uint64_t chain, chained;        /* --order: hash over what was delivered  */
    int64_t srvseq;                 /* --order: last server sequence number   */
} Conn;

static Conn *conn;
static int total, *room_subs, pubs_per_room;
static int ep;
static char rdbuf[RD_BUF];
static Buf scratch;
static char *payload;
static uint64_t now;                /* refreshed after every recv()           */

static struct {                     /* since the start */
    uint64_t ready, failed, lost, inflight, opened;
    uint64_t published, expected, delivered, pubid, acked, frames, bytes;
    uint64_t proto_err, closes, dup, gap, disorder, foreign, seq_breaks, untagged, blocked;
    int last_close;
    char first_error[160];
} G;

static struct {                     /* the window being measured, by due time */
    uint64_t from, to, published, expected, delivered, acked;
    Hist lat, ack, late;
} W;

static Hist handshake;
static uint64_t *ack_due;

static void note_error(const char *fmt, ...)
{
    if (G.first_error[0]) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(G.first_error, sizeof G.first_error, fmt, ap);
    va_end(ap);
    for (char *s = G.first_error; *s; s++)
        if ((unsigned char)*s < ' ' || *s == '"' || *s == '\\' || (unsigned char)*s > '~') *s = '.';
    if (O.verbose) fprintf(stderr, "wsload: %s\n", G.first_error);
}

static void conn_close(Conn *c)
{
    if (c->st == ST_CLOSED) return;
    if (c->st == ST_READY) {
        G.ready--;
        G.lost++;
        if (c->role & ROLE_SUB) room_subs[c->room]--;
    } else {
        G.failed++;
        G.inflight--;
    }
    close(c->fd);
    c->st = ST_CLOSED;
    c->frag.n = 0;                  /* kept: the caller may be reading it */
    buf_free(&c->in);
    buf_free(&c->out);
}

static void want_write(Conn *c, int on)
{
    struct epoll_event e = { .events = EPOLLIN | (on ? EPOLLOUT : 0), .data.u32 = (uint32_t)c->idx };
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void conn_write(Conn *c, const char *p, size_t n)
{
    if (c->st == ST_CLOSED) return;
    if (!c->out.n) {
        ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r == (ssize_t)n) return;
        if (r < 0 && errno != EAGAIN) { note_error("send: %s", strerror(errno)); conn_close(c); return; }
        if (r > 0) p += r, n -= (size_t)r;
        G.blocked++;
        want_write(c, 1);
    }
    buf_add(&c->out, p, n);
}

static void conn_flush(Conn *c)
{
    ssize_t r = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r < 0) {
        if (errno != EAGAIN) { note_error("send: %s", strerror(errno)); conn_close(c); }
        return;
    }
    memmove(c->out.p, c->out.p + r, c->out.n -= (size_t)r);
    if (!c->out.n) { buf_free(&c->out); want_write(c, 0); }
}

static void render(Buf *b, const Tmpl *t, const Conn *c, uint64_t id)
{
    char s[32];
    for (int i = 0; i < t->n; i++) {
        const Seg *g = &t->seg[i];
        int n = 0;
        switch (g->kind) {
        case S_LIT: buf_add(b, g->lit, g->len); break;
        case S_PAYLOAD: buf_add(b, payload, (size_t)O.size); break;
        case S_CONN: n = sprintf(s, "%d", c->idx); break;
        case S_ROOM: n = sprintf(s, "r%d", c->room); break;
        case S_USER: n = sprintf(s, "u%d", c->idx); break;
        case S_ID: n = sprintf(s, "%" PRIu64, id); break;
        case S_TS: n = sprintf(s, "%" PRIu64, now_us()); break;
        case S_LEN: n = sprintf(s, "%d", O.size); break;
        case S_RAND: n = sprintf(s, "%016" PRIx64, seed[1] = mix64(seed[1])); break;
        case S_TOKEN: if (O.ntokens) buf_add(b, O.token[c->idx % O.ntokens], strlen(O.token[c->idx % O.ntokens])); break;
        }
        if (n) buf_add(b, s, (size_t)n);
    }
}

/* Send scratch (whose first HEADROOM bytes are free) as one masked frame. */
static void frame_send(Conn *c, int opcode)
{
    size_t n = scratch.n - HEADROOM, h = n < 126 ? 6 : n < 65536 ? 8 : 14;
    uint8_t *p = (uint8_t *)scratch.p + HEADROOM - h;
    uint32_t key = O.mask ? (uint32_t)(seed[1] = mix64(seed[1])) : 0;
    p[0] = (uint8_t)(0x80 | opcode);
    if (n < 126) p[1] = (uint8_t)(0x80 | n);
    else if (n < 65536) p[1] = 0x80 | 126, p[2] = (uint8_t)(n >> 8), p[3] = (uint8_t)n;
    else {
        p[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) p[2 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
    }
    memcpy(p + h - 4, &key, 4);
    for (size_t i = 0; key && i < n; i++) p[h + i] ^= p[h - 4 + (i & 3)];
    conn_write(c, (char *)p, h + n);
}

static void send_text(Conn *c, const Tmpl *t, uint64_t id)
{
    scratch.n = HEADROOM;
    render(&scratch, t, c, id);
    frame_send(c, T.opcode);
}

static void conn_open(Conn *c)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)O.port) }, src = { .sin_family = AF_INET };
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)c->idx };
    int one = 1;
    inet_pton(AF_INET, O.host, &a.sin_addr);
    src.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(c->idx % O.src_ips));
    c->st = ST_CONNECTING;
    c->t0 = now_us();
    c->step = c->fragmented = 0;
    c->tried = 1;
    c->srvseq = -1;
    G.opened++;
    G.inflight++;
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) die("socket: %s (see ulimit -n)", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (void *)&src, sizeof src) < 0 ||
        (connect(c->fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS)) {
        note_error("connect: %s", strerror(errno));
        conn_close(c);
        return;
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static void ws_key(const Conn *c, char out[KEY_LEN + 1])
{
    uint64_t k[2] = { mix64(seed[0] ^ (uint64_t)c->idx), mix64(seed[0] + 1 + (uint64_t)c->idx * 2) };
    base64((uint8_t *)k, 16, out);
}

static void upgrade_send(Conn *c)
{
    char key[KEY_LEN + 1], head[200];
    int err = 0;
    socklen_t n = sizeof err;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err) { note_error("connect: %s", strerror(err)); conn_close(c); return; }
    c->st = ST_UPGRADE;
    want_write(c, 0);
    ws_key(c, key);
    scratch.n = 0;
    buf_add(&scratch, "GET ", 4);
    render(&scratch, &T.path, c, 0);
    buf_add(&scratch, head, (size_t)sprintf(head,
        " HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n", O.host, O.port, key));
    for (int i = 0; i < T.nheaders; i++) {
        render(&scratch, &T.header[i], c, 0);
        buf_add(&scratch, "\r\n", 2);
    }
    buf_add(&scratch, "\r\n", 2);
    conn_write(c, scratch.p, scratch.n);
}

/* Go on with the script: send what is next to send, up to the next expect. */
static void script_run(Conn *c)
{
    for (; c->step < T.nops; c->step++) {
        Op *o = &T.op[c->step];
        if (!(o->role & c->role)) continue;
        if (o->expect) return;
        send_text(c, &o->t, c->step + 1u);
        if (c->st == ST_CLOSED) return;
    }
    c->st = ST_READY;
    G.ready++;
    G.inflight--;
    if (c->role & ROLE_SUB) room_subs[c->room]++;
    hist_add(&handshake, now - c->t0);
}

/* --------------------------------------------------------------- frames -- */

static int digits(const char *s, int n, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) {
        unsigned d = (unsigned)s[i] - '0';
        if (d > 9) return 0;
        v = v * 10 + d;
    }
    *out = v;
    return 1;
}

/* --order: the tag after the marker names the publisher and its sequence. */
static void check_order(Conn *c, const char *p, const char *end)
{
    uint64_t pub, seq;
    if (end - p < TAG_LEN || p[0] != 'P' || p[7] != '.' || p[16] != '@' || !digits(p + 1, 6, &pub) ||
        !digits(p + 8, 8, &seq) || pub >= (uint64_t)O.pubs) { G.untagged++; return; }
    if ((int)(pub % (uint64_t)O.rooms) != c->room) { G.foreign++; return; }
    if (!c->last && !(c->last = calloc((size_t)pubs_per_room, sizeof *c->last))) die("out of memory");
    uint32_t *last = &c->last[pub / (uint64_t)O.rooms];
    if (seq + 1 == *last) G.dup++;
    else if (seq < *last) G.disorder++;
    else {
        G.gap += seq - *last;
        *last = (uint32_t)seq + 1;
    }
    c->chain = mix64(c->chain ^ (pub << 32 | seq));
    c->chained++;
}

static void count_acks(const char *p, const char *end)
{
    const char *needle = T.ackid ? T.ackid : T.ack.s;
    size_t n = T.ackid ? T.ackid_n : T.ack.n;
    if (!pat_match(&T.ack, p, (size_t)(end - p))) return;
    while ((p = memmem(p, (size_t)(end - p), needle, n))) {
        p += n;
        uint64_t id = 0, due = 0;
        if (T.ackid) {
            while (p < end && *p == ' ') p++;
            if (p == end || !isdigit((unsigned char)*p)) continue;
            while (p < end && isdigit((unsigned char)*p)) id = id * 10 + (uint64_t)(*p++ - '0');
            if (!id || id > G.pubid || !(due = ack_due[id % ACK_RING])) continue;
            ack_due[id % ACK_RING] = 0;             /* a second ack does not count */
        }
        G.acked++;
        uint64_t when = T.ackid ? due : now;
        if (when < W.from || when >= W.to) continue;
        W.acked++;
        if (due) hist_add(&W.ack, now > due ? now - due : 0);
    }
}

static void on_message(Conn *c, const char *p, size_t n)
{
    const char *end = p + n, *q = p;
    int found = 0;
    uint64_t ts;
    G.frames++;
    while (end - q >= MARK_LEN && (q = memchr(q, '@', (size_t)(end - q)))) {
        if (end - q < MARK_LEN || q[1] != 'T' || q[18] != '@' || !digits(q + 2, 16, &ts)) { q++; continue; }
        q += MARK_LEN;
        found = 1;
        G.delivered++;
        if (ts >= W.from && ts < W.to) {
            W.delivered++;
            hist_add(&W.lat, now > ts ? now - ts : 0);
        }
        if (O.order) check_order(c, q, end);
    }
    if (O.acks && c->pub >= 0 && c->st == ST_READY) count_acks(p, end);
    if (O.order && T.seq)
        for (q = p; (q = memmem(q, (size_t)(end - q), T.seq, T.seq_n));) {
            int64_t v = 0;
            for (q += T.seq_n; q < end && *q == ' ';) q++;
            for (; q < end && isdigit((unsigned char)*q); q++) v = v * 10 + (*q - '0');
            if (c->srvseq >= 0 && v != c->srvseq + 1) G.seq_breaks++;
            c->srvseq = v;
        }
    if (found) return;
    for (int i = 0; i < T.npongs; i++)
        if (pat_match(&T.pong[i].pat, p, n)) send_text(c, &T.pong[i].reply, 0);
    if (c->st == ST_SCRIPT && pat_match(&T.op[c->step].pat, p, n)) {
        c->step++;
        script_run(c);
    } else if (c->st == ST_SCRIPT && O.verbose > 1)
        fprintf(stderr, "wsload: conn %d step %d, not what is expected: %.*s\n", c->idx, c->step, (int)n, p);
}

static void on_frame(Conn *c, uint8_t b0, char *p, size_t n)
{
    int fin = b0 & 0x80, op = b0 & 15;
    if (b0 & 0x70 || (op >= 8 && (!fin || n > 125))) goto bad;
    switch (op) {
    case 0:
        if (!c->fragmented) goto bad;
        buf_add(&c->frag, p, n);
        if (!fin) return;
        c->fragmented = 0;
        on_message(c, c->frag.p, c->frag.n);
        c->frag.n = 0;
        return;
    case 1: case 2:
        if (c->fragmented) goto bad;
        if (fin) { on_message(c, p, n); return; }
        c->fragmented = 1;
        buf_add(&c->frag, p, n);
        return;
    case 8:
        G.closes++;
        G.last_close = n >= 2 ? (uint8_t)p[0] << 8 | (uint8_t)p[1] : 1005;
        note_error("close %d %.*s", G.last_close, n > 2 ? (int)n - 2 : 0, p + 2);
        conn_close(c);
        return;
    case 9:
        scratch.n = HEADROOM;
        buf_add(&scratch, p, n);
        frame_send(c, 10);
        return;
    case 10:
        return;
    }
bad:
    G.proto_err++;
    note_error("protocol error: frame byte %02x", b0);
    conn_close(c);
}

static int upgrade_ok(Conn *c, char *head, size_t n)
{
    char key[KEY_LEN + 1], want[ACCEPT_LEN + 1];
    head[n - 2] = 0;                /* the head ends in CR LF CR LF */
    if (strncmp(head, "HTTP/1.1 101", 12)) { note_error("upgrade refused: %.60s", head); return 0; }
    ws_key(c, key);
    websocket_accept(key, want);
    char *a = strcasestr(head, "\r\nsec-websocket-accept:");
    if (a) for (a += 23; *a == ' ';) a++;
    if (!a || strncmp(a, want, ACCEPT_LEN)) { note_error("wrong Sec-WebSocket-Accept"); return 0; }
    return 1;
}

/* Take whole frames off the front of the n bytes at p; gives the bytes used. */
static size_t consume(Conn *c, char *p, size_t n)
{
    size_t off = 0;
    if (c->st == ST_UPGRADE) {
        char *e = memmem(p, n, "\r\n\r\n", 4);
        if (!e) { if (n > 16384) conn_close(c); return 0; }
        off = (size_t)(e - p) + 4;
        if (!upgrade_ok(c, p, off)) { conn_close(c); return 0; }
        c->st = ST_SCRIPT;
        script_run(c);
    }
    while (c->st >= ST_SCRIPT && n - off >= 2) {
        const uint8_t *b = (uint8_t *)p + off;
        size_t len = b[1] & 127, h = 2;
        if (len == 126) h = 4; else if (len == 127) h = 10;
        if (n - off < h) break;
        if (h > 2) for (len = 0, b += 2; b < (uint8_t *)p + off + h; b++) len = len << 8 | *b;
        if (p[off + 1] & 0x80 || len > RD_BUF - RD_CHUNK) { G.proto_err++; conn_close(c); break; }
        if (n - off < h + len) break;
        on_frame(c, (uint8_t)p[off], p + off + h, len);
        off += h + len;
    }
    return off;
}

static void on_readable(Conn *c)
{
    size_t have = c->in.n;
    if (have) memcpy(rdbuf, c->in.p, have);
    size_t room = RD_BUF - have;
    ssize_t r = recv(c->fd, rdbuf + have, room < RD_CHUNK ? room : RD_CHUNK, 0);
    if (r <= 0) {
        if (r < 0 && errno == EAGAIN) return;
        if (r) note_error("recv: %s", strerror(errno));
        else note_error("closed by the server in state %d, step %d", c->st, c->step);
        conn_close(c);
        return;
    }
    now = now_us();
    G.bytes += (uint64_t)r;
    have += (size_t)r;
    size_t used = consume(c, rdbuf, have);
    if (c->st == ST_CLOSED) return;
    c->in.n = 0;
    if (used < have) buf_add(&c->in, rdbuf + used, have - used);
    else if (c->in.p) buf_free(&c->in);
}

/* ----------------------------------------------------------- publishing -- */

static struct { int on; double gap; uint64_t start, k, due; } pace;

static void put_digits(char *p, int n, uint64_t v) { while (n--) p[n] = (char)('0' + v % 10), v /= 10; }

static void publish(uint64_t due)
{
    static int turn;
    Conn *c = NULL;
    for (int i = 0; i < O.pubs && (!c || c->st != ST_READY); i++, turn++)
        c = &conn[(O.dedicated ? O.conns : 0) + turn % O.pubs];
    if (!c || c->st != ST_READY) return;
    put_digits(payload + 2, 16, due);
    if (O.size >= MARK_LEN + TAG_LEN) {
        put_digits(payload + MARK_LEN + 1, 6, (uint64_t)c->pub);
        put_digits(payload + MARK_LEN + 8, 8, c->seq++);
    }
    uint64_t expect = (uint64_t)(room_subs[c->room] - (O.no_echo && c->role & ROLE_SUB));
    G.pubid++;
    G.published++;
    G.expected += expect;
    ack_due[G.pubid % ACK_RING] = due;
    if (due >= W.from && due < W.to) {
        W.published++;
        W.expected += expect;
        hist_add(&W.late, now > due ? now - due : 0);
    }
    send_text(c, &T.publish, G.pubid);
}

static void pace_start(double rate, uint64_t at)
{
    pace.on = rate > 0;
    pace.gap = 1e6 / rate;
    pace.start = pace.due = at;
    pace.k = 0;
}

/* Publish what is due, at most a few at a time so that reading goes on. */
static void pace_pump(void)
{
    for (int i = 0; i < 32 && pace.on && now >= pace.due; i++) {
        publish(pace.due);
        pace.due = pace.start + (uint64_t)((double)++pace.k * pace.gap);
    }
}

/* ----------------------------------------------------------- event loop -- */

static void heartbeats(void)        /* "every": spread evenly over the interval */
{
    static uint64_t last;
    static double credit;
    static int turn;
    if (T.every_s <= 0) return;
    if (last) credit += (double)(now - last) / 1e6 / T.every_s * total;
    for (last = now; credit >= 1; credit--, turn = (turn + 1) % total)
        if (conn[turn].st == ST_READY) send_text(&conn[turn], &T.every, 0);
}

/* After a partial batch of events, sleep a little before asking for more.  A
 * sleeping epoll_wait() costs the server's send() a wake-up, and costs this
 * side a round per event; real clients are not on the server's machine and do
 * neither.  Latencies come out up to --nap microseconds longer. */
static void loop_once(uint64_t until)
{
    static int n;
    struct epoll_event ev[MAX_EVENTS];
    now = now_us();
    pace_pump();
    heartbeats();
    uint64_t wake = pace.on && pace.due < until ? pace.due : until, wait = wake > now ? wake - now : 0;
    if (O.nap && wait && n > 0 && n < MAX_EVENTS) {
        uint64_t nap = wait < (uint64_t)O.nap ? wait : (uint64_t)O.nap;
        struct timespec z = { 0, (long)nap * 1000 };
        nanosleep(&z, NULL);
        wait -= nap;
    }
    struct timespec t = { (time_t)(wait / 1000000), (long)(wait % 1000000) * 1000 };
    n = epoll_pwait2(ep, ev, MAX_EVENTS, &t, NULL);
    now = now_us();
    for (int i = 0; i < n; i++) {
        Conn *c = &conn[ev[i].data.u32];
        if (c->st == ST_CONNECTING) upgrade_send(c);
        else {
            if (ev[i].events & EPOLLOUT && c->out.n && c->st != ST_CLOSED) conn_flush(c);
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->st != ST_CLOSED) on_readable(c);
        }
        pace_pump();
    }
}

static void loop_until(uint64_t t) { while (!stop && now_us() < t) loop_once(t); }

/* Open every connection that is closed (again); gives the seconds it took. */
static double connect_all(int again)
{
    uint64_t start = now_us(), opened = 0, checked = start;
    int next = 0;
    now = start;
    while (!stop && (next < total || G.inflight)) {
        while (next < total && (int)G.inflight < O.inflight &&
               (O.conn_rate <= 0 || (double)opened <= (double)(now_us() - start) / 1e6 * O.conn_rate)) {
            Conn *c = &conn[next++];
            if (c->st == ST_CLOSED && (again || !c->tried)) conn_open(c), opened++;
        }
        loop_once(now_us() + 2000);
        if (now - checked < 500000) continue;
        checked = now;
        for (int i = 0; i < next; i++)
            if (conn[i].st != ST_CLOSED && conn[i].st != ST_READY && now - conn[i].t0 > O.conn_timeout * 1e6) {
                note_error("conn %d: no answer in state %d, step %d", i, conn[i].st, conn[i].step);
                conn_close(&conn[i]);
            }
        if (O.verbose) fprintf(stderr, "wsload: %" PRIu64 " of %d ready, %" PRIu64 " failed\n", G.ready, total, G.failed);
    }
    return (double)(now_us() - start) / 1e6;
}

/* ---------------------------------------------------------------- steps -- */

typedef struct { double cpu, wait; uint64_t rss_kb; } Proc;         /* the server(s) */

/* Seconds that a process (its main thread) was ready to run and did not: a
 * share well above 0 in a pinned run means somebody else was on that core. */
static double run_delay(int pid)
{
    char path[64];
    uint64_t ran, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2) waited = 0;
    if (f) fclose(f);
    return (double)waited / 1e9;
}

static Proc proc_read(void)
{
    Proc r = {0};
    for (int i = 0; i < O.npids; i++) {
        r.wait += run_delay(O.pid[i]);
        char path[64], line[1024];
        unsigned long ut, st, pages;
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "/proc/%d/%s", O.pid[i], k ? "statm" : "stat");
            FILE *f = fopen(path, "r");
            if (f && fgets(line, sizeof line, f)) {
                char *s = strrchr(line, ')');
                if (!k && s && sscanf(s + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st) == 2)
                    r.cpu += (double)(ut + st) / (double)sysconf(_SC_CLK_TCK);
                if (k && sscanf(line, "%*u %lu", &pages) == 1)
                    r.rss_kb += pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
            }
            if (f) fclose(f);
        }
    }
    return r;
}

static double self_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

typedef struct {
    double rate, secs, p50, p90, p99, p999, max, mean, ack50, ack99, ack_max, late99, gen_cpu, gen_wait, srv_cpu, srv_wait, us_per_delivery;
    uint64_t published, expected, delivered, acked, arrived, frames;
    int ok, lost;
    const char *why;
} Step;

/* Publish at a rate for warm-up + secs; measure the messages due in the last
 * secs.  Arrivals are awaited for the latency limit more, and no longer. */
static Step step_run(double rate, double warmup, double secs)
{
    Step s = { .rate = rate, .ok = 1, .why = "" };
    uint64_t t0 = now_us() + 1000, lost0 = G.lost;
    memset(&W, 0, sizeof W);
    W.from = t0 + (uint64_t)(warmup * 1e6);
    W.to = W.from + (uint64_t)(secs * 1e6);
    pace_start(rate, t0);
    loop_until(W.from);
    uint64_t a0 = G.delivered, f0 = G.frames, e0 = G.expected, m0 = now_us();
    Proc p0 = proc_read();
    double c0 = self_cpu(), w0 = run_delay(getpid());
    while (!stop && now_us() < W.to) {
        uint64_t t = now_us() + 100000;
        loop_until(t < W.to ? t : W.to);
        /* No use going on once a whole second's worth has piled up. */
        if (rate > 0 && !strcmp(O.mode, "max") &&
            (double)(G.expected - G.delivered) > 1.0 * (double)(G.expected - e0) / ((double)(now_us() - m0) / 1e6) &&
            now_us() - m0 > 500000) { s.why = "backlog"; break; }
    }
    uint64_t m1 = now_us();
    Proc p1 = proc_read();
    double wall = (double)(m1 - m0) / 1e6;
    s.secs = wall;
    s.gen_cpu = (self_cpu() - c0) / wall;
    s.gen_wait = (run_delay(getpid()) - w0) / wall;
    s.srv_cpu = (p1.cpu - p0.cpu) / wall;
    s.srv_wait = (p1.wait - p0.wait) / wall;
    s.arrived = G.delivered - a0;
    s.frames = G.frames - f0;
    s.us_per_delivery = s.arrived ? (p1.cpu - p0.cpu) * 1e6 / (double)s.arrived : 0;
    pace.on = 0;
    uint64_t end = now_us() + (uint64_t)((strcmp(O.mode, "max") ? 2000 : O.limit_ms) * 1e3);
    while (!stop && now_us() < end && (rate <= 0 || G.delivered < G.expected || (O.acks && G.acked < G.published)))
        loop_once(now_us() + 1000);
    s.published = W.published;
    s.expected = rate > 0 ? W.expected : W.delivered;
    s.delivered = W.delivered;
    s.acked = W.acked;
    s.p50 = hist_ms(&W.lat, .5), s.p90 = hist_ms(&W.lat, .9), s.p99 = hist_ms(&W.lat, .99);
    s.p999 = hist_ms(&W.lat, .999), s.max = (double)W.lat.max / 1e3;
    s.mean = W.lat.n ? (double)W.lat.sum / (double)W.lat.n / 1e3 : 0;
    s.ack50 = hist_ms(&W.ack, .5), s.ack99 = hist_ms(&W.ack, .99), s.ack_max = (double)W.ack.max / 1e3;
    s.late99 = hist_ms(&W.late, .99);
    s.lost = (int)(G.lost - lost0);
    if (!*s.why) {
        if (s.lost) s.why = "connections lost";
        else if (s.p99 > O.limit_ms) s.why = "p99";
        else if ((double)s.delivered < 0.99 * (double)s.expected) s.why = "missing";
        else if ((double)s.published < 0.99 * rate * secs) s.why = "generator behind";
        else if (O.acks && s.ack99 > O.limit_ms) s.why = "ack p99";
        else if (O.acks && (double)s.acked < 0.99 * (double)s.published) s.why = "acks missing";
    }
    s.ok = !*s.why;
    return s;
}

/* Let what is under way arrive, so that one step does not spoil the next. */
static void drain(double secs)
{
    uint64_t end = now_us() + (uint64_t)(secs * 1e6), seen = G.delivered, quiet = now_us();
    while (!stop && now_us() < end && G.delivered < G.expected && now_us() - quiet < 1000000) {
        loop_once(now_us() + 20000);
        if (G.delivered != seen) seen = G.delivered, quiet = now_us();
    }
}

/* -------------------------------------------------------------- reports -- */

static void json_step(const Step *s)
{
    printf("{\"rate\":%.1f,\"ok\":%s,\"why\":\"%s\",\"window_s\":%.2f,\"published\":%" PRIu64 ",\"expected\":%" PRIu64
           ",\"delivered\":%" PRIu64 ",\"missing\":%" PRId64 ",\"deliveries_per_s\":%.0f,\"frames_per_s\":%.0f",
           s->rate, s->ok ? "true" : "false", s->why, s->secs, s->published, s->expected, s->delivered,
           (int64_t)(s->expected - s->delivered), (double)s->arrived / s->secs, (double)s->frames / s->secs);
    printf(",\"latency_ms\":{\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p99.9\":%.3f,\"max\":%.3f}",
           s->mean, s->p50, s->p90, s->p99, s->p999, s->max);
    if (O.acks) printf(",\"acked\":%" PRIu64 ",\"ack_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}", s->acked, s->ack50, s->ack99, s->ack_max);
    printf(",\"publish_late_p99_ms\":%.3f,\"generator_cpu\":%.3f,\"generator_wait\":%.3f", s->late99, s->gen_cpu, s->gen_wait);
    if (O.npids) printf(",\"server_cpu\":%.3f,\"server_wait\":%.3f,\"server_cpu_us_per_delivery\":%.3f", s->srv_cpu, s->srv_wait, s->us_per_delivery);
    printf(",\"lost\":%d}", s->lost);
}

static void human_step(const Step *s)
{
    fprintf(stderr, "wsload: %8.0f msg/s %9.0f deliveries/s  p50 %.2f p99 %.2f p99.9 %.2f max %.1f ms  missing %" PRId64,
            s->rate, (double)s->arrived / s->secs, s->p50, s->p99, s->p999, s->max, (int64_t)(s->expected - s->delivered));
    if (O.acks) fprintf(stderr, "  acks %" PRIu64 "/%" PRIu64 " p99 %.2f ms", s->acked, s->published, s->ack99);
    fprintf(stderr, "  cpu (+wait): generator %.0f%% (+%.0f)", s->gen_cpu * 100, s->gen_wait * 100);
    if (O.npids) fprintf(stderr, " server %.0f%% (+%.0f), %.2f us/delivery", s->srv_cpu * 100, s->srv_wait * 100, s->us_per_delivery);
    fprintf(stderr, "%s%s\n", s->ok ? "" : "  NOT OK: ", s->why);
}

/* --order: do all the subscribers of a room agree on what came in what order? */
static int rooms_disagreeing(void)
{
    Conn **first = calloc((size_t)O.rooms, sizeof *first);
    char *bad = calloc((size_t)O.rooms, 1);
    int n = 0;
    for (int i = 0; i < total; i++) {
        Conn *c = &conn[i];
        if (c->st != ST_READY || !(c->role & ROLE_SUB) || (O.no_echo && c->pub >= 0)) continue;
        if (!first[c->room]) first[c->room] = c;
        else if (first[c->room]->chain != c->chain || first[c->room]->chained != c->chained) bad[c->room] = 1;
    }
    for (int r = 0; r < O.rooms; r++) n += bad[r];
    free(first);
    free(bad);
    return n;
}

/* -------------------------------------------------------------- options -- */

static const char usage[] =
"usage: wsload MODE ws://127.x.y.z:PORT/PATH [options]\n"
"  idle    open the connections, hold them for --secs, report what is lost\n"
"  fanout  publish at --rate, report deliveries and latency (--rate 0: listen)\n"
"  ingest  fanout, and match the acks (template: ack, ackid)\n"
"  max     raise the rate until p99 > --limit or over 1 % lag; report the best\n"
"what\n"
"  -t, --template FILE   what is said on a connection (docs/benchmarks.md)\n"
"      --set NAME=TEXT   a placeholder {NAME} of your own\n"
"      --tokens FILE     {token}: a line of FILE for each connection\n"
"  -H, --header TEXT     an extra HTTP header, a template\n"
"  -n, --conns N         subscribers (1000); connection c is in room c %% rooms\n"
"  -r, --rooms N         rooms (1)\n"
"  -p, --pubs N          publishers (1): the first N connections, or N more\n"
"      --dedicated       the publishers are connections of their own\n"
"      --no-echo         a publisher does not get its own messages\n"
"  -s, --size BYTES      payload, at least 36 with --order, else 19 (100)\n"
"      --mask            random mask keys (default: all zero)\n"
"load\n"
"  -x, --rate X          messages/s over all publishers (10); max: where to start\n"
"  -d, --secs S          length of the measured window (10)\n"
"      --warmup S        before it (1)\n"
"      --conn-rate X     new connections/s (0: no limit)\n"
"      --inflight N      handshakes under way at once (200)\n"
"      --conn-timeout S  give up on a handshake (15)\n"
"      --src-ips K       source addresses 127.0.0.1..K (default: 1 per 20000)\n"
"      --nap US          let events gather before reading; 0: never (100)\n"
"max\n"
"      --limit MS        p99 allowed (100)\n"
"      --step S          length of a step (3)\n"
"      --precision F     stop when known to this fraction (0.05)\n"
"      --budget S        or after this long (50)\n"
"      --retry N         a rate has failed when it fails this often more (1)\n"
"checks and output\n"
"      --order           order, duplicates, gaps, rooms mixed up\n"
"      --acks            acks in any mode\n"
"      --pid PID[,PID]   the server: report its CPU time and RSS\n"
"      --name TEXT       a label for the JSON\n"
"  -v                    say what happens (-vv: unexpected frames too)\n"
"JSON goes to standard output, a line to read to standard error.\n";

static void parse_url(char *u)
{
    if (strncmp(u, "ws://", 5)) die("the URL starts with ws://");
    u += 5;
    char *slash = strchr(u, '/'), *colon = strchr(u, ':');
    if (!T.path.n) T.path = tmpl_compile(slash ? slash : "/");
    if (slash) *slash = 0;
    if (colon) *colon = 0;
    O.port = colon ? atoi(colon + 1) : 80;
    O.host = strcmp(u, "localhost") ? u : "127.0.0.1";
    struct in_addr a;
    if (!inet_aton(O.host, &a) || ntohl(a.s_addr) >> 24 != 127) die("only 127.0.0.0/8 is a target, not %s", u);
}

static void load_tokens(const char *file)
{
    FILE *f = fopen(file, "r");
    char *line = NULL;
    size_t cap = 0;
    if (!f) die("%s: %s", file, strerror(errno));
    while (getline(&line, &cap, f) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        O.token = realloc(O.token, (size_t)(O.ntokens + 1) * sizeof *O.token);
        O.token[O.ntokens++] = strdup(line);
    }
    free(line);
    fclose(f);
}

static void options(int argc, char **argv)
{
    enum { SET = 256, TOKENS, DEDICATED, NOECHO, MASK, WARMUP, CRATE, INFLIGHT, CTIMEOUT, SRC, NAP, LIMIT, STEP, PREC, BUDGET, RETRY, ORDER, ACKS, PID, NAME };
    static const struct option L[] = {
        {"template", 1, 0, 't'}, {"set", 1, 0, SET}, {"tokens", 1, 0, TOKENS}, {"header", 1, 0, 'H'}, {"conns", 1, 0, 'n'},
        {"rooms", 1, 0, 'r'}, {"pubs", 1, 0, 'p'}, {"dedicated", 0, 0, DEDICATED}, {"no-echo", 0, 0, NOECHO},
        {"size", 1, 0, 's'}, {"mask", 0, 0, MASK}, {"rate", 1, 0, 'x'}, {"secs", 1, 0, 'd'}, {"warmup", 1, 0, WARMUP},
        {"conn-rate", 1, 0, CRATE}, {"inflight", 1, 0, INFLIGHT}, {"conn-timeout", 1, 0, CTIMEOUT}, {"src-ips", 1, 0, SRC}, {"nap", 1, 0, NAP},
        {"limit", 1, 0, LIMIT}, {"step", 1, 0, STEP}, {"precision", 1, 0, PREC}, {"budget", 1, 0, BUDGET}, {"retry", 1, 0, RETRY},
        {"order", 0, 0, ORDER}, {"acks", 0, 0, ACKS}, {"pid", 1, 0, PID}, {"name", 1, 0, NAME}, {0, 0, 0, 0}};
    const char *header[MAX_HEADERS];
    int o, nheader = 0;
    while ((o = getopt_long(argc, argv, "t:H:n:r:p:s:x:d:v", L, NULL)) != -1) switch (o) {
    case 't': O.tmpl = optarg; break;
    case 'H': if (nheader < MAX_HEADERS) header[nheader++] = optarg; break;
    case 'n': O.conns = atoi(optarg); break;
    case 'r': O.rooms = atoi(optarg); break;
    case 'p': O.pubs = atoi(optarg); break;
    case 's': O.size = atoi(optarg); break;
    case 'x': O.rate = atof(optarg); break;
    case 'd': O.secs = atof(optarg); break;
    case 'v': O.verbose++; break;
    case SET: {
        char *eq = strchr(optarg, '=');
        if (!eq || O.nsets == MAX_SETS) die("--set NAME=TEXT");
        *eq = 0;
        O.set[O.nsets].k = optarg;
        O.set[O.nsets++].v = eq + 1;
        break;
    }
    case TOKENS: load_tokens(optarg); break;
    case DEDICATED: O.dedicated = 1; break;
    case NOECHO: O.no_echo = 1; break;
    case MASK: O.mask = 1; break;
    case WARMUP: O.warmup = atof(optarg); break;
    case CRATE: O.conn_rate = atof(optarg); break;
    case INFLIGHT: O.inflight = atoi(optarg); break;
    case CTIMEOUT: O.conn_timeout = atof(optarg); break;
    case SRC: O.src_ips = atoi(optarg); break;
    case NAP: O.nap = atoi(optarg); break;
    case LIMIT: O.limit_ms = atof(optarg); break;
    case STEP: O.step = atof(optarg); break;
    case PREC: O.precision = atof(optarg); break;
    case BUDGET: O.budget = atof(optarg); break;
    case RETRY: O.retry = atoi(optarg); break;
    case ORDER: O.order = 1; break;
    case ACKS: O.acks = 1; break;
    case NAME: O.name = optarg; break;
    case PID:
        for (char *s = strtok(optarg, ","); s && O.npids < MAX_PIDS; s = strtok(NULL, ",")) O.pid[O.npids++] = atoi(s);
        break;
    default: fputs(usage, stderr); exit(2);
    }
    if (argc - optind != 2) { fputs(usage, stderr); exit(2); }
    O.mode = argv[optind];
    int idle = !strcmp(O.mode, "idle"), ingest = !strcmp(O.mode, "ingest");
    if (!idle && !ingest && strcmp(O.mode, "fanout") && strcmp(O.mode, "max")) die("unknown mode %s", O.mode);
    if (ingest) O.acks = 1;
    if (idle) O.pubs = 0;
    if (O.tmpl) tmpl_load(O.tmpl);
    for (int i = 0; i < nheader && T.nheaders < MAX_HEADERS; i++) T.header[T.nheaders++] = tmpl_compile(header[i]);
    parse_url(argv[optind + 1]);
    if (O.conns < 1 || O.rooms < 1 || O.pubs < 0) die("--conns and --rooms are at least 1");
    if (!O.dedicated && O.pubs > O.conns) die("more publishers than connections: --dedicated?");
    if (O.size < (O.order ? MARK_LEN + TAG_LEN : MARK_LEN)) die("--size is too small for the marker");
    if (!idle && O.rate > 0 && (!T.publish.n || !O.pubs)) die("no publish line in the template, or no publishers");
    if (O.acks && !T.ack.s) die("no ack line in the template");
    total = O.conns + (O.dedicated ? O.pubs : 0);
    pubs_per_room = O.pubs / O.rooms + 1;
    if (O.src_ips < 1) O.src_ips = 1 + total / 20000;
    if (O.src_ips > 254) O.src_ips = 254;
}

int main(int argc, char **argv)
{
    options(argc, argv);
    signal(SIGINT, on_sigint);
    signal(SIGTERM, on_sigint);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    struct rlimit rl = { (rlim_t)total + 64, (rlim_t)total + 64 }, old;
    getrlimit(RLIMIT_NOFILE, &old);
    if (rl.rlim_max < old.rlim_max) rl.rlim_max = old.rlim_max;
    if (rl.rlim_cur > old.rlim_cur && setrlimit(RLIMIT_NOFILE, &rl)) die("RLIMIT_NOFILE %d: %s", total + 64, strerror(errno));
    if (getrandom(seed, sizeof seed, 0) != sizeof seed) die("getrandom");

    conn = calloc((size_t)total, sizeof *conn);
    room_subs = calloc((size_t)O.rooms, sizeof *room_subs);
    ack_due = calloc(ACK_RING, sizeof *ack_due);
    payload = malloc((size_t)O.size + 1);
    buf_add(&scratch, rdbuf, HEADROOM);
    ep = epoll_create1(0);
    if (!conn || !room_subs || !ack_due || !payload || ep < 0) die("out of memory");
    for (int i = 0; i < O.size; i++) payload[i] = (char)('a' + i % 26);
    memcpy(payload, "@T", 2);
    payload[MARK_LEN - 1] = '@';
    if (O.size >= MARK_LEN + TAG_LEN) memcpy(payload + MARK_LEN, "P000000.00000000@", TAG_LEN);
    for (int i = 0; i < total; i++) {
        Conn *c = &conn[i];
        c->idx = i;
        c->pub = O.dedicated ? (i >= O.conns ? i - O.conns : -1) : i < O.pubs ? i : -1;
        c->role = (uint8_t)((i < O.conns ? ROLE_SUB : 0) | (c->pub >= 0 ? ROLE_PUB : 0));
        c->room = (c->pub >= 0 ? c->pub : i) % O.rooms;
    }

    Proc before = proc_read();
    double connect_s = connect_all(0);
    uint64_t established = G.ready, failed = G.failed;
    if (O.verbose) fprintf(stderr, "wsload: %" PRIu64 " ready in %.2f s\n", established, connect_s);

    static Step step[MAX_STEPS];
    int nsteps = 0, best = -1;
    Proc held = before;
    if (!strcmp(O.mode, "idle")) {
        loop_until(now_us() + (uint64_t)(O.secs * 1e6));
        held = proc_read();
    } else if (strcmp(O.mode, "max")) {
        held = proc_read();
        if (established) step[nsteps++] = step_run(O.rate, O.warmup, O.secs);
        drain(2);
        if (nsteps) best = 0, human_step(&step[0]);
    } else {
        /* Double until it fails (or halve until it holds), then bisect. */
        held = proc_read();
        uint64_t end = now_us() + (uint64_t)(O.budget * 1e6);
        double lo = 0, hi = 0, rate = O.rate;
        int tries = 0;
        while (established && !stop && nsteps < MAX_STEPS && now_us() < end && rate >= 0.5 && !(lo && hi && hi / lo < 1 + O.precision)) {
            Step s = step_run(rate, O.warmup < 0.5 ? O.warmup : 0.5, O.step);
            human_step(&s);
            step[nsteps] = s;
            if (s.ok) lo = rate, best = nsteps, tries = 0;
            else if (tries++ >= O.retry) hi = rate, tries = 0;
            nsteps++;
            drain(s.ok ? 2 : 10);
            if (!s.ok) G.expected = G.delivered;    /* what is missing now stays missing */
            if (G.ready < established) connect_all(1);
            if (!tries) rate = !hi ? lo * 2 : !lo ? hi / 2 : sqrt(lo * hi);
        }
    }

    /* One JSON object, and one line to read. */
    printf("{\"name\":\"%s\",\"mode\":\"%s\",\"port\":%d,\"conns\":%d,\"rooms\":%d,\"pubs\":%d,\"size\":%d,\"established\":%" PRIu64
           ",\"failed\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"connect_s\":%.3f,\"connects_per_s\":%.0f,\"handshake_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}",
           O.name ? O.name : "", O.mode, O.port, total, O.rooms, O.pubs, O.size, established, failed, G.lost, connect_s,
           (double)established / connect_s, hist_ms(&handshake, .5), hist_ms(&handshake, .99), (double)handshake.max / 1e3);
    if (O.npids)
        printf(",\"server_rss_kb\":[%" PRIu64 ",%" PRIu64 "],\"server_rss_bytes_per_conn\":%.0f", before.rss_kb, held.rss_kb,
               established ? ((double)held.rss_kb - (double)before.rss_kb) * 1024 / (double)established : 0);
    if (best >= 0) { printf(",\"%s\":", strcmp(O.mode, "max") ? "result" : "best"); json_step(&step[best]); }
    if (!strcmp(O.mode, "max"))
        for (int i = 0; i < nsteps; i++) { printf(i ? "," : ",\"steps\":["); json_step(&step[i]); if (i == nsteps - 1) printf("]"); }
    if (O.order)
        printf(",\"order\":{\"duplicates\":%" PRIu64 ",\"out_of_order\":%" PRIu64 ",\"gaps\":%" PRIu64 ",\"wrong_room\":%" PRIu64
               ",\"untagged\":%" PRIu64 ",\"server_seq_breaks\":%" PRIu64 ",\"rooms_disagreeing\":%d}",
               G.dup, G.disorder, G.gap, G.foreign, G.untagged, G.seq_breaks, rooms_disagreeing());
    printf(",\"totals\":{\"published\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"acked\":%" PRIu64 ",\"frames\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"blocked_sends\":%" PRIu64 ",\"protocol_errors\":%" PRIu64 ",\"close_frames\":%" PRIu64 ",\"last_close\":%d},\"first_error\":\"%s\"}\n",
           G.published, G.delivered, G.acked, G.frames, G.bytes, G.blocked, G.proto_err, G.closes, G.last_close, G.first_error);

    fprintf(stderr, "wsload %s%s%s: %" PRIu64 "/%d established (%.0f/s), %" PRIu64 " failed, %" PRIu64 " lost", O.name ? O.name : "",
            O.name ? " " : "", O.mode, established, total, (double)established / connect_s, failed, G.lost);
    if (O.npids) fprintf(stderr, ", server RSS %" PRIu64 " -> %" PRIu64 " KB", before.rss_kb, held.rss_kb);
    if (!strcmp(O.mode, "max") && best >= 0)
        fprintf(stderr, ", best %.0f msg/s = %.0f deliveries/s at p99 %.2f ms", step[best].rate, (double)step[best].arrived / step[best].secs, step[best].p99);
    if (O.order)
        fprintf(stderr, ", order: %" PRIu64 " out of order %" PRIu64 " dup %" PRIu64 " gaps", G.disorder, G.dup, G.gap);
    fprintf(stderr, "%s%s\n", G.first_error[0] ? ", first error: " : "", G.first_error);
    return established == (uint64_t)total && !G.proto_err ? 0 : 1;
}
