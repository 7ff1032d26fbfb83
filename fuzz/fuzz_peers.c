/* After any sequence of what the core does to it, the table of peers and clusters is consistent (check.h) and knows exactly the
 * peers, names and memberships that it was told. */
#include <stdlib.h>

#include "check.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

enum { PEERS = 12, INDEXED = 3, CLUSTERS = 24, ADDRESSES = 6, PORTS = 6, NAMES = 20, IDS = 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void consistent(const srp_peers *t)
{
    const char *wrong = srp_check_peers(t);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
        abort();
    }
}

static void name_of(uint8_t which, uint8_t id[32])
{
    memset(id, 0x55, 32);
    id[which % 32u] = which;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    srp_peers t;
    uint32_t slot_at[ADDRESSES][PORTS], named[NAMES], generation[PEERS + INDEXED] = {0};
    int64_t due_us = 1000;
    const size_t bytes = srp_peers_bytes(PEERS, INDEXED, CLUSTERS);
    void *memory = calloc(1, bytes); /* exactly what it asks for: the sanitizer knows its end */
    CHECK(memory != NULL);
    const srp_sip_key key = {len, 7};
    srp_peers_init(&t, memory, PEERS, INDEXED, CLUSTERS, key);
    memset(slot_at, 0xff, sizeof slot_at);
    memset(named, 0xff, sizeof named);
    consistent(&t);

    for (size_t i = 0; i + 2 < len; i += 3) {
        const uint8_t op = data[i] % 10, a = data[i + 1], b = data[i + 2];
        const unsigned address = a % ADDRESSES, port = b % PORTS;
        uint32_t *const here = &slot_at[address][port];
        const uint32_t slot = *here;
        uint8_t id[32];
        const uint8_t which = (uint8_t)((a ^ data[i]) % NAMES);
        name_of(which, id);
        CHECK(srp_peers_at(&t, srp_endpoint_hash(&t, address, (uint16_t)port), address, (uint16_t)port) == slot);
        CHECK(srp_peers_named(&t, id) == named[which]);
        if (slot == SRP_NONE) {
            due_us += b;
            *here = srp_peers_add(&t, address, (uint16_t)port, due_us, due_us);
            if (*here == SRP_NONE) {
                CHECK(t.count == PEERS + INDEXED);
            } else {
                CHECK(t.peer[*here].generation == generation[*here] + 1u);
                generation[*here]++;
                if (t.count <= INDEXED && (a & 0x80)) t.peer[*here].flags |= SRP_PEER_INDEXED;
            }
        } else if (op == 0) {
            for (unsigned n = 0; n < NAMES; n++)
                if (named[n] == slot) named[n] = SRP_NONE;
            srp_peers_remove(&t, slot);
            *here = SRP_NONE;
        } else if (op <= 2) {
            if (named[which] == SRP_NONE || named[which] == slot) {
                for (unsigned n = 0; n < NAMES; n++)
                    if (named[n] == slot) named[n] = SRP_NONE;
                srp_peers_name(&t, slot, id);
                named[which] = slot;
            }
        } else if (op == 3) {
            for (unsigned n = 0; n < NAMES; n++)
                if (named[n] == slot) named[n] = SRP_NONE;
            srp_peers_unname(&t, slot);
        } else if (op <= 5) {
            srp_peers_set_live(&t, slot, a & 0x40);
        } else if (op == 6) {
            due_us += b;
            srp_peers_set_due(&t, slot, due_us);
        } else {
            const uint8_t text[1] = {(uint8_t)(a % IDS)};
            const uint64_t cluster_key = srp_cluster_key(&t, text, 1, b & 1 ? "sub" : NULL, b & 1 ? 3u : 0u);
            const uint32_t before = t.cluster_count, cluster = srp_cluster_get(&t, cluster_key, text, 1);
            if (cluster == SRP_NONE) {
                CHECK(before == CLUSTERS);
            } else {
                CHECK(srp_cluster_find(&t, cluster_key) == cluster);
                const bool joined = srp_peers_join(&t, slot, cluster);
                CHECK(joined == srp_peers_is_member(&t, slot, cluster));
                if (!joined) srp_cluster_release(&t, cluster);
            }
        }
        consistent(&t);
    }
    /* Everybody leaves: nothing is left behind. */
    for (unsigned address = 0; address < ADDRESSES; address++)
        for (unsigned port = 0; port < PORTS; port++)
            if (slot_at[address][port] != SRP_NONE) srp_peers_remove(&t, slot_at[address][port]);
    consistent(&t);
    CHECK(t.count == 0 && t.member_count == 0 && t.cluster_count == 0 && t.live_count == 0 && t.indexed_count == 0);
    free(memory);
    return 0;
}
