/* The WebSocket handshake's arithmetic (RFC 6455, section 4.2.2): base64, and
 * SHA-1 of a message as short as a key and its GUID.  No library is needed. */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { KEY_LEN = 24, ACCEPT_LEN = 28 };         /* base64 of 16 and 20 bytes */

/* out has room for 4 * ceil(n / 3) + 1 characters. */
static void base64(const uint8_t *in, int n, char *out)
{
    static const char A[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
        *out++ = A[v >> 18];
        *out++ = A[v >> 12 & 63];
        *out++ = i + 1 < n ? A[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? A[v & 63] : '=';
    }
    *out = 0;
}

/* SHA-1 (FIPS 180-4) of a message of at most 119 bytes: two blocks. */
static void sha1_short(const char *msg, size_t n, uint8_t out[20])
{
    uint8_t b[128] = {0};
    size_t whole = n + 9 <= 64 ? 64 : 128;
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    memcpy(b, msg, n);
    b[n] = 0x80;
    b[whole - 2] = (uint8_t)(n * 8 >> 8);
    b[whole - 1] = (uint8_t)(n * 8);
#define ROL(x, k) ((x) << (k) | (x) >> (32 - (k)))
    for (size_t o = 0; o < whole; o += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)b[o + 4 * i] << 24 | b[o + 4 * i + 1] << 16 | b[o + 4 * i + 2] << 8 | b[o + 4 * i + 3];
        for (int i = 16; i < 80; i++) w[i] = ROL(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], bb = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (bb & c) | (~bb & d), k = 0x5A827999;
            else if (i < 40) f = bb ^ c ^ d, k = 0x6ED9EBA1;
            else if (i < 60) f = (bb & c) | (bb & d) | (c & d), k = 0x8F1BBCDC;
            else f = bb ^ c ^ d, k = 0xCA62C1D6;
            uint32_t t = ROL(a, 5) + f + e + k + w[i];
            e = d; d = c; c = ROL(bb, 30); bb = a; a = t;
        }
        h[0] += a; h[1] += bb; h[2] += c; h[3] += d; h[4] += e;
    }
#undef ROL
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key of KEY_LEN characters. */
static void websocket_accept(const char *key, char out[ACCEPT_LEN + 1])
{
    char text[KEY_LEN + 37];
    uint8_t sha[20];
    snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", KEY_LEN, key);
    sha1_short(text, strlen(text), sha);
    base64(sha, sizeof sha, out);
}

#endif
