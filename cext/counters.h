/* Every counter of the core, once: the name is what status and metrics show. Drops come first, then what was done.
 * The first SRP_VERDICTS drops are the verdicts of the codec, in their order. */
#ifndef SRP_COUNTERS_H
#define SRP_COUNTERS_H

#include <stdint.h>
#include "wire.h"

#define SRP_DROP_LIST(X) \
    X(port_zero)          /* source port 0: no answer could reach it */ \
    X(own_source)         /* from one of our own endpoints */ \
    X(probe_socket)       /* a datagram for the probe socket that nobody waits for */ \
    X(denied_prefix)      /* the access list refuses the source */ \
    X(denied_cluster)     /* the access list refuses the cluster */ \
    X(rate_endpoint)      /* one source address and port sent too much this minute */ \
    X(rate_address)       /* one source address */ \
    X(rate_prefix)        /* one source prefix (/24) */ \
    X(rate_unproven)      /* all unproven sources together, this second */ \
    X(unproven)           /* a type that only proven sources may send */ \
    X(budget)             /* an answer that would exceed three bytes per byte received */ \
    X(self_named)         /* claims our own peerId */ \
    X(name_taken)         /* claims the peerId of another proven endpoint */ \
    X(name_unproven)      /* a peer that has a name claims another, and has not said so in a pong yet */ \
    X(pong_unasked)       /* answers no ping of ours */ \
    X(peers_full) \
    X(peers_address)      /* more peers on one address than allowed */ \
    X(peers_prefix)       /* more peers in one prefix than allowed */ \
    X(parking_replaced)   /* a parked join or ping gave way to another */ \
    X(cluster_id)         /* join without a 32-byte cluster */ \
    X(packet_id)          /* publish without a 32-byte packetId */ \
    X(stale)              /* deadline or age exceeded */ \
    X(duplicate)          /* handled before */ \
    X(hops)               /* hop limit reached */ \
    X(claim)              /* a join without valid type, address or port */ \
    X(scope)              /* an address or port that a message may not name */ \
    X(relay_budget)       /* relayed joins towards one prefix */ \
    X(deferred_full)      /* too many joins wait to be passed on */ \
    X(deferred_peer)      /* too many that one peer sent or caused */ \
    X(rendezvous_unknown) /* the peer asked for is not ours */ \
    X(intro_ignored)      /* introductions are for clients */ \
    X(no_destination)     /* stream to a peer we do not know */ \
    X(no_route)           /* answer to a question we did not relay */ \
    X(summary)            /* a sync message that is no summary */ \
    X(sync_work)          /* the summary work of this second is used up */ \
    X(sync_jobs)          /* too many peers are being brought up to date */ \
    X(sync_summaries)     /* summaries for a peer that has got its share of this minute */ \
    X(sync_share)         /* a stored packet for a peer that has got its share of this minute: sent later */ \
    X(stranger_share)     /* a packet of other clusters for a peer that has got its share of this minute */ \
    X(queue_full)         /* the output queue of this batch is full */ \
    X(bandwidth)          /* the outgoing bandwidth limit */ \
    X(peer_bandwidth)     /* the outgoing bandwidth limit of one peer */ \
    X(opened_share)       /* for a peer believed without proof that has got more than it sent: by its introducer instead */ \
    X(intro_stale)        /* an introduction that is too old or has travelled too far */ \
    X(intro_known)        /* introduces whom we are connected to, or were introduced to a moment ago */ \
    X(attempts_full)      /* too many connection attempts at once */ \
    X(attempt_budget)     /* too many connection attempts this minute, in all or towards one prefix: by proxy instead */ \
    X(app_full)           /* the application does not take what arrived */

#define SRP_COUNT_LIST(X) \
    X(in_datagrams) X(in_bytes) X(out_datagrams) X(out_bytes) \
    X(in_ping) X(in_pong) X(in_intro) X(in_join) X(in_publish) X(in_stream) X(in_sync) X(in_query) \
    X(out_ping) X(out_pong) X(out_intro) X(out_join) X(out_publish) X(out_stream) X(out_sync) X(out_query) \
    X(proofs)             /* endpoints that proved themselves */ \
    X(aliases)            /* second endpoints of peers behind a hard NAT that did */ \
    X(connections)        /* peers that became connected */ \
    X(departures)         /* peers not heard from for four keep-alives */ \
    X(peers_evicted)      /* gave their place to a newcomer */ \
    X(names_moved)        /* a peerId moved to a new endpoint after its old one failed a ping */ \
    X(claims_wrong)       /* joins whose claimed endpoint is not the observed one */ \
    X(introductions)      /* pairs */ \
    X(rendezvous)         /* pairs introduced at the request of a third */ \
    X(introductions_full) /* candidates passed over: introduced often enough this minute */ \
    X(joins_relayed) X(joins_known) X(joins_deferred) X(joins_echoed) \
    X(parked) X(unparked) \
    X(cache_inserted) X(cache_ejected) X(cache_expired) X(cache_bucket_full) \
    X(cluster_table_full) X(member_table_full) \
    X(gate_evicted)       /* live gate entries that gave way */ \
    X(fan_outs_narrowed)  /* published packets sent to three because fan_out_packets_per_second was used up */ \
    X(carried)            /* published packets and joins handed to peers outside their cluster */ \
    X(carries_refused)    /* not handed to them because carried_per_minute was used up */ \
    X(queries_answered) X(answers_routed) \
    X(syncs_started) X(sync_summaries) X(sync_packets) X(sync_rounds) \
    X(reflections) X(reflections_failed) \
    X(attempts) X(attempts_direct) X(attempts_proxied) X(proxies_upgraded) X(openers) \
    X(published) X(unpublished) X(unpublished_lost) X(delivered) \
    X(unproven_cuts)      /* times that strangers were left half of their share: losses, or hardly any rest */ \
    X(events_lost)

enum srp_counter {
    SRP_DROP_FIRST = 0,
    SRP_DROP_CODEC_LAST = SRP_VERDICTS - 1,
#define X(name) SRP_DROP_##name,
    SRP_DROP_LIST(X)
#undef X
    SRP_DROPS,
    SRP_COUNT_FIRST = SRP_DROPS - 1,
#define X(name) SRP_COUNT_##name,
    SRP_COUNT_LIST(X)
#undef X
    SRP_COUNTERS
};

/* NULL past the end. Index 0 (the verdict "ok") is unused. */
static inline const char *srp_counter_name(unsigned counter)
{
    static const char *const names[] = {
#define X(name) #name,
        SRP_DROP_LIST(X) SRP_COUNT_LIST(X)
#undef X
    };
    if (counter < SRP_VERDICTS)
        return srp_verdict_name((enum srp_verdict)counter);
    if (counter < SRP_COUNTERS)
        return names[counter - SRP_VERDICTS];
    return NULL;
}

#endif
