# cython: boundscheck=True, wraparound=True
"""The wire codec of cext/ for Python: for clients, tools and tests. The node itself uses the C functions directly."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

PING, PONG, INTRO, JOIN, PUBLISH, STREAM, SYNC, QUERY = range(1, 9)
FIELDS = (
    "cluster_id", "subcluster_id", "previous_id", "packet_id", "next_id",
    "usr1", "usr2", "usr3", "usr4", "message", "sig",
)
UNSET = b"\0"
VERDICTS = tuple((<bytes>srp_verdict_name(<srp_verdict>_v)).decode() for _v in range(SRP_VERDICTS))
TYPES = tuple((<bytes>srp_type_name(<uint8_t>_t)).decode() for _t in range(SRP_TYPES))
FRAGMENT_BYTES = SRP_MESSAGE_MAX
TTL_MS = SRP_TTL_MS
EMPTY_SUMMARY = bytes.fromhex("da39a3ee5e6b4b0d3255bfef95601890afd80709")

# How each JSON key is kept in srp_message.
cdef enum:
    ID32 = 0
    HASH20
    TEXT
    TRUTH
    NUMBER
    PORT
    NAT
    ADDRESS
    KEY

KEYS = {
    "requesterPeerId": (SRP_KEY_REQUESTER_PEER_ID, ID32),
    "responderPeerId": (SRP_KEY_RESPONDER_PEER_ID, ID32),
    "cacheSummaryHash": (SRP_KEY_CACHE_SUMMARY_HASH, HASH20),
    "probeExternalPort": (SRP_KEY_PROBE_EXTERNAL_PORT, PORT),
    "reflectionId": (SRP_KEY_REFLECTION_ID, TEXT),
    "pingId": (SRP_KEY_PING_ID, TEXT),
    "natType": (SRP_KEY_NAT_TYPE, NAT),
    "uptime": (SRP_KEY_UPTIME, NUMBER),
    "cacheSize": (SRP_KEY_CACHE_SIZE, NUMBER),
    "isConnection": (SRP_KEY_IS_CONNECTION, TRUTH),
    "isReflection": (SRP_KEY_IS_REFLECTION, TRUTH),
    "isProbe": (SRP_KEY_IS_PROBE, TRUTH),
    "isDebug": (SRP_KEY_IS_DEBUG, TRUTH),
    "isRendezvous": (SRP_KEY_IS_RENDEZVOUS, TRUTH),
    "rejected": (SRP_KEY_REJECTED, TRUTH),
    "timestamp": (SRP_KEY_TIMESTAMP, NUMBER),
    "address": (SRP_KEY_ADDRESS, ADDRESS),
    "port": (SRP_KEY_PORT, PORT),
    "key": (SRP_KEY_KEY, KEY),
    "rendezvousAddress": (SRP_KEY_RENDEZVOUS_ADDRESS, ADDRESS),
    "rendezvousPort": (SRP_KEY_RENDEZVOUS_PORT, PORT),
    "rendezvousType": (SRP_KEY_RENDEZVOUS_TYPE, NAT),
    "rendezvousPeerId": (SRP_KEY_RENDEZVOUS_PEER_ID, ID32),
    "rendezvousDeadline": (SRP_KEY_RENDEZVOUS_DEADLINE, NUMBER),
    "rendezvousRequesterPeerId": (SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID, ID32),
    "packetId": (SRP_KEY_PACKET_ID, ID32),
}


class Malformed(ValueError):
    """Bytes that are no packet; `verdict` is the name of the reason, one of VERDICTS."""

    def __init__(self, verdict):
        super().__init__(f"not a packet: {verdict}")
        self.verdict = verdict


cdef void *_member(srp_message *message, int key) noexcept:
    """Where the value of a key is kept; NULL for truths."""
    if key == SRP_KEY_REQUESTER_PEER_ID:
        return message.requester_peer_id
    if key == SRP_KEY_RESPONDER_PEER_ID:
        return message.responder_peer_id
    if key == SRP_KEY_CACHE_SUMMARY_HASH:
        return message.cache_summary_hash
    if key == SRP_KEY_PROBE_EXTERNAL_PORT:
        return &message.probe_external_port
    if key == SRP_KEY_REFLECTION_ID:
        return message.reflection_id
    if key == SRP_KEY_PING_ID:
        return message.ping_id
    if key == SRP_KEY_NAT_TYPE:
        return &message.nat_type
    if key == SRP_KEY_UPTIME:
        return &message.uptime
    if key == SRP_KEY_CACHE_SIZE:
        return &message.cache_size
    if key == SRP_KEY_TIMESTAMP:
        return &message.timestamp
    if key == SRP_KEY_ADDRESS:
        return &message.address
    if key == SRP_KEY_PORT:
        return &message.port
    if key == SRP_KEY_RENDEZVOUS_ADDRESS:
        return &message.rendezvous_address
    if key == SRP_KEY_RENDEZVOUS_PORT:
        return &message.rendezvous_port
    if key == SRP_KEY_RENDEZVOUS_TYPE:
        return &message.rendezvous_type
    if key == SRP_KEY_RENDEZVOUS_PEER_ID:
        return message.rendezvous_peer_id
    if key == SRP_KEY_RENDEZVOUS_DEADLINE:
        return &message.rendezvous_deadline
    if key == SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID:
        return message.rendezvous_requester_peer_id
    if key == SRP_KEY_PACKET_ID:
        return message.packet_id
    return NULL


cdef _raise(srp_verdict verdict):
    raise Malformed((<bytes>srp_verdict_name(verdict)).decode())


def verdict(bytes data not None):
    """The verdict on a datagram, frame and message: "ok", or why it is no packet. Same judge as the node's."""
    cdef srp_frame frame
    cdef srp_message message
    cdef srp_verdict found = srp_frame_decode(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data), &frame)
    if found == SRP_OK:
        found = srp_message_read(<const uint8_t *>PyBytes_AS_STRING(data), &frame, &message)
    return (<bytes>srp_verdict_name(found)).decode()


def decode(bytes data not None):
    """The frame of a datagram: type, clock, hops, index, ttl (ms), size (bytes) and each of FIELDS as bytes.

    An unset field is UNSET (or empty), as on the wire. The message is not judged: see read_message. Raises Malformed.
    """
    cdef srp_frame frame
    cdef srp_span span
    cdef srp_verdict found = srp_frame_decode(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data), &frame)
    cdef int i
    if found != SRP_OK:
        _raise(found)
    packet = {
        "type": frame.type,
        "clock": frame.clock,
        "hops": frame.hops,
        "index": frame.index,
        "ttl": frame.ttl,
        "size": frame.size,
    }
    for i in range(<int>SRP_FIELDS):
        span = frame.field[i]
        packet[FIELDS[i]] = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + span.at, span.len)
    return packet


def encode(int kind, *, uint32_t clock=1, uint32_t hops=0, int32_t index=-1, uint32_t ttl=SRP_TTL_MS,
           bytes cluster_id=None, bytes subcluster_id=None, bytes previous_id=None, bytes packet_id=None,
           bytes next_id=None, bytes usr1=None, bytes usr2=None, bytes usr3=None, bytes usr4=None,
           bytes message=None, bytes sig=None):
    """A datagram. Fields left out are unset; an unset packet_id becomes SHA-256(previous_id, message, next_id).

    Raises ValueError for an unknown type or a field over its maximum (32 bytes, message 1024, sig 64).
    """
    cdef srp_packet packet
    cdef uint8_t out[1421]
    cdef uint32_t size
    cdef int i
    if not 1 <= kind < SRP_TYPES:
        raise ValueError(f"type {kind}: no such packet type")
    srp_packet_init(&packet, <uint8_t>kind)
    packet.clock = clock
    packet.hops = hops
    packet.index = index
    packet.ttl = ttl
    values = (cluster_id, subcluster_id, previous_id, packet_id, next_id, usr1, usr2, usr3, usr4, message, sig)
    for i in range(<int>SRP_FIELDS):
        value = values[i]
        if value is not None:
            packet.field[i].at = <const uint8_t *>PyBytes_AS_STRING(value)
            packet.field[i].len = <uint32_t>min(len(value), 0xFFFF)
    size = srp_packet_encode(&packet, out, SRP_DATAGRAM_MAX)
    if size == 0:
        raise ValueError("a field is longer than its maximum")
    return PyBytes_FromStringAndSize(<char *>out, size)


def read_message(bytes data not None):
    """The JSON message of a datagram, by the protocol's key names; only keys whose value is valid by our own check.

    Ids are 64 hex digits, hashes 40, numbers floats, ports and NAT types ints, addresses dotted IPv4. Empty for types
    without a JSON message and for queries that cannot be read. Raises Malformed.
    """
    cdef srp_frame frame
    cdef srp_message message
    cdef srp_verdict found = srp_frame_decode(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data), &frame)
    cdef void *at
    cdef uint32_t address
    if found == SRP_OK:
        found = srp_message_read(<const uint8_t *>PyBytes_AS_STRING(data), &frame, &message)
    if found != SRP_OK:
        _raise(found)
    read = {}
    for name, (key, shape) in KEYS.items():
        if not (message.has >> <int>key) & 1:
            continue
        at = _member(&message, key)
        if shape == ID32:
            read[name] = PyBytes_FromStringAndSize(<char *>at, 32).hex()
        elif shape == HASH20:
            read[name] = PyBytes_FromStringAndSize(<char *>at, 20).hex()
        elif shape == TEXT:
            read[name] = (<bytes>(<char *>at)).decode("ascii")
        elif shape == TRUTH:
            read[name] = bool((message.truth >> <int>key) & 1)
        elif shape == NUMBER:
            read[name] = (<double *>at)[0]
        elif shape == PORT:
            read[name] = (<uint16_t *>at)[0]
        elif shape == NAT:
            read[name] = (<uint8_t *>at)[0]
        elif shape == ADDRESS:
            address = (<uint32_t *>at)[0]
            read[name] = f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
        else:
            read[name] = PyBytes_FromStringAndSize(message.key, message.key_len).decode("ascii")
    return read


def write_message(int kind, message not None):
    """The text of a JSON message, keys in the schema's order; the shapes are read_message's.

    Raises ValueError for an unknown key, a key that the type does not have, or a value of the wrong shape.
    """
    cdef srp_message flat
    cdef char out[1024]
    cdef uint32_t size
    cdef void *at
    memset(&flat, 0, sizeof(flat))
    hold = None  # keeps the bytes of `key` alive
    for name, value in message.items():
        if name not in KEYS:
            raise ValueError(f"{name}: no such key")
        key, shape = KEYS[name]
        at = _member(&flat, key)
        if shape == ID32 or shape == HASH20:
            raw = bytes.fromhex(value)
            if len(raw) != (32 if shape == ID32 else 20):
                raise ValueError(f"{name}: {len(raw)} bytes")
            memcpy(at, PyBytes_AS_STRING(raw), len(raw))
        elif shape == TEXT:
            raw = value.encode("ascii")
            if not 12 <= len(raw) <= (13 if key == SRP_KEY_PING_ID else 12) or raw.strip(b"0123456789abcdefABCDEF"):
                raise ValueError(f"{name}: not 12 hex digits")
            memcpy(at, PyBytes_AS_STRING(raw), len(raw))
        elif shape == TRUTH:
            if value:
                flat.truth |= <uint32_t>1 << <int>key
        elif shape == NUMBER:
            (<double *>at)[0] = value
        elif shape == PORT:
            if not 1 <= value <= 65535:
                raise ValueError(f"{name}: {value} is no port")
            (<uint16_t *>at)[0] = value
        elif shape == NAT:
            if not 0 <= value <= 31 or value & 5 != 5:
                raise ValueError(f"{name}: {value} is no NAT type")
            (<uint8_t *>at)[0] = value
        elif shape == ADDRESS:
            parts = [int(part) for part in value.split(".")]
            if len(parts) != 4 or not all(0 <= part <= 255 for part in parts):
                raise ValueError(f"{name}: {value} is no IPv4 address")
            (<uint32_t *>at)[0] = parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]
        else:
            hold = value.encode("ascii")
            if len(hold) > SRP_KEY_BYTES_MAX or '"' in value or "\\" in value or not value.isprintable():
                raise ValueError(f"{name}: not plain text of at most {SRP_KEY_BYTES_MAX} bytes")
            flat.key = PyBytes_AS_STRING(hold)
            flat.key_len = <uint32_t>len(hold)
        flat.has |= <uint32_t>1 << <int>key
    size = srp_message_write(<uint8_t>kind if 0 < kind < SRP_TYPES else 0, &flat, out, SRP_MESSAGE_MAX)
    written = PyBytes_FromStringAndSize(out, size)
    if size == 0 or written.count(b'":') != len(message):
        raise ValueError(f"type {kind} does not have all of these keys")
    return written


cdef bytes _digest(tuple parts, bint long):
    cdef srp_part flat[8]
    cdef uint8_t out[32]
    cdef int i
    if len(parts) > 8:
        raise ValueError("at most 8 parts")
    for i in range(<int>len(parts)):
        part = parts[i]
        if not isinstance(part, bytes):
            raise TypeError("parts are bytes")
        flat[i].at = PyBytes_AS_STRING(part)
        flat[i].len = len(part)
    if long:
        srp_sha256(flat, <unsigned int>len(parts), out)
    else:
        srp_sha1(flat, <unsigned int>len(parts), out)
    return PyBytes_FromStringAndSize(<char *>out, 32 if long else 20)


def sha256(*parts):
    """SHA-256 of up to 8 byte strings, one after the other: 32 bytes."""
    return _digest(parts, True)


def sha1(*parts):
    """SHA-1 of up to 8 byte strings, one after the other: 20 bytes."""
    return _digest(parts, False)


def siphash(bytes key not None, bytes data not None, int rounds=2):
    """SipHash-2-4 (rounds=1: SipHash-1-3) of data under a 16-byte key (little-endian halves, as in its paper)."""
    cdef srp_sip_key flat
    if len(key) != 16:
        raise ValueError("the key is 16 bytes")
    flat.k0 = int.from_bytes(key[:8], "little")
    flat.k1 = int.from_bytes(key[8:], "little")
    if rounds == 1:
        return srp_sip(&flat, PyBytes_AS_STRING(data), len(data))
    return srp_mac(&flat, PyBytes_AS_STRING(data), len(data))


def summarize(packet_ids, str prefix not None=""):
    """The summary of a set of packet ids (32 bytes each) below a prefix of lower-case hex digits.

    Returns (hash, buckets): 20 bytes, and 16 times 20 bytes or None for a digit with no id. Reference: cache.js.
    """
    buckets = [[] for _ in range(16)]
    for packet_id in packet_ids:
        text = packet_id.hex()
        if text.startswith(prefix) and len(text) > len(prefix):
            buckets[int(text[len(prefix)], 16)].append(text)
    hashes = [sha1("".join(sorted(bucket)).encode()) if bucket else None for bucket in buckets]
    found = "".join(bucket.hex() for bucket in hashes if bucket is not None)
    return (sha1(found.encode()) if found else EMPTY_SUMMARY), hashes


def encode_summary(str prefix not None, bytes digest not None, buckets):
    """The message of a sync packet: prefix length in digits, prefix, hash, then digit and hash of each bucket."""
    out = bytes([len(prefix)]) + bytes.fromhex(prefix if len(prefix) % 2 == 0 else "0" + prefix) + digest
    for digit, bucket in enumerate(buckets):
        if bucket is not None:
            out += bytes([digit]) + bucket
    return out


def decode_summary(bytes data not None):
    """The reverse of encode_summary: (prefix, hash, buckets). Raises ValueError for anything that it does not write."""
    if not data:
        raise ValueError("empty summary")
    digits = data[0]
    at = 1 + (digits + 1) // 2
    if digits > 64 or len(data) < at + 20 or (len(data) - at - 20) % 21:
        raise ValueError("summary cut off")
    text = data[1:at].hex()
    if digits % 2 and text[0] != "0":
        raise ValueError("prefix padded with something else than 0")
    prefix = text[digits % 2:]
    buckets = [None] * 16
    last = -1
    for row in range(at + 20, len(data), 21):
        digit = data[row]
        if digit > 15 or digit <= last:
            raise ValueError("buckets out of order")
        last = digit
        buckets[digit] = data[row + 1:row + 21]
    return prefix, data[at:at + 20], buckets


def split(bytes message not None, str meta not None="{}", *, ts):
    """The packets of a message: the message itself, or a head and its fragments when it is over FRAGMENT_BYTES.

    Each is the part of encode()'s arguments that differs: index, message, packet_id, previous_id, next_id. `ts` is the
    time in ms for the head, `meta` the JSON text kept in it. Rules: protocol of split messages, docs/protocol.md.
    """
    if len(message) <= FRAGMENT_BYTES:
        return [{"index": -1, "message": message, "packet_id": sha256(message), "previous_id": UNSET, "next_id": UNSET}]
    fragments = [message[at:at + FRAGMENT_BYTES] for at in range(0, len(message), FRAGMENT_BYTES)]
    head = f'{{"meta":{meta},"ts":{int(ts)},"size":{len(message)},"indexes":{len(fragments)}}}'.encode("ascii")
    head_id = sha256(head)
    packets = [{"index": 0, "message": head, "packet_id": head_id, "previous_id": UNSET, "next_id": UNSET}]
    for index, fragment in enumerate(fragments, 1):
        packet_id = sha256(sha256(packets[-1]["packet_id"]), sha256(fragment))
        packets[-1]["next_id"] = packet_id
        packets.append({
            "index": index, "message": fragment, "packet_id": packet_id, "previous_id": head_id, "next_id": UNSET,
        })
    return packets
